/* SPDX-License-Identifier: Apache-2.0 */

/* The library: which plugins it has. */
#include "toy.h"

static const xd_plugin_desc* const plugins[] = {&toy_reader, &toy_writer, NULL};

/* needs_minor is 0: only what ABI 1.0 has is used. */
static const xd_library library = {XD_INIT_SIZE(xd_library), 0, plugins};

xd_status xd_plugin_v1(xd_call* c, const xd_library** out) {
  (void)c;
  *out = &library;
  return XD_OK;
}
