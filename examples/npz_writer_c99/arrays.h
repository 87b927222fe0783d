/* SPDX-License-Identifier: Apache-2.0 */

/* What of a manifest becomes arrays of a .npz, and how numpy describes each. */
#ifndef NPZ_ARRAYS_H
#define NPZ_ARRAYS_H
#include <crossdock/plugin.h>

#define NPZ_BF16 11u             /* of DType */
#define NPZ_MAX_RANK 32u         /* of numpy 1; numpy 2 takes 64 */
#define NPZ_MAX_NAME 65531u      /* with ".npy" behind it a zip's 65535 */
#define NPZ_MAX_NPY_HEADER 1024u /* 32 dimensions of 20 digits, and their names */

typedef struct {
  char* name;
  uint64_t tensor; /* its index in the manifest */
  uint32_t dtype;  /* there: DType of manifest.proto */
  uint32_t rank;   /* NPZ_MAX_RANK + 1: more than numpy takes */
  uint64_t shape[NPZ_MAX_RANK];
  uint64_t count;    /* of elements */
  uint32_t read_as;  /* DType to ask the host for, 0: its own */
  uint32_t elem;     /* bytes of an element as it is written */
  const char* descr; /* numpy's name of that type; NULL: it has none */
} npz_array;

typedef struct {
  npz_array *arrays, *others; /* others: numpy has no type for them */
  size_t n_arrays, n_others;
  char** aux; /* the names of the manifest's auxiliary files */
  size_t n_aux;
} npz_model;

/* `bf16_as_bits`: BF16, which numpy has not, becomes uint16 with the same bits; else float32 with
 * the same values. 0: the bytes are no manifest, or there is not enough memory. */
int npz_decode(const void* manifest, uint64_t size, int bf16_as_bits, npz_model* out);
void npz_free(npz_model* m);

/* The array's .npy header; its length is the result. */
size_t npz_npy_header(const npz_array* a, char out[NPZ_MAX_NPY_HEADER]);

#endif
