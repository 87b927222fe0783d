/* SPDX-License-Identifier: Apache-2.0 */

/* One library per case (-DCASE_name), each wrong in one way: the host must refuse it, say why, and
 * go on without it. The two cases `older` and `newer` are right, with structs of another length:
 * the host must take them. */
#include <crossdock/plugin.h>
#include <string.h>

static xd_status fail(xd_call* c, xd_status code, const char* message) {
  const xd_failure failure = {XD_INIT_SIZE(xd_failure), code, NULL, message};
  return c->host->fail(c, &failure);
}
static int32_t probe(xd_call* c, const xd_input* in) {
  (void)c;
  (void)in;
  return 0;
}
static xd_status open(xd_call* c, const xd_reader_open* args, xd_reader** out) {
  (void)args;
  (void)out;
  return fail(c, XD_UNIMPLEMENTED, "this is a test");
}
static xd_status manifest(xd_call* c, xd_reader* r, xd_bytes* out) {
  (void)c;
  (void)r;
  (void)out;
  return XD_INTERNAL;
}
static xd_status read(xd_call* c, xd_reader* r, const xd_range* range, void* dst,
                      uint64_t dst_size) {
  (void)c;
  (void)r;
  (void)range;
  (void)dst;
  (void)dst_size;
  return XD_INTERNAL;
}
static void close(xd_call* c, xd_reader* r) {
  (void)c;
  (void)r;
}

static xd_reader_api reader = {XD_INIT_SIZE(xd_reader_api), 0, probe, open, manifest, read, close};
static const char* formats[] = {"stub", NULL};
static xd_option_desc option = {XD_INIT_SIZE(xd_option_desc), 0, "flag", "bool", "false", "a flag"};
static const xd_option_desc* const options[] = {&option, NULL};

/* Room behind the description, as a host of tomorrow's header sees it. */
static struct {
  xd_plugin_desc desc;
  uint64_t appended[8];
} plugin = {{XD_INIT_SIZE(xd_plugin_desc), XD_READER, 0, "org.example.reader.stub", "1.0.0",
             "A reader for tests", formats, NULL, options, &reader, NULL, NULL},
            {0}};
static const xd_plugin_desc* plugins[] = {&plugin.desc, NULL};
static xd_library library = {XD_INIT_SIZE(xd_library), 0, plugins};

#if defined(CASE_no_symbol)
#define xd_plugin_v1 xd_plugin_v0
XD_EXPORT xd_status xd_plugin_v0(xd_call* c, const xd_library** out);
#elif defined(CASE_missing_symbol)
extern void xd_test_symbol_that_nobody_has(void);
#endif

/* What the entry point gives. */
static xd_status break_it(xd_call* c, const xd_library** out) {
  (void)c;
  *out = &library;
#if defined(CASE_needs_minor)
  library.needs_minor = XD_ABI_MINOR + 1;
#elif defined(CASE_missing_symbol)
  xd_test_symbol_that_nobody_has();
#elif defined(CASE_library_size_0)
  library.struct_size = 0;
#elif defined(CASE_no_plugins)
  library.plugins = NULL;
#elif defined(CASE_null_id)
  plugin.desc.id = NULL;
#elif defined(CASE_empty_id)
  plugin.desc.id = "";
#elif defined(CASE_no_version)
  plugin.desc.version = NULL;
#elif defined(CASE_no_format)
  formats[0] = NULL;
#elif defined(CASE_both_tables)
  static const xd_writer_api writer = {XD_INIT_SIZE(xd_writer_api), 0, 0, 0, 0, 0, 0, 0};
  plugin.desc.writer = &writer;
#elif defined(CASE_no_table)
  plugin.desc.reader = NULL;
#elif defined(CASE_wrong_kind)
  plugin.desc.kind = XD_WRITER;
#elif defined(CASE_unknown_kind)
  plugin.desc.kind = 77;
#elif defined(CASE_desc_size_0)
  plugin.desc.struct_size = 0;
#elif defined(CASE_table_size_0)
  reader.struct_size = 0;
#elif defined(CASE_missing_function)
  reader.read = NULL;
#elif defined(CASE_short_table) /* ends before close: the rest must not be read */
  reader.struct_size = offsetof(xd_reader_api, close);
#elif defined(CASE_nameless_option)
  option.name = NULL;
#elif defined(CASE_older)
  plugin.desc.id = "org.example.reader.older";
  plugin.desc.struct_size = offsetof(xd_plugin_desc, writer);
  plugin.desc.writer = (const xd_writer_api*)&library; /* behind its end: not to be seen */
#elif defined(CASE_newer)
  plugin.desc.id = "org.example.reader.newer";
  plugin.desc.struct_size = sizeof plugin;
  memset(plugin.appended, 0xff, sizeof plugin.appended);
#elif defined(CASE_fails)
  return fail(c, XD_UNSUPPORTED_DATA, "it is Sunday");
#elif defined(CASE_no_library)
  *out = NULL;
#endif
  return XD_OK;
}

xd_status xd_plugin_v1(xd_call* c, const xd_library** out) { return break_it(c, out); }
