//! The C ABI of crossdock/plugin.h for a writer: its structs as Rust declares them, and wrappers
//! without `unsafe` around them. All `unsafe` of the plugin is in this file.
//!
//! A panic must not reach the host: every function that the host calls runs in `guard`, which makes
//! it an error. Fields that a writer does not use are declared all the same, for their places.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void, CStr, CString};
use std::marker::PhantomData;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr::{null, NonNull};

/// The writer that the library exports.
use crate::SafetensorsWriter as Exported;

// ---- crossdock/plugin.h ------------------------------------------------------------------------

pub type Status = i32;
const OK: Status = 0;
pub const CANCELLED: Status = 1;
pub const CORRUPT: Status = 4;
pub const UNIMPLEMENTED: Status = 5;
pub const NO_MEMORY: Status = 8;
const INTERNAL: Status = 10;

const WRITER: u32 = 2;
pub const CAP_CONCURRENT: u64 = 1;
pub const CAP_FILE_NAMES: u64 = 4;
pub const CAP_QUANTISED: u64 = 32;

/// Functions that are not used here.
type Unused = *const c_void;

#[repr(C)]
pub struct RawCall {
    struct_size: u32,
    reserved: u32,
    host: *const RawHost,
}

#[repr(C)]
pub struct Range {
    struct_size: u32,
    dtype: u32,
    tensor: u64,
    begin: u64,
    count: u64,
}

#[repr(C)]
struct RawView {
    struct_size: u32,
    memory: u32,
    data: *const c_void,
    size: u64,
}

#[repr(C)]
struct RawFailure {
    struct_size: u32,
    code: Status,
    place: *const c_char,
    message: *const c_char,
}

#[repr(C)]
struct RawObjectDesc {
    struct_size: u32,
    flags: u32,
    path: *const c_char,
    size: u64,
}

#[repr(C)]
struct RawItemDesc {
    struct_size: u32,
    object: u32,
    needs: *const *const Range,
    out_bytes: u64,
    memory: u64,
}

#[repr(C)]
struct RawHost {
    struct_size: u32,
    abi_minor: u32,
    get_extension: Unused,
    fail: unsafe extern "C" fn(*mut RawCall, *const RawFailure) -> Status,
    log: Unused,
    cancelled: unsafe extern "C" fn(*mut RawCall) -> i32,
    progress: Unused,
    piece_bytes: unsafe extern "C" fn(*mut RawCall) -> u64,
    alloc: unsafe extern "C" fn(*mut RawCall, u64, u64) -> *mut c_void,
    dealloc: unsafe extern "C" fn(*mut RawCall, *mut c_void),
    input_count: Unused,
    input_entry: Unused,
    input_named: Unused,
    source_open: Unused,
    source_size: Unused,
    source_read: Unused,
    bytes_append: unsafe extern "C" fn(*mut RawCall, *mut c_void, *const c_void, u64) -> Status,
    plan_object:
        unsafe extern "C" fn(*mut RawCall, *mut c_void, *const RawObjectDesc, *mut u32) -> Status,
    plan_item: unsafe extern "C" fn(*mut RawCall, *mut c_void, *const RawItemDesc) -> Status,
    plan_aux: unsafe extern "C" fn(*mut RawCall, *mut c_void, *const c_char, u64) -> Status,
    plan_exclude: unsafe extern "C" fn(*mut RawCall, *mut c_void, u64, *const c_char) -> Status,
    plan_note: Unused,
    tensor_read: unsafe extern "C" fn(*mut RawCall, *const Range, *mut c_void, u64) -> Status,
    object_write:
        unsafe extern "C" fn(*mut RawCall, *mut c_void, u64, *const c_void, u64) -> Status,
    object_zero: Unused,
    object_size: Unused,
    object_read: Unused,
}

#[repr(C)]
struct RawWriterOpen {
    struct_size: u32,
    reserved: u32,
    manifest: *const c_void,
    manifest_size: u64,
    options: *const *const c_void,
}

#[repr(C)]
struct RawItem {
    struct_size: u32,
    object: u32,
    item: u64,
    out: *mut c_void,
    result: *mut c_void,
}

#[repr(C)]
struct RawSeal {
    struct_size: u32,
    object: u32,
    out: *mut c_void,
    results: *const *const RawView,
}

