/* SPDX-License-Identifier: Apache-2.0 */

/* A host that knows ABI 1.0 and nothing later: it loads a library, lets its first reader open a
 * file, and prints the first bytes of the tensors.
 *
 *     abi_v1_0_host LIBRARY FILE N_BYTES...     one number for each tensor that is read */
#include <crossdock/plugin.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct xd_input {
  const char* name;
  uint64_t size;
};
struct xd_source {
  FILE* file;
  uint64_t size;
};
struct xd_bytes {
  uint64_t size;
};
typedef struct {
  xd_call head; /* what the plugin sees */
  char message[1000];
} call;

static const char* path;
static struct xd_source opened;

static const void* get_extension(xd_call* c, const char* id) {
  (void)c;
  (void)id;
  return NULL; /* 1.0 has extensions, and this host has none of them */
}
static xd_status fail(xd_call* c, const xd_failure* f) {
  if (f->message) snprintf(((call*)c)->message, sizeof((call*)c)->message, "%s", f->message);
  return f->code;
}
static void log_line(xd_call* c, int32_t level, const char* message) {
  (void)c;
  fprintf(stderr, "%d: %s\n", (int)level, message);
}
static int32_t cancelled(xd_call* c) {
  (void)c;
  return 0;
}
static void progress(xd_call* c, uint64_t bytes) {
  (void)c;
  (void)bytes;
}
static uint64_t piece_bytes(xd_call* c) {
  (void)c;
  return 1 << 16;
}
static void* alloc(xd_call* c, uint64_t size, uint64_t align) {
  (void)c;
  return aligned_alloc(align, (size + align) / align * align);
}
static void dealloc(xd_call* c, void* p) {
  (void)c;
  free(p);
}
static uint64_t input_count(xd_call* c, const xd_input* in) {
  (void)c;
  (void)in;
  return 1;
}
static xd_status input_entry(xd_call* c, const xd_input* in, uint64_t i, xd_input_entry* out) {
  (void)c;
  if (i > 0) return XD_OUT_OF_RANGE;
  out->name = in->name;
  out->size = in->size;
  return XD_OK;
}
static const char* input_named(xd_call* c, const xd_input* in) {
  (void)c;
  return in->name;
}
static xd_status source_open(xd_call* c, const xd_input* in, const char* name, xd_source** out) {
  (void)c;
  if (strcmp(name, in->name) != 0) return XD_NOT_FOUND;
  if (!opened.file) opened.file = fopen(path, "rb");
  opened.size = in->size;
  *out = &opened;
  return XD_OK;
}
static uint64_t source_size(xd_call* c, const xd_source* s) {
  (void)c;
  return s->size;
}
static xd_status source_read(xd_call* c, const xd_source* s, uint64_t off, void* dst, uint64_t n) {
  (void)c;
  if (fseek(s->file, (long)off, SEEK_SET) != 0) return XD_IO;
  return fread(dst, 1, n, s->file) == n ? XD_OK : XD_IO;
}
static xd_status bytes_append(xd_call* c, xd_bytes* b, const void* data, uint64_t n) {
  (void)c;
  (void)data;
  b->size += n;
  return XD_OK;
}

/* A reader calls none of a writer's. */
static const xd_host table = {XD_INIT_SIZE(xd_host), 0,    get_extension, fail,         log_line,
                              cancelled,     progress,     piece_bytes,   alloc,        dealloc,
                              input_count,   input_entry,  input_named,   source_open,  source_size,
                              source_read,   bytes_append, NULL,          NULL,         NULL,
                              NULL,          NULL,         NULL,          NULL,         NULL,
                              NULL,          NULL};

#define CHECK(holds)                                              \
  do {                                                            \
    if (!(holds)) {                                               \
      fprintf(stderr, "%s: not so: %s\n", c.message, #holds);     \
      return 1;                                                   \
    }                                                             \
  } while (0)

typedef xd_status entry(xd_call*, const xd_library**);

int main(int argc, char** argv) {
  call c = {{XD_INIT_SIZE(xd_call), 0, &table}, ""};
  CHECK(argc > 3);
  path = argv[2];
  void* const library = dlopen(argv[1], RTLD_NOW);
  if (!library) snprintf(c.message, sizeof c.message, "%s", dlerror());
  CHECK(library);
  entry* load = NULL;
  *(void**)&load = dlsym(library, XD_ENTRY_SYMBOL);
  CHECK(load);
  const xd_library* offered = NULL;
  CHECK(load(&c.head, &offered) == XD_OK);
  CHECK(offered->struct_size >= sizeof(xd_library) && offered->needs_minor == 0);
  const xd_plugin_desc* reader = offered->plugins[0];
  CHECK(reader->kind == XD_READER && reader->struct_size >= sizeof(xd_plugin_desc));

  FILE* const file = fopen(path, "rb");
  CHECK(file && fseek(file, 0, SEEK_END) == 0);
  const char* const slash = strrchr(path, '/');
  const xd_input input = {slash ? slash + 1 : path, (uint64_t)ftell(file)};
  CHECK(reader->reader->probe(&c.head, &input) > 0);
  /* Each option with its fallback, as a host gives them. */
  xd_option options[20];
  const xd_option* list[21] = {NULL};
  size_t n = 0;
  for (; reader->options && reader->options[n]; ++n) {
    const xd_option option = {XD_INIT_SIZE(xd_option), 0, reader->options[n]->name,
                              reader->options[n]->fallback};
    CHECK(n < 20 && option.value);
    options[n] = option;
    list[n] = &options[n];
  }
  const xd_reader_open args = {XD_INIT_SIZE(xd_reader_open), 0, &input, list};
  xd_reader* model = NULL;
  CHECK(reader->reader->open(&c.head, &args, &model) == XD_OK && model);
  xd_bytes manifest = {0};
  CHECK(reader->reader->manifest(&c.head, model, &manifest) == XD_OK && manifest.size > 0);
  for (int i = 3; i < argc; ++i) {
    char bytes[100];
    const uint64_t size = strtoull(argv[i], NULL, 10);
    const xd_range range = {XD_INIT_SIZE(xd_range), 0, (uint64_t)i - 3, 0, size};
    CHECK(size <= sizeof bytes);
    CHECK(reader->reader->read(&c.head, model, &range, bytes, size) == XD_OK);
    fwrite(bytes, 1, size, stdout);
  }
  reader->reader->close(&c.head, model);
  return 0;
}
