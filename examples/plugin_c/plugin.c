/* The library: which plugins it has. */
#include "toy.h"

static const xd_plugin_desc* const plugins[] = {&toy_reader, &toy_writer, NULL};

static const void* get_extension(const char* id) {
  (void)id;
  return NULL;
}

/* needs_minor is 0: only what ABI 1.0 has is used. */
static const xd_library library = {XD_INIT_SIZE(xd_library), 0, plugins, get_extension};

xd_status xd_plugin_v1(const xd_host* host, const xd_library** out, xd_error* err) {
  (void)host;
  (void)err;
  *out = &library;
  return XD_OK;
}