#[repr(C)]
struct RawWriterApi {
    struct_size: u32,
    reserved: u32,
    open: unsafe extern "C" fn(*mut RawCall, *const RawWriterOpen, *mut *mut c_void) -> Status,
    plan: unsafe extern "C" fn(*mut RawCall, *mut c_void, *mut c_void) -> Status,
    write_item: unsafe extern "C" fn(*mut RawCall, *mut c_void, *const RawItem) -> Status,
    seal: unsafe extern "C" fn(*mut RawCall, *mut c_void, *const RawSeal) -> Status,
    commit: unsafe extern "C" fn(*mut RawCall, *mut c_void) -> Status,
    close: unsafe extern "C" fn(*mut RawCall, *mut c_void),
}

#[repr(C)]
struct RawPluginDesc {
    struct_size: u32,
    kind: u32,
    caps: u64,
    id: *const c_char,
    version: *const c_char,
    summary: *const c_char,
    formats: *const *const c_char,
    patterns: *const *const c_char,
    options: *const *const c_void,
    reader: *const c_void,
    writer: *const RawWriterApi,
    get_extension: Unused,
}

#[repr(C)]
pub struct RawLibrary {
    struct_size: u32,
    needs_minor: u32,
    plugins: *const *const RawPluginDesc,
}

const fn size_of<T>() -> u32 {
    std::mem::size_of::<T>() as u32
}

// ---- what a writer is --------------------------------------------------------------------------

pub struct Info {
    pub id: &'static CStr,
    pub version: &'static CStr,
    pub summary: &'static CStr,
    pub format: &'static CStr,
    pub caps: u64,
}

/// One conversion's output. The host calls write_item() and seal() from several threads, so all of
/// it is decided in open(), and what an item finds out goes into its result.
pub trait Writer: Send + Sync + Sized {
    const INFO: Info;
    fn open(manifest: &[u8]) -> Result<Self>;
    fn plan(&self, call: Call, plan: Plan) -> Result<()>;
    fn write_item(&self, call: Call, object: u32, item: u64, out: Object) -> Result<Vec<u8>>;
    fn seal(&self, call: Call, object: u32, out: Object, results: &[&[u8]]) -> Result<()>;
}

pub struct Error {
    status: Status,
    /// None: a function of the host failed, and its message is kept there.
    message: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

pub fn error<T>(status: Status, message: impl Into<String>) -> Result<T> {
    Err(Error { status, message: Some(message.into()) })
}

fn check(status: Status) -> Result<()> {
    if status == OK {
        Ok(())
    } else {
        Err(Error { status, message: None })
    }
}

/// Text for C. A NUL, which would end it early, becomes a blank.
fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

impl Range {
    /// Elements [begin, begin + count) in the manifest's own type.
    pub fn new(tensor: u64, begin: u64, count: u64) -> Range {
        Range { struct_size: size_of::<Range>(), dtype: 0, tensor, begin, count }
    }
}

/// One call of the plugin by the host: good until it returns.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    raw: NonNull<RawCall>,
    lifetime: PhantomData<&'a RawCall>,
}

impl<'a> Call<'a> {
    /// # Safety
    /// `raw` is what the host handed to the function that runs, and outlives 'a.
    unsafe fn new(raw: *mut RawCall) -> Option<Call<'a>> {
        Some(Call { raw: NonNull::new(raw)?, lifetime: PhantomData })
    }

    fn host(&self) -> &RawHost {
        // SAFETY: new() was told that the call is the host's, whose table outlives it.
        unsafe { &*self.raw.as_ref().host }
    }

    fn fail(&self, error: &Error) -> Status {
        let message = error.message.as_deref().map(c_text);
        let failure = RawFailure {
            struct_size: size_of::<RawFailure>(),
            code: error.status,
            place: null(),
            message: message.as_ref().map_or(null(), |text| text.as_ptr()),
        };
        // SAFETY: the failure and its text live until fail() returns.
        unsafe { (self.host().fail)(self.raw.as_ptr(), &failure) }
    }

    pub fn is_cancelled(&self) -> bool {
        // SAFETY: as for host().
        unsafe { (self.host().cancelled)(self.raw.as_ptr()) != 0 }
    }

    pub fn piece_bytes(&self) -> u64 {
        // SAFETY: as for host().
        unsafe { (self.host().piece_bytes)(self.raw.as_ptr()) }
    }

    /// Memory of the host's budget, zeroed.
    pub fn buffer(&self, size: usize) -> Result<Buffer<'a>> {
        // SAFETY: as for host().
        let data = unsafe { (self.host().alloc)(self.raw.as_ptr(), size as u64, 64) };
        let Some(data) = NonNull::new(data.cast::<u8>()) else {
            return error(NO_MEMORY, "expected memory within the budget: raise --memory");
        };
        // SAFETY: the host gave `size` bytes.
        unsafe { data.as_ptr().write_bytes(0, size) };
        Ok(Buffer { call: *self, data, size })
    }

    /// Dense values of a range that the item needs.
    pub fn read_tensor(&self, range: &Range, out: &mut [u8]) -> Result<()> {
        let (data, size) = (out.as_mut_ptr().cast(), out.len() as u64);
        // SAFETY: the host writes `size` bytes to `data`, and keeps neither pointer.
        check(unsafe { (self.host().tensor_read)(self.raw.as_ptr(), range, data, size) })
    }
}

