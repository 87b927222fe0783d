/* SPDX-License-Identifier: Apache-2.0 */

/* Prints the layout of every struct of plugin.h and extensions.h and the value of every constant: one line per field
 * with its offset, size and type.  compare_layout.cmake holds it against the record in
 * layout_v1.txt.
 *
 * The table is written by hand, and the compiler checks it: a wrong type does not compile
 * (_Generic), and a field that is not in the table leaves a gap between its neighbours, which ends
 * the program with 1. */
#include <crossdock/extensions.h>
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
#define LIMIT(name) printf(#name " = %llu\n", (unsigned long long)(name))

/* The spelling of the types is printed, so: */
/* clang-format off */
static void print_xd_call(void) {
  FIELD(xd_call, struct_size, uint32_t);
  FIELD(xd_call, reserved, uint32_t);
  FIELD(xd_call, host, const xd_host*);
  END(xd_call);
}

static void print_xd_range(void) {
  FIELD(xd_range, struct_size, uint32_t);
  FIELD(xd_range, dtype, uint32_t);
  FIELD(xd_range, tensor, uint64_t);
  FIELD(xd_range, begin, uint64_t);
  FIELD(xd_range, count, uint64_t);
  END(xd_range);
}

static void print_xd_view(void) {
  FIELD(xd_view, struct_size, uint32_t);
  FIELD(xd_view, memory, uint32_t);
  FIELD(xd_view, data, const void*);
  FIELD(xd_view, size, uint64_t);
  END(xd_view);
}

static void print_xd_failure(void) {
  FIELD(xd_failure, struct_size, uint32_t);
  FIELD(xd_failure, code, xd_status);
  FIELD(xd_failure, place, const char*);
  FIELD(xd_failure, message, const char*);
  END(xd_failure);
}

static void print_xd_input_entry(void) {
  FIELD(xd_input_entry, struct_size, uint32_t);
  FIELD(xd_input_entry, reserved, uint32_t);
  FIELD(xd_input_entry, name, const char*);
  FIELD(xd_input_entry, size, uint64_t);
  END(xd_input_entry);
}

static void print_xd_object_desc(void) {
  FIELD(xd_object_desc, struct_size, uint32_t);
  FIELD(xd_object_desc, flags, uint32_t);
  FIELD(xd_object_desc, path, const char*);
  FIELD(xd_object_desc, size, uint64_t);
  END(xd_object_desc);
}

static void print_xd_item_desc(void) {
  FIELD(xd_item_desc, struct_size, uint32_t);
  FIELD(xd_item_desc, object, uint32_t);
  FIELD(xd_item_desc, needs, const xd_range* const*);
  FIELD(xd_item_desc, out_bytes, uint64_t);
  FIELD(xd_item_desc, memory, uint64_t);
  END(xd_item_desc);
}

