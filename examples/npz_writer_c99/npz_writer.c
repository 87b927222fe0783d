/* SPDX-License-Identifier: Apache-2.0 */

/* Writes numpy's .npz as numpy.savez_compressed does: one file, model.npz, that numpy.load reads.
 *
 * How long deflated bytes are is not known before, so the object's size is an upper bound, its
 * items run in order, and each begins where the one before ended. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "arrays.h"
#include "zip.h"

/* Always the same, whatever the memory budget: nothing says that zlib gives the same bytes for
 * other pieces. A multiple of every type's size. */
#define PIECE_BYTES 32768u
/* What deflateInit2() allocates with these parameters, by zlib.h 256 KiB "plus a few kilobytes";
 * zlib-ng takes more. */
#define DEFLATE_BYTES (UINT64_C(512) << 10)
#define RESULT_BYTES 20u /* of an item: CRC, packed bytes, offset */

struct xd_writer {
  npz_model model; /* item i writes arrays[i] of those that numpy has a type for */
  int bf16_as_bits;
};

static xd_status fail(xd_call* c, xd_status code, const char* place, const char* message) {
  const xd_failure failure = {XD_INIT_SIZE(xd_failure), code, place, message};
  return c->host->fail(c, &failure);
}

/* ---- deflate, over the host's memory and into the object ------------------------------------- */

typedef struct {
  xd_call* c;
  xd_object* object;
  z_stream z;
  unsigned char* out; /* PIECE_BYTES */
  uint64_t at;        /* in the object */
  uint64_t size;      /* unpacked, so far */
  uint32_t crc;
} packer;

static void* zlib_alloc(void* opaque, unsigned n, unsigned size) {
  xd_call* c = (xd_call*)opaque;
  return c->host->alloc(c, (uint64_t)n * size, 64);
}
static void zlib_free(void* opaque, void* p) {
  xd_call* c = (xd_call*)opaque;
  c->host->dealloc(c, p);
}

/* Packs n more bytes; with Z_FINISH they are the last. */
static xd_status pack(packer* p, const void* data, uint64_t n, int flush) {
  xd_call* c = p->c;
  p->crc = (uint32_t)crc32(p->crc, (const Bytef*)data, (uInt)n);
  p->size += n;
  p->z.next_in = (Bytef*)data; /* zlib does not write to it, and does not say so */
  p->z.avail_in = (uInt)n;
  do {
    p->z.next_out = p->out;
    p->z.avail_out = PIECE_BYTES;
    if (deflate(&p->z, flush) == Z_STREAM_ERROR)
      return fail(c, XD_INTERNAL, NULL, "expected zlib to deflate, found it unable to");
    const uint64_t made = PIECE_BYTES - p->z.avail_out;
    const xd_status status =
        made == 0 ? XD_OK : c->host->object_write(c, p->object, p->at, p->out, made);
    if (status != XD_OK) return status;
    p->at += made;
  } while (p->z.avail_out == 0);
  return XD_OK;
}

static xd_status pack_array(packer* p, const npz_array* a, void* in) {
  xd_call* c = p->c;
  char header[NPZ_MAX_NPY_HEADER];
  xd_status status = pack(p, header, npz_npy_header(a, header), Z_NO_FLUSH);
  const uint64_t piece = PIECE_BYTES / a->elem;
  for (uint64_t done = 0; status == XD_OK && done < a->count;) {
    const uint64_t n = a->count - done < piece ? a->count - done : piece;
    const xd_range range = {XD_INIT_SIZE(xd_range), a->read_as, a->tensor, done, n};
    if (c->host->cancelled(c)) return XD_CANCELLED;
    status = c->host->tensor_read(c, &range, in, n * a->elem);
    if (status == XD_OK) status = pack(p, in, n * a->elem, Z_NO_FLUSH);
    done += n;
  }
  return status == XD_OK ? pack(p, in, 0, Z_FINISH) : status;
}

/* Deflates the array to `begin` and on. */
static xd_status deflate_array(packer* p, const npz_array* a) {
  xd_call* c = p->c;
  void* in = c->host->alloc(c, PIECE_BYTES, 64);
  p->out = (unsigned char*)c->host->alloc(c, PIECE_BYTES, 64);
  p->z.zalloc = zlib_alloc;
  p->z.zfree = zlib_free;
  p->z.opaque = c;
  xd_status status = XD_NO_MEMORY;
  /* Negative: the bare stream, as zip has it. */
  if (in && p->out &&
      deflateInit2(&p->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) == Z_OK) {
    status = pack_array(p, a, in);
    deflateEnd(&p->z);
  } else {
    fail(c, status, a->name, "expected a buffer within the memory budget: raise --memory");
  }
  if (p->out) c->host->dealloc(c, p->out);
  if (in) c->host->dealloc(c, in);
  return status;
}

/* ---- the plan -------------------------------------------------------------------------------- */