pub struct Buffer<'a> {
    call: Call<'a>,
    data: NonNull<u8>,
    size: usize,
}

impl Buffer<'_> {
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `size` bytes of the host that only this buffer has, zeroed when it was made.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.size) }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // SAFETY: the call lives, and the memory is given back once.
        unsafe { (self.call.host().dealloc)(self.call.raw.as_ptr(), self.data.as_ptr().cast()) }
    }
}

/// What a writer says in plan().
pub struct Plan<'a> {
    call: Call<'a>,
    raw: *mut c_void,
}

impl Plan<'_> {
    /// Gives the object's number.
    pub fn object(&self, path: &str, size: u64) -> Result<u32> {
        let path = c_text(path);
        let desc = RawObjectDesc {
            struct_size: size_of::<RawObjectDesc>(),
            flags: 0,
            path: path.as_ptr(),
            size,
        };
        let mut number = 0;
        let plan_object = self.call.host().plan_object;
        // SAFETY: all pointers live until it returns.
        check(unsafe { plan_object(self.call.raw.as_ptr(), self.raw, &desc, &mut number) })?;
        Ok(number)
    }

    pub fn item(&self, object: u32, need: &Range, out_bytes: u64, memory: u64) -> Result<()> {
        let needs = [need as *const Range, null()];
        let desc = RawItemDesc {
            struct_size: size_of::<RawItemDesc>(),
            object,
            needs: needs.as_ptr(),
            out_bytes,
            memory,
        };
        // SAFETY: all pointers live until it returns, and the list ends in NULL.
        check(unsafe { (self.call.host().plan_item)(self.call.raw.as_ptr(), self.raw, &desc) })
    }

    pub fn aux(&self, path: &str, number: u64) -> Result<()> {
        let path = c_text(path);
        let plan_aux = self.call.host().plan_aux;
        // SAFETY: the path lives until it returns.
        check(unsafe { plan_aux(self.call.raw.as_ptr(), self.raw, path.as_ptr(), number) })
    }

    pub fn exclude(&self, tensor: u64, reason: &str) -> Result<()> {
        let reason = c_text(reason);
        let plan_exclude = self.call.host().plan_exclude;
        // SAFETY: the reason lives until it returns.
        check(unsafe { plan_exclude(self.call.raw.as_ptr(), self.raw, tensor, reason.as_ptr()) })
    }
}

/// One staged output object, while an item of it is written or it is sealed.
pub struct Object<'a> {
    call: Call<'a>,
    raw: *mut c_void,
}

impl Object<'_> {
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let (data, size) = (bytes.as_ptr().cast(), bytes.len() as u64);
        let object_write = self.call.host().object_write;
        // SAFETY: the bytes live until it returns.
        check(unsafe { object_write(self.call.raw.as_ptr(), self.raw, offset, data, size) })
    }
}

// ---- what the host calls -----------------------------------------------------------------------

/// Runs a call: its error, or the panic that it ends in, becomes a status and a message.
///
/// # Safety
/// `raw` is what the host handed to the function that runs.
unsafe fn guard(raw: *mut RawCall, body: impl FnOnce(Call) -> Result<()>) -> Status {
    // SAFETY: the caller says so.
    let Some(call) = (unsafe { Call::new(raw) }) else { return INTERNAL };
    let failed = match catch_unwind(AssertUnwindSafe(|| body(call))) {
        Ok(Ok(())) => return OK,
        Ok(Err(error)) => error,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Error { status: INTERNAL, message: Some(format!("the plugin panicked: {text}")) }
        }
    };
    call.fail(&failed)
}

