#![allow(clippy::missing_transmute_annotations)] // of xd.rs's functions, each once

use super::*;

thread_local! {
    static MESSAGE: std::cell::RefCell<String> = Default::default();
}

unsafe extern "C" fn keep_message(_: *mut RawCall, failure: *const RawFailure) -> Status {
    unsafe {
        let text = CStr::from_ptr((*failure).message).to_string_lossy();
        MESSAGE.with(|kept| *kept.borrow_mut() = text.into_owned());
        (*failure).code
    }
}

unsafe extern "C" fn unexpected() {
    std::process::abort();
}
macro_rules! unexpected {
    () => {
        // SAFETY: it ends the process, whatever it is called with.
        unsafe { std::mem::transmute::<unsafe extern "C" fn(), _>(unexpected) }
    };
}

#[test]
fn a_panic_becomes_an_error() {
    let host = RawHost {
        struct_size: size_of::<RawHost>(),
        abi_minor: 0,
        get_extension: null(),
        fail: keep_message,
        log: null(),
        cancelled: unexpected!(),
        progress: null(),
        piece_bytes: unexpected!(),
        alloc: unexpected!(),
        dealloc: unexpected!(),
        input_count: null(),
        input_entry: null(),
        input_named: null(),
        source_open: null(),
        source_size: null(),
        source_read: null(),
        bytes_append: unexpected!(),
        plan_object: unexpected!(),
        plan_item: unexpected!(),
        plan_aux: unexpected!(),
        plan_exclude: unexpected!(),
        plan_note: null(),
        tensor_read: unexpected!(),
        object_write: unexpected!(),
        object_zero: null(),
        object_size: null(),
        object_read: null(),
    };
    let mut call = RawCall { struct_size: size_of::<RawCall>(), reserved: 0, host: &host };
    let mut library = null();
    assert_eq!(unsafe { xd_plugin_v1(&mut call, &mut library) }, OK);

    // An empty manifest has no items, so that there is no first one.
    let args = RawWriterOpen {
        struct_size: size_of::<RawWriterOpen>(),
        reserved: 0,
        manifest: null(),
        manifest_size: 0,
        options: null(),
    };
    let mut writer = std::ptr::null_mut();
    assert_eq!(unsafe { open(&mut call, &args, &mut writer) }, OK);
    let nowhere = std::ptr::null_mut();
    let item = RawItem {
        struct_size: size_of::<RawItem>(),
        object: 0,
        item: 0,
        out: nowhere,
        result: nowhere,
    };
    assert_eq!(unsafe { write_item(&mut call, writer, &item) }, INTERNAL);
    let message = MESSAGE.with(|kept| kept.borrow().clone());
    assert!(message.starts_with("the plugin panicked: index out of bounds"), "{message}");
    unsafe { close(&mut call, writer) };
}

/// "xd_range.tensor at 8 size 8" for each field, as tests/abi/layout_v1.txt of crossdock has it.
macro_rules! layout {
    ($($rust:ident as $c:literal { $($field:ident),* })*) => {
        vec![$((
            $c,
            vec![$({
                // SAFETY: integers and pointers of any function may be zero bytes here: no
                // value is used, only the size of the field's place.
                fn size<T, F>(_: impl Fn(*const T) -> *const F) -> usize {
                    std::mem::size_of::<F>()
                }
                let n = size(|p: *const $rust| unsafe { std::ptr::addr_of!((*p).$field) });
                let name = stringify!($field).trim_start_matches("r#");
                format!("{}.{} at {} size {}", $c, name,
                        std::mem::offset_of!($rust, $field), n)
            }),*],
        )),*]
    };
}

#[test]
fn structs_lie_as_the_record_says() {
    let record = std::env::var("XD_LAYOUT").expect("XD_LAYOUT: the path of layout_v1.txt");
    let record = std::fs::read_to_string(record).unwrap();
    let ours = layout! {
        RawCall as "xd_call" { struct_size, reserved, host }
        Range as "xd_range" { struct_size, dtype, tensor, begin, count }
        RawView as "xd_view" { struct_size, memory, data, size }
        RawFailure as "xd_failure" { struct_size, code, place, message }
        RawObjectDesc as "xd_object_desc" { struct_size, flags, path, size }
        RawItemDesc as "xd_item_desc" { struct_size, object, needs, out_bytes, memory }
        RawHost as "xd_host" {
            struct_size, abi_minor, get_extension, fail, log, cancelled, progress,
            piece_bytes, alloc, dealloc, input_count, input_entry, input_named, source_open,
            source_size, source_read, bytes_append, plan_object, plan_item, plan_aux,
            plan_exclude, plan_note, tensor_read, object_write, object_zero, object_size,
            object_read
        }
        RawWriterOpen as "xd_writer_open" {
            struct_size, reserved, manifest, manifest_size, options
        }
        RawItem as "xd_item" { struct_size, object, item, out, result }
        RawSeal as "xd_seal" { struct_size, object, out, results }
        RawWriterApi as "xd_writer_api" {
            struct_size, reserved, open, plan, write_item, seal, commit, close
        }
        RawPluginDesc as "xd_plugin_desc" {
            struct_size, kind, caps, id, version, summary, formats, patterns, options, reader,
            writer, get_extension
        }
        RawLibrary as "xd_library" { struct_size, needs_minor, plugins }
    };
    for (name, fields) in ours {
        let place = format!("{name}.");
        let known: Vec<&str> = record
            .lines()
            .filter(|line| line.starts_with(&place))
            .map(|line| line.split(':').next().unwrap())
            .collect();
        assert_eq!(fields, known);
    }
}
