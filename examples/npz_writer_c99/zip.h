/* SPDX-License-Identifier: Apache-2.0 */

/* The records of a zip archive, all in their 64-bit form: one way for small and large files.
 *
 *     [local header, deflated bytes] of each member, [directory entry] of each, [end]
 *
 * Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT */
#ifndef NPZ_ZIP_H
#define NPZ_ZIP_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  const char* name; /* and ".npy" behind it */
  uint64_t offset;  /* of its local header */
  uint64_t packed, size;
  uint32_t crc;
} zip_member;

#define ZIP_LOCAL_BYTES 50u /* and the name */
#define ZIP_ENTRY_BYTES 74u /* and the name */
#define ZIP_END_BYTES 98u

uint64_t zip_name_bytes(const char* name);
/* Each fills exactly as many bytes as the constants say. */
void zip_local(const zip_member* m, unsigned char* out);
void zip_entry(const zip_member* m, unsigned char* out);
/* Of a directory of `count` members and `size` bytes at `offset`. */
void zip_end(uint64_t count, uint64_t size, uint64_t offset, unsigned char* out);

/* Little-endian numbers of n bytes. */
void zip_put(unsigned char** at, uint64_t value, unsigned n);
uint64_t zip_get(const unsigned char** at, unsigned n);

#endif
