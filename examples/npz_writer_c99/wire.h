/* Reading protobuf's wire format, as much as a manifest needs: next_field() walks the fields of a
 * message and never leaves its bytes. */
#ifndef NPZ_WIRE_H
#define NPZ_WIRE_H
#include <stdint.h>
#include <string.h>

typedef struct {
  const unsigned char *at, *end;
  int failed;
} wire_in;

typedef struct {
  uint32_t number;
  uint64_t value; /* of a number */
  wire_in body;   /* of text, bytes, messages and packed numbers */
} wire_field;

static inline uint64_t get_varint(wire_in* in) {
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
static inline int next_field(wire_in* in, wire_field* f) {
  if (in->failed || in->at == in->end) return 0;
  const uint64_t tag = get_varint(in);
  uint64_t n = 0;
  memset(f, 0, sizeof *f);
  f->number = (uint32_t)(tag >> 3);
  switch (tag & 7) {
    case 0:
      f->value = get_varint(in);
      break;
    case 1:
      n = 8;
      break;
    case 2:
      n = get_varint(in);
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
