/* SPDX-License-Identifier: Apache-2.0 */

/* crossdock/wire.h - as much of protobuf's wire format as the manifest needs.  C99.  (C++ plugins
 * have crossdock/manifest_wire.hpp.)
 *
 * Writing: put_* append to an `out`; a message inside another is an `out` of its own.  Out of
 * memory sets `failed`, and one test at the end is enough.  Reading: xd_next_field() walks the
 * fields of a message and never leaves its bytes. */
#ifndef XD_WIRE_H
#define XD_WIRE_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  unsigned char* data;
  size_t size, room;
  int failed;
} xd_wire_out;

static inline void xd_put_raw(xd_wire_out* o, const void* bytes, size_t n) {
  if (o->failed) return;
  if (n > o->room - o->size) {
    const size_t room = (o->size + n) * 2 + 64;
    unsigned char* grown = (unsigned char*)realloc(o->data, room);
    if (!grown) {
      o->failed = 1;
      return;
    }
    o->data = grown;
    o->room = room;
  }
  if (n != 0) memcpy(o->data + o->size, bytes, n);
  o->size += n;
}

static inline void xd_put_varint(xd_wire_out* o, uint64_t v) {
  unsigned char bytes[10];
  size_t n = 0;
  for (; v >= 0x80; v >>= 7) bytes[n++] = (unsigned char)(v | 0x80);
  bytes[n++] = (unsigned char)v;
  xd_put_raw(o, bytes, n);
}

static inline void xd_put_number(xd_wire_out* o, uint32_t field, uint64_t v) {
  xd_put_varint(o, (uint64_t)field << 3);
  xd_put_varint(o, v);
}

static inline void xd_put_bytes(xd_wire_out* o, uint32_t field, const void* bytes, size_t n) {
  xd_put_varint(o, (uint64_t)field << 3 | 2);
  xd_put_varint(o, n);
  xd_put_raw(o, bytes, n);
}

/* Appends `part` as a field of `o`, and empties it. */
static inline void xd_put_message(xd_wire_out* o, uint32_t field, xd_wire_out* part) {
  xd_put_bytes(o, field, part->data, part->size);
  o->failed |= part->failed;
  free(part->data);
  memset(part, 0, sizeof *part);
}

typedef struct {
  const unsigned char *at, *end;
  int failed;
} xd_wire_in;

typedef struct {
  uint32_t number;
  uint64_t value;  /* of a number */
  xd_wire_in body; /* of text, bytes, messages and packed numbers */
} xd_wire_field;

static inline uint64_t xd_get_varint(xd_wire_in* in) {
  uint64_t v = 0;
  for (unsigned shift = 0; shift < 64 && in->at < in->end; shift += 7) {
    const unsigned char byte = *in->at++;
    v |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return v;
  }
  in->failed = 1;
  return 0;
}

/* The next field; 0 at the end or when the bytes are broken (in->failed). */
static inline int xd_next_field(xd_wire_in* in, xd_wire_field* f) {
  if (in->failed || in->at == in->end) return 0;
  const uint64_t tag = xd_get_varint(in);
  memset(f, 0, sizeof *f);
  f->number = (uint32_t)(tag >> 3);
  f->body.at = f->body.end = in->at;
  uint64_t n = 0;
  switch (tag & 7) {
    case 0:
      f->value = xd_get_varint(in);
      return !in->failed;
    case 1:
      n = 8;
      break;
    case 2:
      n = xd_get_varint(in);
      break;
    case 5:
      n = 4;
      break;
    default:
      in->failed = 1;
  }
  if (in->failed || n > (uint64_t)(in->end - in->at)) {
    in->failed = 1;
    return 0;
  }
  f->body.at = in->at;
  f->body.end = in->at += n;
  return 1;
}

#endif
