/* SPDX-License-Identifier: Apache-2.0 */
#include "arrays.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <crossdock/wire.h>

enum { DTYPE_F32 = 12 };

/* The types that numpy has, by their numbers in manifest.proto. */
typedef struct {
  uint32_t dtype, bytes;
  const char* descr;
} numpy_type;

static const numpy_type numpy_types[] = {
    {1, 1, "|b1"},  {2, 1, "|u1"},  {3, 1, "|i1"},  {4, 2, "<u2"},   {5, 2, "<i2"},
    {6, 4, "<u4"},  {7, 4, "<i4"},  {8, 8, "<u8"},  {9, 8, "<i8"},   {10, 2, "<f2"},
    {12, 4, "<f4"}, {13, 8, "<f8"}, {20, 8, "<c8"}, {21, 16, "<c16"}};

static void choose_type(npz_array* a, int bf16_as_bits) {
  if (a->dtype == NPZ_BF16 && bf16_as_bits) {
    a->descr = "<u2";
    a->elem = 2;
    return;
  }
  const uint32_t written = a->dtype == NPZ_BF16 ? DTYPE_F32 : a->dtype;
  a->read_as = written == a->dtype ? 0 : written; /* the host casts */
  for (size_t i = 0; i < sizeof numpy_types / sizeof *numpy_types; ++i) {
    if (numpy_types[i].dtype != written) continue;
    a->descr = numpy_types[i].descr;
    a->elem = numpy_types[i].bytes;
  }
}

/* Text of a message, which ends in no NUL there; NULL: no memory, or a NUL inside. */
static char* copy_text(const xd_wire_in* text) {
  const size_t n = (size_t)(text->end - text->at);
  if (memchr(text->at, '\0', n)) return NULL;
  char* out = (char*)malloc(n + 1);
  if (!out) return NULL;
  memcpy(out, text->at, n);
  out[n] = '\0';
  return out;
}

static int set_text(char** to, const xd_wire_in* text) {
  free(*to);
  return (*to = copy_text(text)) != NULL;
}

/* One Tensor. `excluded`: the host has taken it out of the conversion. */
static int decode_tensor(xd_wire_in in, npz_array* a, int* excluded) {
  xd_wire_field f;
  int is_renamed = 0;
  while (xd_next_field(&in, &f)) {
    const int has_text = f.body.at < f.body.end;
    if (f.number == 1 && !is_renamed && !set_text(&a->name, &f.body)) return 0;
    if (f.number == 2) a->dtype = (uint32_t)f.value;
    while (f.number == 3 && f.body.at < f.body.end && !f.body.failed) { /* packed numbers */
      const uint64_t dim = xd_get_varint(&f.body);
      if (a->rank < NPZ_MAX_RANK) a->shape[a->rank] = dim;
      if (a->rank <= NPZ_MAX_RANK) ++a->rank;
    }
    if (f.number == 11 && has_text) *excluded = 1;
    if (f.number == 12 && has_text) { /* the name that the user wants */
      if (!set_text(&a->name, &f.body)) return 0;
      is_renamed = 1;
    }
  }
  a->count = 1; /* the host has checked that no shape overflows */
  for (uint32_t d = 0; d < a->rank && d < NPZ_MAX_RANK; ++d) a->count *= a->shape[d];
  return !in.failed && a->name;
}

static int add_tensor(xd_wire_in in, uint64_t index, int bf16_as_bits, npz_model* m) {
  npz_array a = {0};
  int excluded = 0;
  a.tensor = index;
  const int good = decode_tensor(in, &a, &excluded);
  if (!good || excluded) {
    free(a.name);
    return good;
  }
  choose_type(&a, bf16_as_bits);
  if (a.descr) {
    m->arrays[m->n_arrays++] = a;
  } else {
    m->others[m->n_others++] = a;
  }
  return 1;
}

/* An auxiliary file is planned by its number, so each has a name here. */
static int add_aux(xd_wire_in in, npz_model* m) {
  xd_wire_field f;
  char** name = &m->aux[m->n_aux++];
  while (xd_next_field(&in, &f)) {
    if (f.number == 2 && !set_text(name, &f.body)) return 0;
  }
  return !in.failed && *name;
}

int npz_decode(const void* manifest, uint64_t size, int bf16_as_bits, npz_model* out) {
  const unsigned char* bytes = (const unsigned char*)manifest;
  xd_wire_in in = {bytes, bytes + size, 0};
  xd_wire_field f;
  size_t n_tensors = 0, n_aux = 0;
  uint64_t index = 0;
  memset(out, 0, sizeof *out);
  while (xd_next_field(&in, &f)) {
    n_tensors += f.number == 3;
    n_aux += f.number == 6;
  }
  out->arrays = (npz_array*)calloc(n_tensors + 1, sizeof *out->arrays);
  out->others = (npz_array*)calloc(n_tensors + 1, sizeof *out->others);
  out->aux = (char**)calloc(n_aux + 1, sizeof *out->aux);
  int good = !in.failed && out->arrays && out->others && out->aux;
  in.at = bytes;
  while (good && xd_next_field(&in, &f)) {
    if (f.number == 3) good = add_tensor(f.body, index++, bf16_as_bits, out);
    if (f.number == 6) good = add_aux(f.body, out);
  }
  if (!good) npz_free(out);
  return good;
}

void npz_free(npz_model* m) {
  for (size_t i = 0; i < m->n_arrays; ++i) free(m->arrays[i].name);
  for (size_t i = 0; i < m->n_others; ++i) free(m->others[i].name);
  for (size_t i = 0; i < m->n_aux; ++i) free(m->aux[i]);
  free(m->arrays);
  free(m->others);
  free(m->aux);
  memset(m, 0, sizeof *m);
}

size_t npz_npy_header(const npz_array* a, char out[NPZ_MAX_NPY_HEADER]) {
  /* The magic, version 1.0, and the length of what follows, which is filled in last. */
  static const char magic[] = "\x93NUMPY\x01\x00";
  const size_t room = NPZ_MAX_NPY_HEADER;
  memcpy(out, magic, 8);
  size_t n = 10;
  n += (size_t)snprintf(out + n, room - n, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                        a->descr);
  for (uint32_t d = 0; d < a->rank; ++d)
    n += (size_t)snprintf(out + n, room - n, d == 0 ? "%" PRIu64 : ", %" PRIu64, a->shape[d]);
  n += (size_t)snprintf(out + n, room - n, a->rank == 1 ? ",), }" : "), }");
  while ((n + 1) % 64 != 0) out[n++] = ' '; /* so that the values are aligned */
  out[n++] = '\n';
  out[8] = (char)((n - 10) & 0xff);
  out[9] = (char)((n - 10) >> 8);
  return n;
}