static void print_xd_host(void) {
  FIELD(xd_host, struct_size, uint32_t);
  FIELD(xd_host, abi_minor, uint32_t);
  FIELD(xd_host, get_extension, const void* (*)(xd_call*, const char*));
  FIELD(xd_host, fail, xd_status (*)(xd_call*, const xd_failure*));
  FIELD(xd_host, log, void (*)(xd_call*, int32_t, const char*));
  FIELD(xd_host, cancelled, int32_t (*)(xd_call*));
  FIELD(xd_host, progress, void (*)(xd_call*, uint64_t));
  FIELD(xd_host, piece_bytes, uint64_t (*)(xd_call*));
  FIELD(xd_host, alloc, void* (*)(xd_call*, uint64_t, uint64_t));
  FIELD(xd_host, dealloc, void (*)(xd_call*, void*));
  FIELD(xd_host, input_count, uint64_t (*)(xd_call*, const xd_input*));
  FIELD(xd_host, input_entry, xd_status (*)(xd_call*, const xd_input*, uint64_t, xd_input_entry*));
  FIELD(xd_host, input_named, const char* (*)(xd_call*, const xd_input*));
  FIELD(xd_host, source_open, xd_status (*)(xd_call*, const xd_input*, const char*, xd_source**));
  FIELD(xd_host, source_size, uint64_t (*)(xd_call*, const xd_source*));
  FIELD(xd_host, source_read, xd_status (*)(xd_call*, const xd_source*, uint64_t, void*, uint64_t));
  FIELD(xd_host, bytes_append, xd_status (*)(xd_call*, xd_bytes*, const void*, uint64_t));
  FIELD(xd_host, plan_object, xd_status (*)(xd_call*, xd_plan*, const xd_object_desc*, uint32_t*));
  FIELD(xd_host, plan_item, xd_status (*)(xd_call*, xd_plan*, const xd_item_desc*));
  FIELD(xd_host, plan_aux, xd_status (*)(xd_call*, xd_plan*, const char*, uint64_t));
  FIELD(xd_host, plan_exclude, xd_status (*)(xd_call*, xd_plan*, uint64_t, const char*));
  FIELD(xd_host, plan_note, xd_status (*)(xd_call*, xd_plan*, const char*));
  FIELD(xd_host, tensor_read, xd_status (*)(xd_call*, const xd_range*, void*, uint64_t));
  FIELD(xd_host, object_write, xd_status (*)(xd_call*, xd_object*, uint64_t, const void*, uint64_t));
  FIELD(xd_host, object_zero, xd_status (*)(xd_call*, xd_object*, uint64_t, uint64_t));
  FIELD(xd_host, object_size, uint64_t (*)(xd_call*, const xd_object*));
  FIELD(xd_host, object_read, xd_status (*)(xd_call*, xd_object*, uint64_t, void*, uint64_t));
  END(xd_host);
}

static void print_xd_option(void) {
  FIELD(xd_option, struct_size, uint32_t);
  FIELD(xd_option, reserved, uint32_t);
  FIELD(xd_option, key, const char*);
  FIELD(xd_option, value, const char*);
  END(xd_option);
}

static void print_xd_reader_open(void) {
  FIELD(xd_reader_open, struct_size, uint32_t);
  FIELD(xd_reader_open, reserved, uint32_t);
  FIELD(xd_reader_open, input, const xd_input*);
  FIELD(xd_reader_open, options, const xd_option* const*);
  END(xd_reader_open);
}

static void print_xd_reader_api(void) {
  FIELD(xd_reader_api, struct_size, uint32_t);
  FIELD(xd_reader_api, reserved, uint32_t);
  FIELD(xd_reader_api, probe, int32_t (*)(xd_call*, const xd_input*));
  FIELD(xd_reader_api, open, xd_status (*)(xd_call*, const xd_reader_open*, xd_reader**));
  FIELD(xd_reader_api, manifest, xd_status (*)(xd_call*, xd_reader*, xd_bytes*));
  FIELD(xd_reader_api, read, xd_status (*)(xd_call*, xd_reader*, const xd_range*, void*, uint64_t));
  FIELD(xd_reader_api, close, void (*)(xd_call*, xd_reader*));
  END(xd_reader_api);
}

static void print_xd_writer_open(void) {
  FIELD(xd_writer_open, struct_size, uint32_t);
  FIELD(xd_writer_open, reserved, uint32_t);
  FIELD(xd_writer_open, manifest, const void*);
  FIELD(xd_writer_open, manifest_size, uint64_t);
  FIELD(xd_writer_open, options, const xd_option* const*);
  END(xd_writer_open);
}

static void print_xd_item(void) {
  FIELD(xd_item, struct_size, uint32_t);
  FIELD(xd_item, object, uint32_t);
  FIELD(xd_item, item, uint64_t);
  FIELD(xd_item, out, xd_object*);
  FIELD(xd_item, result, xd_bytes*);
  END(xd_item);
}

static void print_xd_seal(void) {
  FIELD(xd_seal, struct_size, uint32_t);
  FIELD(xd_seal, object, uint32_t);
  FIELD(xd_seal, out, xd_object*);
  FIELD(xd_seal, results, const xd_view* const*);
  END(xd_seal);
}

