/* SPDX-License-Identifier: Apache-2.0 */

/* The toy format, the one thing that the reader and the writer share.
 *
 * A text header, then the values of all tensors without gaps, then one line per tensor with the sum
 * of its bytes:
 *
 *     xdtoy 1
 *     # any comment
 *     h.0.weight F32 2,3
 *     scale BF16 -
 *     data
 *     <24 bytes><2 bytes>00000000000003f1
 *     00000000000000bf
 *
 * A name has no blanks; "-" is the shape of a scalar. Values are little-endian and row-major. */
#ifndef TOY_H
#define TOY_H
#include <crossdock/plugin.h>

#define TOY_MAX_RANK 8
#define TOY_MAX_NAME 200
#define TOY_MAX_HEADER (1u << 20)
#define TOY_SUM_BYTES 17u /* 16 digits and a newline */

typedef struct {
  char name[TOY_MAX_NAME + 1];
  uint32_t dtype; /* DType of manifest.proto */
  uint32_t rank;
  uint64_t shape[TOY_MAX_RANK];
  uint64_t count;  /* elements */
  uint64_t offset; /* of its values in the file */
} toy_tensor;

/* The types of the format, by the numbers of manifest.proto. */
typedef struct {
  uint32_t dtype, bytes;
  const char* name;
} toy_dtype;

static const toy_dtype toy_dtypes[] = {{1, 1, "BOOL"},  {2, 1, "U8"},   {3, 1, "I8"},
                                       {7, 4, "I32"},   {9, 8, "I64"},  {10, 2, "F16"},
                                       {11, 2, "BF16"}, {12, 4, "F32"}, {13, 8, "F64"}};

static inline const toy_dtype* toy_find_dtype(uint32_t dtype) {
  for (size_t i = 0; i < sizeof toy_dtypes / sizeof *toy_dtypes; ++i) {
    if (toy_dtypes[i].dtype == dtype) return &toy_dtypes[i];
  }
  return NULL;
}

/* a * b, or 0 and *overflow. */
static inline uint64_t toy_mul(uint64_t a, uint64_t b, int* overflow) {
  if (a != 0 && b > UINT64_MAX / a) *overflow = 1;
  return *overflow ? 0 : a * b;
}

/* Tells the host what is wrong, and gives the code to return. A NULL message keeps the host's. */
static inline xd_status toy_fail(xd_call* c, xd_status code, const char* place,
                                 const char* message) {
  const xd_failure failure = {XD_INIT_SIZE(xd_failure), code, place, message};
  return c->host->fail(c, &failure);
}

extern const xd_plugin_desc toy_reader;
extern const xd_plugin_desc toy_writer;

#endif
