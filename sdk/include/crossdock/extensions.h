/* SPDX-License-Identifier: Apache-2.0 */

/* crossdock/extensions.h - optional features of the ABI, each under a name with a revision.  C99.
 *
 * Whoever offers one gives a struct from get_extension(id), the host from xd_host, a plugin from
 * its xd_plugin_desc.  The other side must do without it: NULL means that it is not there.  The
 * rules of growth of plugin.h hold for these structs too. */
#ifndef XD_EXTENSIONS_H
#define XD_EXTENSIONS_H
#include <crossdock/plugin.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- of the host: several reads at once ------------------------------------------------------
 * On a slow disk of many (a network file system, an object store) each read waits; reads that do
 * not depend on each other, of a hundred shards' headers, say, had better wait together. */
#define XD_EXT_READ_MANY "crossdock.read_many/1"

typedef struct {
  uint32_t struct_size, reserved;
  const xd_source* source;
  uint64_t offset;
  void* dst;
  uint64_t size; /* in bytes */
} xd_source_range;

typedef struct {
  uint32_t struct_size, reserved;
  /* [any] As source_read() for each; `ranges` ends in NULL.  After an error no dst counts. */
  xd_status (*read)(xd_call* c, const xd_source_range* const* ranges);
} xd_read_many;

/* ---- of a reader: what reading a tensor costs --------------------------------------------------
 * The host asks once for each tensor, when it plans. */
#define XD_EXT_READ_HINTS "crossdock.read_hints/1"

enum {
  XD_ACCESS_ANY = 0,       /* ranges in any order cost the same */
  XD_ACCESS_SEQUENTIAL = 1 /* a range that does not begin where the last one ended is dear: a
                              compressed tensor is unpacked from its start again */
};

typedef struct {
  uint32_t struct_size;
  uint32_t access;
  uint64_t scratch; /* the most bytes that one read() of it takes of alloc(), what it leaves for the
                       next one counted */
} xd_read_hint;

typedef struct {
  uint32_t struct_size, reserved;
  /* [any] `out` is zeroed and sized by the host. */
  xd_status (*tensor)(xd_call* c, xd_reader* r, uint64_t tensor, xd_read_hint* out);
} xd_read_hints;

#ifdef __cplusplus
}
#endif
#endif /* XD_EXTENSIONS_H */
