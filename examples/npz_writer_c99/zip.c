/* SPDX-License-Identifier: Apache-2.0 */
#include "zip.h"

#include <string.h>

enum {
  VERSION = 45,      /* that knows 64-bit sizes */
  FLAG_UTF8 = 0x800, /* of names */
  DEFLATED = 8,
  NO_DATE = 0x21, /* 1980-01-01: bytes depend on nothing but the model */
  EXTRA_64 = 1
};
#define IN_64 UINT64_C(0xffffffff) /* "look into the 64-bit field" */

void zip_put(unsigned char** at, uint64_t value, unsigned n) {
  for (; n > 0; --n, value >>= 8) *(*at)++ = (unsigned char)(value & 0xff);
}

uint64_t zip_get(const unsigned char** at, unsigned n) {
  uint64_t value = 0;
  for (unsigned i = 0; i < n; ++i) value |= (uint64_t) * (*at)++ << (8 * i);
  return value;
}

uint64_t zip_name_bytes(const char* name) { return strlen(name) + 4; }

static void put_name(unsigned char** at, const char* name) {
  const size_t n = strlen(name);
  memcpy(*at, name, n);
  memcpy(*at + n, ".npy", 4);
  *at += n + 4;
}

/* What local headers and directory entries have in common. */
static void put_member(unsigned char** at, const zip_member* m, unsigned extra_bytes) {
  zip_put(at, VERSION, 2);
  zip_put(at, FLAG_UTF8, 2);
  zip_put(at, DEFLATED, 2);
  zip_put(at, 0, 2); /* time */
  zip_put(at, NO_DATE, 2);
  zip_put(at, m->crc, 4);
  zip_put(at, IN_64, 4); /* packed */
  zip_put(at, IN_64, 4); /* size */
  zip_put(at, zip_name_bytes(m->name), 2);
  zip_put(at, extra_bytes, 2);
}

void zip_local(const zip_member* m, unsigned char* out) {
  zip_put(&out, 0x04034b50, 4);
  put_member(&out, m, 20);
  put_name(&out, m->name);
  zip_put(&out, EXTRA_64, 2);
  zip_put(&out, 16, 2);
  zip_put(&out, m->size, 8);
  zip_put(&out, m->packed, 8);
}

void zip_entry(const zip_member* m, unsigned char* out) {
  zip_put(&out, 0x02014b50, 4);
  zip_put(&out, VERSION, 2); /* made by */
  put_member(&out, m, 28);
  zip_put(&out, 0, 10);    /* comment, disk, attributes: there are none */
  zip_put(&out, IN_64, 4); /* offset */
  put_name(&out, m->name);
  zip_put(&out, EXTRA_64, 2);
  zip_put(&out, 24, 2);
  zip_put(&out, m->size, 8);
  zip_put(&out, m->packed, 8);
  zip_put(&out, m->offset, 8);
}

void zip_end(uint64_t count, uint64_t size, uint64_t offset, unsigned char* out) {
  zip_put(&out, 0x06064b50, 4);
  zip_put(&out, 44, 8); /* bytes of this record that follow */
  zip_put(&out, VERSION, 2);
  zip_put(&out, VERSION, 2);
  zip_put(&out, 0, 8); /* disks */
  zip_put(&out, count, 8);
  zip_put(&out, count, 8);
  zip_put(&out, size, 8);
  zip_put(&out, offset, 8);
  /* Where that record is. */
  zip_put(&out, 0x07064b50, 4);
  zip_put(&out, 0, 4); /* its disk */
  zip_put(&out, offset + size, 8);
  zip_put(&out, 1, 4); /* disks */
  /* The 32-bit record, which says that the other holds. */
  zip_put(&out, 0x06054b50, 4);
  zip_put(&out, 0, 4); /* disks */
  zip_put(&out, 0xffff, 2);
  zip_put(&out, 0xffff, 2);
  zip_put(&out, IN_64, 4);
  zip_put(&out, IN_64, 4);
  zip_put(&out, 0, 2); /* comment */
}
