/* Prints the layout of every struct of plugin.h and the value of every constant: one line per field
 * with its offset, size and type.  compare_layout.cmake holds it against the record in
 * layout_v1.txt.
 *
 * The table is written by hand, and the compiler checks it: a wrong type does not compile
 * (_Generic), and a field that is not in the table leaves a gap between its neighbours, which ends
 * the program with 1. */
#include <crossdock/plugin.h>
#include <stdalign.h>
#include <stdio.h>

static size_t end_of_last = 0; /* in the struct that is being printed */
static int gaps = 0;

static void check_gap(const char* place, size_t offset, size_t alignment) {
  const size_t expected = (end_of_last + alignment - 1) / alignment * alignment;
  if (offset == expected) return;
  fprintf(stderr, "layout.c: a field before %s is not in the table\n", place);
  gaps = 1;
}

/* The type comes last because it has commas. */
#define FIELD(type, field, ...)                                                                 \
  do {                                                                                          \
    _Static_assert(_Generic(((type*)0)->field, __VA_ARGS__ : 1, default : 0),                   \
                   "not the type of " #field);                                                  \
    check_gap(#type "." #field, offsetof(type, field), alignof(__typeof__(((type*)0)->field))); \
    printf(#type "." #field " at %zu size %zu: %s\n", offsetof(type, field),                    \
           sizeof(((type*)0)->field), #__VA_ARGS__);                                            \
    end_of_last = offsetof(type, field) + sizeof(((type*)0)->field);                            \
  } while (0)
#define END(type)                                           \
  do {                                                      \
    check_gap(#type "'s end", sizeof(type), alignof(type)); \
    end_of_last = 0;                                        \
  } while (0)
#define CONSTANT(name) printf(#name " = %d\n", (int)(name))

/* The spelling of the types is printed, so: */
/* clang-format off */
static void print_xd_range(void) {
  FIELD(xd_range, struct_size, uint32_t);
  FIELD(xd_range, form, uint32_t);
  FIELD(xd_range, tensor, uint64_t);
  FIELD(xd_range, begin, uint64_t);
  FIELD(xd_range, count, uint64_t);
  FIELD(xd_range, dtype, uint32_t);
  FIELD(xd_range, reserved, uint32_t);
  END(xd_range);
}

static void print_xd_view(void) {
  FIELD(xd_view, struct_size, uint32_t);
  FIELD(xd_view, reserved, uint32_t);
  FIELD(xd_view, data, const void*);
  FIELD(xd_view, size, uint64_t);
  FIELD(xd_view, release, void (*)(void*));
  FIELD(xd_view, owner, void*);
  END(xd_view);
}

static void print_xd_host(void) {
  FIELD(xd_host, struct_size, uint32_t);
  FIELD(xd_host, abi_minor, uint32_t);
  FIELD(xd_host, ctx, void*);
  FIELD(xd_host, get_extension, const void* (*)(void*, const char*));
  FIELD(xd_host, fail, xd_status (*)(void*, xd_error*, xd_status, const char*, const char*));
  FIELD(xd_host, log, void (*)(void*, int32_t, const char*));
  FIELD(xd_host, cancelled, int32_t (*)(void*));
  FIELD(xd_host, progress, void (*)(void*, uint64_t));
  FIELD(xd_host, piece_bytes, uint64_t (*)(void*));
  FIELD(xd_host, alloc, void* (*)(void*, uint64_t, uint64_t));
  FIELD(xd_host, dealloc, void (*)(void*, void*));
  FIELD(xd_host, input_count, uint64_t (*)(void*, const xd_input*));
  FIELD(xd_host, input_name, const char* (*)(void*, const xd_input*, uint64_t));
  FIELD(xd_host, input_size, uint64_t (*)(void*, const xd_input*, uint64_t));
  FIELD(xd_host, source_open, xd_status (*)(void*, const xd_input*, const char*, xd_source**, xd_error*));
  FIELD(xd_host, source_size, uint64_t (*)(void*, const xd_source*));
  FIELD(xd_host, source_read, xd_status (*)(void*, const xd_source*, uint64_t, void*, uint64_t, xd_error*));
  FIELD(xd_host, bytes_append, xd_status (*)(void*, xd_bytes*, const void*, uint64_t, xd_error*));
  FIELD(xd_host, plan_object, xd_status (*)(void*, xd_plan*, const char*, uint64_t, uint32_t*, xd_error*));
  FIELD(xd_host, plan_item, xd_status (*)(void*, xd_plan*, uint32_t, const xd_range* const*, uint64_t, uint64_t, xd_error*));
  FIELD(xd_host, plan_aux, xd_status (*)(void*, xd_plan*, const char*, uint64_t, xd_error*));
  FIELD(xd_host, plan_exclude, xd_status (*)(void*, xd_plan*, uint64_t, const char*, xd_error*));
  FIELD(xd_host, plan_note, xd_status (*)(void*, xd_plan*, const char*, xd_error*));
  FIELD(xd_host, tensor_view, xd_status (*)(void*, const xd_range*, xd_view*, xd_error*));
  FIELD(xd_host, tensor_read, xd_status (*)(void*, const xd_range*, void*, uint64_t, xd_error*));
  FIELD(xd_host, object_write, xd_status (*)(void*, xd_object*, uint64_t, const void*, uint64_t, xd_error*));
  FIELD(xd_host, object_zero, xd_status (*)(void*, xd_object*, uint64_t, uint64_t, xd_error*));
  FIELD(xd_host, input_named, const char* (*)(void*, const xd_input*));
  END(xd_host);
}

static void print_xd_option(void) {
  FIELD(xd_option, struct_size, uint32_t);
  FIELD(xd_option, reserved, uint32_t);
  FIELD(xd_option, key, const char*);
  FIELD(xd_option, value, const char*);
  END(xd_option);
}

static void print_xd_reader_api(void) {
  FIELD(xd_reader_api, struct_size, uint32_t);
  FIELD(xd_reader_api, reserved, uint32_t);
  FIELD(xd_reader_api, probe, int32_t (*)(const xd_host*, const xd_input*));
  FIELD(xd_reader_api, open, xd_status (*)(const xd_host*, const xd_input*, const xd_option* const*, xd_reader**, xd_error*));
  FIELD(xd_reader_api, manifest, xd_status (*)(xd_reader*, xd_bytes*, xd_error*));
  FIELD(xd_reader_api, read, xd_status (*)(xd_reader*, const xd_range*, void*, uint64_t, xd_error*));
  FIELD(xd_reader_api, view, xd_status (*)(xd_reader*, const xd_range*, xd_view*, xd_error*));
  FIELD(xd_reader_api, close, void (*)(xd_reader*));
  END(xd_reader_api);
}

static void print_xd_writer_api(void) {
  FIELD(xd_writer_api, struct_size, uint32_t);
  FIELD(xd_writer_api, reserved, uint32_t);
  FIELD(xd_writer_api, open, xd_status (*)(const xd_host*, const void*, uint64_t, const xd_option* const*, xd_writer**, xd_error*));
  FIELD(xd_writer_api, plan, xd_status (*)(xd_writer*, xd_plan*, xd_error*));
  FIELD(xd_writer_api, write_item, xd_status (*)(xd_writer*, uint32_t, uint64_t, xd_object*, xd_bytes*, xd_error*));
  FIELD(xd_writer_api, seal, xd_status (*)(xd_writer*, uint32_t, xd_object*, const xd_view* const*, xd_error*));
  FIELD(xd_writer_api, commit, xd_status (*)(xd_writer*, xd_error*));
  FIELD(xd_writer_api, close, void (*)(xd_writer*));
  END(xd_writer_api);
}

static void print_xd_option_desc(void) {
  FIELD(xd_option_desc, struct_size, uint32_t);
  FIELD(xd_option_desc, reserved, uint32_t);
  FIELD(xd_option_desc, name, const char*);
  FIELD(xd_option_desc, type, const char*);
  FIELD(xd_option_desc, fallback, const char*);
  FIELD(xd_option_desc, help, const char*);
  END(xd_option_desc);
}

static void print_xd_plugin_desc(void) {
  FIELD(xd_plugin_desc, struct_size, uint32_t);
  FIELD(xd_plugin_desc, kind, uint32_t);
  FIELD(xd_plugin_desc, caps, uint64_t);
  FIELD(xd_plugin_desc, id, const char*);
  FIELD(xd_plugin_desc, version, const char*);
  FIELD(xd_plugin_desc, summary, const char*);
  FIELD(xd_plugin_desc, formats, const char* const*);
  FIELD(xd_plugin_desc, patterns, const char* const*);
  FIELD(xd_plugin_desc, options, const xd_option_desc* const*);
  FIELD(xd_plugin_desc, reader, const xd_reader_api*);
  FIELD(xd_plugin_desc, writer, const xd_writer_api*);
  END(xd_plugin_desc);
}

static void print_xd_module(void) {
  FIELD(xd_library, struct_size, uint32_t);
  FIELD(xd_library, needs_minor, uint32_t);
  FIELD(xd_library, plugins, const xd_plugin_desc* const*);
  FIELD(xd_library, get_extension, const void* (*)(const char*));
  END(xd_library);
}

/* clang-format on */

int main(void) {
  print_xd_range();
  print_xd_view();
  print_xd_host();
  print_xd_option();
  print_xd_reader_api();
  print_xd_writer_api();
  print_xd_option_desc();
  print_xd_plugin_desc();
  print_xd_module();
  CONSTANT(XD_OK);
  CONSTANT(XD_CANCELLED);
  CONSTANT(XD_INVALID_ARGUMENT);
  CONSTANT(XD_NOT_FOUND);
  CONSTANT(XD_CORRUPT);
  CONSTANT(XD_UNIMPLEMENTED);
  CONSTANT(XD_UNSUPPORTED_DATA);
  CONSTANT(XD_IO);
  CONSTANT(XD_NO_MEMORY);
  CONSTANT(XD_OUT_OF_RANGE);
  CONSTANT(XD_INTERNAL);
  CONSTANT(XD_READER);
  CONSTANT(XD_WRITER);
  CONSTANT(XD_CAP_CONCURRENT);
  CONSTANT(XD_CAP_VIEW);
  CONSTANT(XD_CAP_MODULE);
  CONSTANT(XD_CAP_FILE_NAMES);
  CONSTANT(XD_CAP_TRAINING_STATE);
  CONSTANT(XD_CAP_TIED_NAMES);
  CONSTANT(XD_FORM_DENSE);
  CONSTANT(XD_FORM_STORED);
  CONSTANT(XD_LOG_DEBUG);
  CONSTANT(XD_LOG_INFO);
  CONSTANT(XD_LOG_WARN);
  CONSTANT(XD_LOG_PLUGIN_BUG);
  printf("symbol %s\n", XD_ENTRY_SYMBOL);
  return gaps;
}