static void print_xd_writer_api(void) {
  FIELD(xd_writer_api, struct_size, uint32_t);
  FIELD(xd_writer_api, reserved, uint32_t);
  FIELD(xd_writer_api, open, xd_status (*)(xd_call*, const xd_writer_open*, xd_writer**));
  FIELD(xd_writer_api, plan, xd_status (*)(xd_call*, xd_writer*, xd_plan*));
  FIELD(xd_writer_api, write_item, xd_status (*)(xd_call*, xd_writer*, const xd_item*));
  FIELD(xd_writer_api, seal, xd_status (*)(xd_call*, xd_writer*, const xd_seal*));
  FIELD(xd_writer_api, commit, xd_status (*)(xd_call*, xd_writer*));
  FIELD(xd_writer_api, close, void (*)(xd_call*, xd_writer*));
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
  FIELD(xd_plugin_desc, get_extension, const void* (*)(const char*));
  END(xd_plugin_desc);
}

static void print_xd_library(void) {
  FIELD(xd_library, struct_size, uint32_t);
  FIELD(xd_library, needs_minor, uint32_t);
  FIELD(xd_library, plugins, const xd_plugin_desc* const*);
  END(xd_library);
}

static void print_xd_source_range(void) {
  FIELD(xd_source_range, struct_size, uint32_t);
  FIELD(xd_source_range, reserved, uint32_t);
  FIELD(xd_source_range, source, const xd_source*);
  FIELD(xd_source_range, offset, uint64_t);
  FIELD(xd_source_range, dst, void*);
  FIELD(xd_source_range, size, uint64_t);
  END(xd_source_range);
}

static void print_xd_read_many(void) {
  FIELD(xd_read_many, struct_size, uint32_t);
  FIELD(xd_read_many, reserved, uint32_t);
  FIELD(xd_read_many, read, xd_status (*)(xd_call*, const xd_source_range* const*));
  END(xd_read_many);
}

static void print_xd_read_hint(void) {
  FIELD(xd_read_hint, struct_size, uint32_t);
  FIELD(xd_read_hint, access, uint32_t);
  FIELD(xd_read_hint, scratch, uint64_t);
  END(xd_read_hint);
}

static void print_xd_read_hints(void) {
  FIELD(xd_read_hints, struct_size, uint32_t);
  FIELD(xd_read_hints, reserved, uint32_t);
  FIELD(xd_read_hints, tensor, xd_status (*)(xd_call*, xd_reader*, uint64_t, xd_read_hint*));
  END(xd_read_hints);
}

/* clang-format on */

int main(void) {
  print_xd_call();
  print_xd_range();
  print_xd_view();
  print_xd_failure();
  print_xd_input_entry();
  print_xd_object_desc();
  print_xd_item_desc();
  print_xd_host();
  print_xd_option();
  print_xd_reader_open();
  print_xd_reader_api();
  print_xd_writer_open();
  print_xd_item();
  print_xd_seal();
  print_xd_writer_api();
  print_xd_option_desc();
  print_xd_plugin_desc();
  print_xd_library();
  print_xd_source_range();
  print_xd_read_many();
  print_xd_read_hint();
  print_xd_read_hints();
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
  CONSTANT(XD_CAP_MODULE);
  CONSTANT(XD_CAP_FILE_NAMES);
  CONSTANT(XD_CAP_TRAINING_STATE);
  CONSTANT(XD_CAP_TIED_NAMES);
  CONSTANT(XD_CAP_QUANTISED);
  CONSTANT(XD_LOG_DEBUG);
  CONSTANT(XD_LOG_INFO);
  CONSTANT(XD_LOG_WARN);
  CONSTANT(XD_LOG_PLUGIN_BUG);
  CONSTANT(XD_MEMORY_CPU);
  CONSTANT(XD_OBJECT_SIZE_AT_SEAL);
  CONSTANT(XD_OBJECT_IN_ORDER);
  CONSTANT(XD_ACCESS_ANY);
  CONSTANT(XD_ACCESS_SEQUENTIAL);
  LIMIT(XD_MAX_MANIFEST_BYTES);
  LIMIT(XD_MAX_RESULT_BYTES);
  LIMIT(XD_MAX_MESSAGE_BYTES);
  printf("symbol %s\n", XD_ENTRY_SYMBOL);
  printf("extension %s\nextension %s\n", XD_EXT_READ_MANY, XD_EXT_READ_HINTS);
  return gaps;
}