/// # Safety
/// `data` and `size` are the host's, or (NULL, 0).
unsafe fn bytes_of<'a>(data: *const c_void, size: u64) -> &'a [u8] {
    if data.is_null() || size == 0 {
        return &[];
    }
    // SAFETY: the caller says so; a slice has no NULL, which was seen to above.
    unsafe { std::slice::from_raw_parts(data.cast(), size as usize) }
}

// SAFETY of all below: the pointers are the host's, as plugin.h promises, and `w` is what open()
// gave; a Writer is Sync, so that several threads may use it at once.

unsafe extern "C" fn open(
    c: *mut RawCall,
    args: *const RawWriterOpen,
    out: *mut *mut c_void,
) -> Status {
    unsafe {
        guard(c, |_| {
            let writer = Exported::open(bytes_of((*args).manifest, (*args).manifest_size))?;
            *out = Box::into_raw(Box::new(writer)).cast();
            Ok(())
        })
    }
}

unsafe extern "C" fn plan(c: *mut RawCall, w: *mut c_void, plan: *mut c_void) -> Status {
    unsafe { guard(c, |call| (*w.cast::<Exported>()).plan(call, Plan { call, raw: plan })) }
}

unsafe extern "C" fn write_item(c: *mut RawCall, w: *mut c_void, item: *const RawItem) -> Status {
    unsafe {
        guard(c, |call| {
            let (writer, item) = (&*w.cast::<Exported>(), &*item);
            let out = Object { call, raw: item.out };
            let result = writer.write_item(call, item.object, item.item, out)?;
            let (data, size) = (result.as_ptr().cast(), result.len() as u64);
            check((call.host().bytes_append)(c, item.result, data, size))
        })
    }
}

unsafe extern "C" fn seal(c: *mut RawCall, w: *mut c_void, seal: *const RawSeal) -> Status {
    unsafe {
        guard(c, |call| {
            let (writer, seal) = (&*w.cast::<Exported>(), &*seal);
            let mut results = Vec::new();
            while let Some(view) = (*seal.results.add(results.len())).as_ref() {
                results.push(bytes_of(view.data, view.size));
            }
            writer.seal(call, seal.object, Object { call, raw: seal.out }, &results)
        })
    }
}

unsafe extern "C" fn commit(_: *mut RawCall, _: *mut c_void) -> Status {
    OK
}

unsafe extern "C" fn close(c: *mut RawCall, w: *mut c_void) {
    unsafe {
        guard(c, |_| {
            drop(Box::from_raw(w.cast::<Exported>()));
            Ok(())
        });
    }
}

/// What the host reads for as long as the process lives.
struct Table<T>(T);
// SAFETY: nothing changes the tables, nor what they point to.
unsafe impl<T> Sync for Table<T> {}

static API: RawWriterApi = RawWriterApi {
    struct_size: size_of::<RawWriterApi>(),
    reserved: 0,
    open,
    plan,
    write_item,
    seal,
    commit,
    close,
};
static FORMATS: Table<[*const c_char; 2]> = Table([Exported::INFO.format.as_ptr(), null()]);
static PLUGIN: Table<RawPluginDesc> = Table(RawPluginDesc {
    struct_size: size_of::<RawPluginDesc>(),
    kind: WRITER,
    caps: Exported::INFO.caps,
    id: Exported::INFO.id.as_ptr(),
    version: Exported::INFO.version.as_ptr(),
    summary: Exported::INFO.summary.as_ptr(),
    formats: FORMATS.0.as_ptr(),
    patterns: null(),
    options: null(),
    reader: null(),
    writer: &API,
    get_extension: null(),
});
static PLUGINS: Table<[*const RawPluginDesc; 2]> = Table([&PLUGIN.0, null()]);
static LIBRARY: Table<RawLibrary> = Table(RawLibrary {
    struct_size: size_of::<RawLibrary>(),
    needs_minor: 0,
    plugins: PLUGINS.0.as_ptr(),
});

/// The library's one symbol.
///
/// # Safety
/// The host calls it with a call of its own and a place for the result.
#[no_mangle]
pub unsafe extern "C" fn xd_plugin_v1(c: *mut RawCall, out: *mut *const RawLibrary) -> Status {
    unsafe {
        guard(c, |call| {
            if call.host().struct_size < size_of::<RawHost>() {
                return error(UNIMPLEMENTED, "expected a host of ABI 1.0 or later, found another");
            }
            *out = &LIBRARY.0;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