static uint64_t packed_bound(const npz_array* a) {
  return compressBound((uLong)(a->count * a->elem + NPZ_MAX_NPY_HEADER));
}

static xd_status plan_arrays(xd_call* c, const xd_writer* w, xd_plan* plan) {
  const xd_host* host = c->host;
  xd_object_desc file = {XD_INIT_SIZE(xd_object_desc), XD_OBJECT_SIZE_AT_SEAL | XD_OBJECT_IN_ORDER,
                         "model.npz", ZIP_END_BYTES};
  uint32_t object = 0;
  /* The host has checked that there are at most 2^56 elements in all: no sum overflows. */
  for (size_t i = 0; i < w->model.n_arrays; ++i) {
    const npz_array* a = &w->model.arrays[i];
    file.size += ZIP_LOCAL_BYTES + packed_bound(a) + ZIP_ENTRY_BYTES + 2 * zip_name_bytes(a->name);
  }
  xd_status status = host->plan_object(c, plan, &file, &object);
  for (size_t i = 0; i < w->model.n_arrays && status == XD_OK; ++i) {
    const npz_array* a = &w->model.arrays[i];
    const xd_range whole = {XD_INIT_SIZE(xd_range), 0, a->tensor, 0, a->count};
    const xd_range* needs[] = {&whole, NULL};
    const xd_item_desc item = {
        XD_INIT_SIZE(xd_item_desc), object, needs,
        ZIP_LOCAL_BYTES + zip_name_bytes(a->name) + packed_bound(a),
        2 * PIECE_BYTES + DEFLATE_BYTES + ZIP_LOCAL_BYTES + zip_name_bytes(a->name)};
    status = host->plan_item(c, plan, &item);
  }
  return status;
}

/* What the user must know: what is left out, and what BF16 became. */
static xd_status plan_words(xd_call* c, const xd_writer* w, xd_plan* plan) {
  char text[200];
  size_t n_bf16 = 0;
  xd_status status = XD_OK;
  for (size_t i = 0; i < w->model.n_others && status == XD_OK; ++i)
    status = c->host->plan_exclude(c, plan, w->model.others[i].tensor,
                                   "numpy has no type for its values");
  for (size_t i = 0; i < w->model.n_arrays; ++i) n_bf16 += w->model.arrays[i].dtype == NPZ_BF16;
  if (n_bf16 == 0 || status != XD_OK) return status;
  snprintf(text, sizeof text,
           w->bf16_as_bits
               ? "%zu BF16 tensors are written as uint16 with the same bits: numpy has no BF16"
               : "%zu BF16 tensors are written as float32, which holds the same values: numpy has "
                 "no BF16 (--npz-bf16 uint16 keeps the bits)",
           n_bf16);
  return c->host->plan_note(c, plan, text);
}

static xd_status npz_plan(xd_call* c, xd_writer* w, xd_plan* plan) {
  for (size_t i = 0; i < w->model.n_arrays; ++i) {
    const npz_array* a = &w->model.arrays[i];
    if (a->rank > NPZ_MAX_RANK)
      return fail(c, XD_UNSUPPORTED_DATA, a->name, "expected at most 32 dimensions, found more");
    if (a->name[0] == '\0' || strlen(a->name) > NPZ_MAX_NAME)
      return fail(c, XD_UNSUPPORTED_DATA, a->name, "expected a name of 1 to 65531 bytes");
  }
  xd_status status = plan_arrays(c, w, plan);
  if (status == XD_OK) status = plan_words(c, w, plan);
  for (size_t i = 0; i < w->model.n_aux && status == XD_OK; ++i)
    status = c->host->plan_aux(c, plan, w->model.aux[i], i);
  return status;
}

/* ---- the items, and the directory behind them ------------------------------------------------ */

/* The header tells the CRC and the length, so it is written when the bytes behind it are. */
static xd_status write_header(xd_call* c, xd_object* o, const zip_member* m) {
  const uint64_t n = ZIP_LOCAL_BYTES + zip_name_bytes(m->name);
  unsigned char* header = (unsigned char*)c->host->alloc(c, n, 64);
  if (!header)
    return fail(c, XD_NO_MEMORY, m->name,
                "expected a buffer within the memory budget: raise --memory");
  zip_local(m, header);
  const xd_status status = c->host->object_write(c, o, m->offset, header, n);
  c->host->dealloc(c, header);
  return status;
}

static xd_status npz_write_item(xd_call* c, xd_writer* w, const xd_item* item) {
  const npz_array* a = &w->model.arrays[item->item];
  const uint64_t begin = c->host->object_size(c, item->out);
  packer p = {0};
  p.c = c;
  p.object = item->out;
  p.at = begin + ZIP_LOCAL_BYTES + zip_name_bytes(a->name);
  const uint64_t packed_begin = p.at;
  xd_status status = deflate_array(&p, a);
  if (status != XD_OK) return status;

  const zip_member m = {a->name, begin, p.at - packed_begin, p.size, p.crc};
  status = write_header(c, item->out, &m);
  if (status != XD_OK) return status;
  c->host->progress(c, packed_bound(a) - m.packed); /* that need not be written */
  unsigned char result[RESULT_BYTES], *at = result;
  zip_put(&at, m.crc, 4);
  zip_put(&at, m.packed, 8);
  zip_put(&at, m.offset, 8);
  return c->host->bytes_append(c, item->result, result, sizeof result);
}

