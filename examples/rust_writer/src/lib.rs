//! A writer of model.safetensors: eight bytes that tell the length of a JSON header, the header,
//! and the values of all tensors without gaps.
//!
//! Format: https://github.com/huggingface/safetensors#format
#![deny(unsafe_code)] // but in xd.rs
#![deny(unsafe_op_in_unsafe_fn)]

mod manifest;
mod xd;

use std::fmt::Write;
use xd::{error, Call, Info, Object, Plan, Range, Result};

/// The format's names of the types by their numbers in manifest.proto, and their bits.
const TYPES: [(&str, u64); 25] = [
    ("", 0),
    ("BOOL", 8),
    ("U8", 8),
    ("I8", 8),
    ("U16", 16),
    ("I16", 16),
    ("U32", 32),
    ("I32", 32),
    ("U64", 64),
    ("I64", 64),
    ("F16", 16),
    ("BF16", 16),
    ("F32", 32),
    ("F64", 64),
    ("F8_E4M3", 8),
    ("F8_E5M2", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("F8_E8M0", 8),
    ("", 0), // C32, which torch alone has
    ("C64", 64),
    ("", 0), // C128, which torch alone has
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
];

/// Work that one thread does at a time; of any type whole bytes.
const ITEM_ELEMENTS: u64 = 16 << 20;

/// One item of work: elements [begin, begin + count) of a tensor.
struct Item {
    tensor: u64,
    begin: u64,
    count: u64,
    bits: u64,
    /// Of its first byte behind the header.
    offset: u64,
}

impl Item {
    /// What it reads at a time: a multiple of 8, so whole bytes of any type.
    fn piece(&self, call: Call) -> u64 {
        (call.piece_bytes() / self.bits * 8).clamp(8, ITEM_ELEMENTS).min(self.count)
    }
}

pub struct SafetensorsWriter {
    /// The file's first bytes, up to the values.
    header: Vec<u8>,
    size: u64,
    items: Vec<Item>,
    /// Tensors of types that the format has not.
    others: Vec<u64>,
    aux: Vec<String>,
}

fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\0'..='\x1f' => _ = write!(out, "\\u{:04x}", c as u32),
            _ => out.push(c),
        }
    }
    out.push('"');
}

impl SafetensorsWriter {
    /// One at least: a tensor without elements is needed by some item too.
    fn add_items(&mut self, tensor: u64, n_elements: u64, bits: u64, offset: u64) {
        let mut begin = 0;
        loop {
            let count = ITEM_ELEMENTS.min(n_elements - begin);
            let offset = offset + begin * bits / 8;
            self.items.push(Item { tensor, begin, count, bits, offset });
            begin += count;
            if begin == n_elements {
                break;
            }
        }
    }
}

impl xd::Writer for SafetensorsWriter {
    const INFO: Info = Info {
        id: c"org.example.writer.safetensors-rust",
        version: c"1.0.0",
        summary: c"Writes model.safetensors, in Rust",
        format: c"safetensors-rust",
        caps: xd::CAP_CONCURRENT | xd::CAP_FILE_NAMES | xd::CAP_QUANTISED,
    };

    fn open(manifest: &[u8]) -> Result<Self> {
        let Some(model) = manifest::decode(manifest) else {
            return error(xd::CORRUPT, "expected a manifest, found bytes that are none");
        };
        let mut out = SafetensorsWriter {
            header: vec![],
            size: 0,
            items: vec![],
            others: vec![],
            aux: model.aux,
        };
        // Large elements first, so that each lies at a multiple of its size.
        let mut order = vec![];
        for (i, tensor) in (0u64..).zip(&model.tensors) {
            let (dtype, bits) = TYPES.get(tensor.dtype as usize).copied().unwrap_or(("", 0));
            if tensor.is_excluded {
                continue;
            } else if bits == 0 {
                out.others.push(i);
            } else {
                order.push((i, tensor, dtype, bits));
            }
        }
        order.sort_by_key(|&(_, _, _, bits)| std::cmp::Reverse(bits));

        let mut json = String::from(r#"{"__metadata__":{"format":"pt"}"#);
        let mut offset = 0;
        for (i, tensor, dtype, bits) in order {
            // The host has checked that no shape overflows, and that there are whole bytes.
            let count: u64 = tensor.shape.iter().product();
            let end = offset + count * bits / 8;
            json.push(',');
            push_json_string(&mut json, &tensor.name);
            _ = write!(json, r#":{{"dtype":"{dtype}","shape":{:?},"#, tensor.shape);
            _ = write!(json, r#""data_offsets":[{offset},{end}]}}"#);
            out.add_items(i, count, bits, offset);
            offset = end;
        }
        json.push('}');
        while json.len() % 8 != 0 {
            json.push(' ');
        }
        out.header = (json.len() as u64).to_le_bytes().to_vec();
        out.header.extend(json.bytes());
        out.size = out.header.len() as u64 + offset;
        Ok(out)
    }

    fn plan(&self, call: Call, plan: Plan) -> Result<()> {
        for &tensor in &self.others {
            plan.exclude(tensor, "safetensors has no type for its values")?;
        }
        let object = plan.object("model.safetensors", self.size)?;
        for item in &self.items {
            let need = Range::new(item.tensor, item.begin, item.count);
            let memory = item.piece(call) * item.bits / 8;
            plan.item(object, &need, item.count * item.bits / 8, memory)?;
        }
        for (i, name) in (0u64..).zip(&self.aux) {
            plan.aux(name, i)?;
        }
        Ok(())
    }

    fn write_item(&self, call: Call, _: u32, item: u64, out: Object) -> Result<Vec<u8>> {
        let item = &self.items[item as usize];
        if item.count == 0 {
            return Ok(vec![]);
        }
        let piece = item.piece(call);
        let mut buffer = call.buffer((piece * item.bits / 8) as usize)?;
        let mut done = 0;
        while done < item.count {
            if call.is_cancelled() {
                return error(xd::CANCELLED, "cancelled");
            }
            let count = piece.min(item.count - done);
            let bytes = &mut buffer.bytes()[..(count * item.bits / 8) as usize];
            call.read_tensor(&Range::new(item.tensor, item.begin + done, count), bytes)?;
            let at = self.header.len() as u64 + item.offset + done * item.bits / 8;
            out.write(at, bytes)?;
            done += count;
        }
        Ok(vec![]) // nothing that seal() must know
    }

    fn seal(&self, _: Call, _: u32, out: Object, _: &[&[u8]]) -> Result<()> {
        out.write(0, &self.header)
    }
}
