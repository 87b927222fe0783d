//! As much of manifest.proto as a writer of weights needs, from protobuf's wire format.

#[derive(Default)]
pub struct Tensor {
    pub name: String,
    pub dtype: u64,
    pub shape: Vec<u64>,
    /// The host has taken it out of the conversion.
    pub is_excluded: bool,
}

#[derive(Default)]
pub struct Manifest {
    pub tensors: Vec<Tensor>,
    /// The names of the auxiliary files.
    pub aux: Vec<String>,
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message; None: the bytes are no message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let n = usize::try_from(n).ok()?;
        if n > self.0.len() {
            return None;
        }
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        Some(taken)
    }

    fn next(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let n = self.varint()?;
                Value::Bytes(self.take(n)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn each(mut self, mut f: impl FnMut(u64, Value<'a>) -> Option<()>) -> Option<()> {
        while !self.0.is_empty() {
            let (number, value) = self.next()?;
            f(number, value)?;
        }
        Some(())
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

fn tensor(bytes: &[u8]) -> Option<Tensor> {
    let mut out = Tensor::default();
    let mut target = String::new();
    Fields(bytes).each(|number, value| {
        match (number, value) {
            (1, Value::Bytes(name)) => out.name = text(name)?,
            (2, Value::Number(dtype)) => out.dtype = dtype,
            (3, Value::Bytes(packed)) => {
                let mut dims = Fields(packed);
                while !dims.0.is_empty() {
                    out.shape.push(dims.varint()?);
                }
            }
            (11, Value::Bytes(reason)) => out.is_excluded = !reason.is_empty(),
            (12, Value::Bytes(name)) => target = text(name)?,
            _ => (),
        }
        Some(())
    })?;
    if !target.is_empty() {
        out.name = target; // the one that the user wants
    }
    Some(out)
}

pub fn decode(bytes: &[u8]) -> Option<Manifest> {
    let mut out = Manifest::default();
    Fields(bytes).each(|number, value| {
        match (number, value) {
            (3, Value::Bytes(body)) => out.tensors.push(tensor(body)?),
            (6, Value::Bytes(body)) => {
                let mut name = String::new();
                Fields(body).each(|number, value| {
                    if let (2, Value::Bytes(bytes)) = (number, value) {
                        name = text(bytes)?;
                    }
                    Some(())
                })?;
                out.aux.push(name);
            }
            _ => (),
        }
        Some(())
    })?;
    Some(out)
}