static xd_status write_entry(xd_call* c, const npz_array* a, const xd_seal* seal,
                             const xd_view* result) {
  char npy[NPZ_MAX_NPY_HEADER];
  zip_member m = {a->name, 0, 0, npz_npy_header(a, npy) + a->count * a->elem, 0};
  if (result->size != RESULT_BYTES)
    return fail(c, XD_CORRUPT, a->name, "expected the result of its item, found another");
  const unsigned char* at = (const unsigned char*)result->data;
  m.crc = (uint32_t)zip_get(&at, 4);
  m.packed = zip_get(&at, 8);
  m.offset = zip_get(&at, 8);
  const uint64_t n = ZIP_ENTRY_BYTES + zip_name_bytes(a->name);
  unsigned char* entry = (unsigned char*)c->host->alloc(c, n, 64);
  if (!entry)
    return fail(c, XD_NO_MEMORY, a->name,
                "expected a buffer within the memory budget: raise --memory");
  zip_entry(&m, entry);
  const xd_status status =
      c->host->object_write(c, seal->out, c->host->object_size(c, seal->out), entry, n);
  c->host->dealloc(c, entry);
  return status;
}

static xd_status npz_seal(xd_call* c, xd_writer* w, const xd_seal* seal) {
  const uint64_t begin = c->host->object_size(c, seal->out);
  unsigned char end[ZIP_END_BYTES];
  for (size_t i = 0; i < w->model.n_arrays; ++i) {
    const xd_status status = write_entry(c, &w->model.arrays[i], seal, seal->results[i]);
    if (status != XD_OK) return status;
  }
  const uint64_t size = c->host->object_size(c, seal->out) - begin;
  zip_end(w->model.n_arrays, size, begin, end);
  return c->host->object_write(c, seal->out, begin + size, end, sizeof end);
}

/* ---- the plugin ------------------------------------------------------------------------------ */

static xd_status npz_commit(xd_call* c, xd_writer* w) {
  (void)c;
  (void)w;
  return XD_OK;
}

static void npz_close(xd_call* c, xd_writer* w) {
  (void)c;
  npz_free(&w->model);
  free(w);
}

static xd_status npz_open(xd_call* c, const xd_writer_open* args, xd_writer** out) {
  xd_writer* w = (xd_writer*)calloc(1, sizeof *w);
  if (!w) return fail(c, XD_NO_MEMORY, NULL, "out of memory");
  for (const xd_option* const* o = args->options; *o; ++o) {
    if (strcmp((*o)->key, "npz-bf16") == 0) w->bf16_as_bits = strcmp((*o)->value, "uint16") == 0;
  }
  if (!npz_decode(args->manifest, args->manifest_size, w->bf16_as_bits, &w->model)) {
    free(w);
    return fail(c, XD_CORRUPT, NULL,
                "expected a manifest, found bytes that are none, or too much for the memory");
  }
  *out = w;
  return XD_OK;
}

static const xd_writer_api api = {XD_INIT_SIZE(xd_writer_api),
                                  0,
                                  npz_open,
                                  npz_plan,
                                  npz_write_item,
                                  npz_seal,
                                  npz_commit,
                                  npz_close};
static const char* const formats[] = {"npz", NULL};
static const char* const patterns[] = {"*.npz", NULL};
static const xd_option_desc bf16 = {XD_INIT_SIZE(xd_option_desc),
                                    0,
                                    "npz-bf16",
                                    "enum:float32|uint16",
                                    "float32",
                                    "what BF16, which numpy has not, becomes: float32 with the "
                                    "same values, or uint16 with the same bits"};
static const xd_option_desc* const options[] = {&bf16, NULL};

static const xd_plugin_desc writer = {XD_INIT_SIZE(xd_plugin_desc),
                                      XD_WRITER,
                                      XD_CAP_CONCURRENT | XD_CAP_FILE_NAMES,
                                      "org.example.writer.npz",
                                      "1.0.0",
                                      "Writes numpy's .npz, compressed",
                                      formats,
                                      patterns,
                                      options,
                                      NULL,
                                      &api,
                                      NULL};
static const xd_plugin_desc* const plugins[] = {&writer, NULL};
static const xd_library library = {XD_INIT_SIZE(xd_library), 0, plugins};

xd_status xd_plugin_v1(xd_call* c, const xd_library** out) {
  (void)c;
  *out = &library;
  return XD_OK;
}
