/* SPDX-License-Identifier: Apache-2.0 */

/* Writes the toy format: one file; one item of work per tensor; the sums that the items found go
 * behind the values. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <crossdock/wire.h>
#include "toy.h"

typedef struct {
  toy_tensor tensor;
  uint64_t index; /* in the manifest */
} target;

struct xd_writer {
  target* targets; /* item i of the file writes targets[i] */
  size_t n_targets;
  xd_wire_out header;
  size_t head;     /* its bytes before the tensors' lines */
  xd_wire_out aux; /* the names of the manifest's auxiliary files, each with its NUL */
  size_t n_aux;
};

static void copy_name(toy_tensor* t, const xd_wire_in* text) {
  const size_t n = (size_t)(text->end - text->at);
  /* A name that does not fit is left empty, which plan() refuses. */
  memset(t->name, 0, sizeof t->name);
  if (n <= TOY_MAX_NAME && !memchr(text->at, '\0', n)) memcpy(t->name, text->at, n);
}

/* One Tensor of the manifest. `excluded` says that the host has taken it out of the conversion. */
static int decode_tensor(xd_wire_in in, toy_tensor* t, int* excluded) {
  xd_wire_field f;
  int renamed = 0, overflow = 0;
  *excluded = 0;
  while (xd_next_field(&in, &f)) {
    if (f.number == 1 && !renamed) copy_name(t, &f.body);
    if (f.number == 2) t->dtype = (uint32_t)f.value;
    while (f.number == 3 && f.body.at < f.body.end &&
           t->rank < TOY_MAX_RANK + 1) { /* packed numbers */
      const uint64_t dim = xd_get_varint(&f.body);
      if (t->rank < TOY_MAX_RANK) t->shape[t->rank] = dim;
      ++t->rank;
    }
    if (f.number == 11) *excluded = f.body.at < f.body.end;
    if (f.number == 12 && f.body.at < f.body.end) { /* the name that the user wants */
      copy_name(t, &f.body);
      renamed = 1;
    }
  }
  t->count = 1;
  for (uint32_t d = 0; d < t->rank && d < TOY_MAX_RANK; ++d)
    t->count = toy_mul(t->count, t->shape[d], &overflow);
  return !in.failed && !overflow;
}

/* What of the manifest this format can keep: tensors, and the auxiliary files beside them. */
static int decode_manifest(xd_writer* w, xd_wire_in in) {
  xd_wire_field f, g;
  uint64_t index = 0;
  while (xd_next_field(&in, &f)) {
    if (f.number == 3) {
      target* grown = (target*)realloc(w->targets, (w->n_targets + 1) * sizeof *grown);
      if (!grown) return 0;
      w->targets = grown;
      target* t = &grown[w->n_targets];
      memset(t, 0, sizeof *t);
      t->index = index++;
      int excluded = 0;
      if (!decode_tensor(f.body, &t->tensor, &excluded)) return 0;
      if (!excluded) ++w->n_targets;
    } else if (f.number == 6) {
      const size_t before = w->aux.size;
      while (xd_next_field(&f.body, &g)) {
        if (g.number == 2) xd_put_raw(&w->aux, g.body.at, (size_t)(g.body.end - g.body.at));
      }
      if (w->aux.size == before) return 0;
      xd_put_raw(&w->aux, "", 1);
      ++w->n_aux;
    }
  }
  return !in.failed && !w->aux.failed;
}

static void put_text(xd_wire_out* o, const char* text) { xd_put_raw(o, text, strlen(text)); }

static void toy_close(xd_call* c, xd_writer* w) {
  (void)c;
  free(w->targets);
  free(w->header.data);
  free(w->aux.data);
  free(w);
}

static xd_status toy_open(xd_call* c, const xd_writer_open* args, xd_writer** out) {
  xd_writer* w = (xd_writer*)calloc(1, sizeof *w);
  if (!w) return toy_fail(c, XD_NO_MEMORY, NULL, "out of memory");
  const unsigned char* manifest = (const unsigned char*)args->manifest;
  const xd_wire_in in = {manifest, manifest + args->manifest_size, 0};
  if (!decode_manifest(w, in)) {
    toy_close(c, w);
    return toy_fail(c, XD_CORRUPT, NULL,
                    "expected a manifest, found bytes that are none, or too much for the memory");
  }
  put_text(&w->header, "xdtoy 1\n");
  for (const xd_option* const* options = args->options; *options; ++options) {
    if (strcmp((*options)->key, "comment") != 0 || *(*options)->value == '\0') continue;
    put_text(&w->header, "# ");
    for (const char* at = (*options)->value; *at; ++at)
      xd_put_raw(&w->header, *at == '\n' ? " " : at, 1);
    put_text(&w->header, "\n");
  }
  w->head = w->header.size;
  *out = w;
  return XD_OK;
}

/* Adds the tensor's line to the header, or says why the format cannot hold it. */
static const char* put_line(xd_wire_out* header, const toy_tensor* t) {
  const toy_dtype* dtype = toy_find_dtype(t->dtype);
  if (!dtype) return "expected BOOL, U8, I8, I32, I64, F16, BF16, F32 or F64, found another type";
  if (t->rank > TOY_MAX_RANK) return "expected at most 8 dimensions, found more";
  if (t->name[0] == '\0' || t->name[0] == '#' || strpbrk(t->name, " \n"))
    return "expected a name of 1 to 200 bytes without blanks, found another";
  char text[32];
  put_text(header, t->name);
  put_text(header, " ");
  put_text(header, dtype->name);
  put_text(header, t->rank == 0 ? " -" : "");
  for (uint32_t d = 0; d < t->rank; ++d) {
    snprintf(text, sizeof text, "%c%" PRIu64, d == 0 ? ' ' : ',', t->shape[d]);
    put_text(header, text);
  }
  put_text(header, "\n");
  return NULL;
}

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The buffer that write_item works with: whole elements. */
static uint64_t piece_bytes(xd_call* c) {
  const uint64_t n = c->host->piece_bytes(c) / 8 * 8;
  return n != 0 ? n : 8;
}

static xd_status toy_plan(xd_call* c, xd_writer* w, xd_plan* plan) {
  uint64_t at = 0;
  uint32_t object = 0;
  xd_status status = XD_OK;
  w->header.size = w->head; /* pure: a second plan() gives the same */
  for (size_t i = 0; i < w->n_targets; ++i) {
    toy_tensor* t = &w->targets[i].tensor;
    const char* problem = put_line(&w->header, t);
    if (problem) return toy_fail(c, XD_UNSUPPORTED_DATA, t->name, problem);
    t->offset = at;
    at += t->count *
          toy_find_dtype(t->dtype)->bytes; /* the host has checked the sizes of the manifest */
  }
  put_text(&w->header, "data\n");
  if (w->header.failed) return toy_fail(c, XD_NO_MEMORY, NULL, "out of memory");
  const uint64_t size = w->header.size + at + w->n_targets * TOY_SUM_BYTES;
  const xd_object_desc file = {XD_INIT_SIZE(xd_object_desc), 0, "model.xdtoy", size};
  status = c->host->plan_object(c, plan, &file, &object);
  for (size_t i = 0; i < w->n_targets && status == XD_OK; ++i) {
    toy_tensor* t = &w->targets[i].tensor;
    const uint64_t n_bytes = t->count * toy_find_dtype(t->dtype)->bytes;
    const xd_range whole = {XD_INIT_SIZE(xd_range), 0, w->targets[i].index, 0, t->count};
    const xd_range* needs[2] = {&whole, NULL};
    t->offset += w->header.size;
    const xd_item_desc item = {XD_INIT_SIZE(xd_item_desc), object, needs, n_bytes,
                               smaller(n_bytes, piece_bytes(c))};
    status = c->host->plan_item(c, plan, &item);
  }
  const char* name = (const char*)w->aux.data;
  for (size_t i = 0; i < w->n_aux && status == XD_OK; ++i, name += strlen(name) + 1) {
    status = c->host->plan_aux(c, plan, name, i);
  }
  return status;
}

static uint64_t sum_of(const void* data, uint64_t n) {
  const unsigned char* bytes = (const unsigned char*)data;
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; ++i) sum += bytes[i];
  return sum;
}

static xd_status write_pieces(xd_call* c, const target* t, xd_object* o, uint64_t* sum) {
  const uint64_t elem = toy_find_dtype(t->tensor.dtype)->bytes;
  const uint64_t total = t->tensor.count * elem, piece = smaller(total, piece_bytes(c));
  void* buffer =
      piece != 0 ? c->host->alloc(c, piece, 64) : NULL; /* a tensor may have no elements */
  if (piece != 0 && !buffer)
    return toy_fail(c, XD_NO_MEMORY, t->tensor.name,
                    "expected a buffer within the memory budget: raise --memory");
  xd_status status = XD_OK;
  uint64_t done = 0;
  do {
    const uint64_t n = smaller(piece, total - done);
    const xd_range range = {XD_INIT_SIZE(xd_range), 0, t->index, done / elem, n / elem};
    status = c->host->cancelled(c) ? XD_CANCELLED : c->host->tensor_read(c, &range, buffer, n);
    if (status == XD_OK && n != 0)
      status = c->host->object_write(c, o, t->tensor.offset + done, buffer, n);
    *sum += sum_of(buffer, status == XD_OK ? n : 0);
    done += n;
  } while (status == XD_OK && done < total);
  if (buffer) c->host->dealloc(c, buffer);
  return status;
}

static xd_status toy_write_item(xd_call* c, xd_writer* w, const xd_item* item) {
  uint64_t sum = 0;
  const xd_status status = write_pieces(c, &w->targets[item->item], item->out, &sum);
  return status == XD_OK ? c->host->bytes_append(c, item->result, &sum, sizeof sum) : status;
}

static xd_status toy_seal(xd_call* c, xd_writer* w, const xd_seal* seal) {
  xd_object* o = seal->out;
  xd_wire_out trailer = {0};
  uint64_t end = w->header.size;
  for (size_t i = 0; i < w->n_targets; ++i) {
    uint64_t sum = 0;
    char line[TOY_SUM_BYTES + 1];
    memcpy(&sum, seal->results[i]->data, sizeof sum);
    snprintf(line, sizeof line, "%016" PRIx64 "\n", sum);
    put_text(&trailer, line);
    end = w->targets[i].tensor.offset +
          w->targets[i].tensor.count * toy_find_dtype(w->targets[i].tensor.dtype)->bytes;
  }
  xd_status status = trailer.failed ? toy_fail(c, XD_NO_MEMORY, NULL, "out of memory") : XD_OK;
  if (status == XD_OK) status = c->host->object_write(c, o, 0, w->header.data, w->header.size);
  if (status == XD_OK && trailer.size != 0)
    status = c->host->object_write(c, o, end, trailer.data, trailer.size);
  free(trailer.data);
  return status;
}

static xd_status toy_commit(xd_call* c, xd_writer* w) {
  (void)c;
  (void)w;
  return XD_OK;
}

static const xd_writer_api api = {XD_INIT_SIZE(xd_writer_api),
                                  0,
                                  toy_open,
                                  toy_plan,
                                  toy_write_item,
                                  toy_seal,
                                  toy_commit,
                                  toy_close};
static const char* const formats[] = {"toy", NULL};
static const char* const patterns[] = {"*.xdtoy", NULL};
static const xd_option_desc comment = {XD_INIT_SIZE(xd_option_desc),   0, "comment", "string", "",
                                       "a line of text for the header"};
static const xd_option_desc* const options[] = {&comment, NULL};

const xd_plugin_desc toy_writer = {XD_INIT_SIZE(xd_plugin_desc),
                                   XD_WRITER,
                                   XD_CAP_CONCURRENT,
                                   "org.example.writer.toy",
                                   "1.0.0",
                                   "Writes the toy format of crossdock's examples",
                                   formats,
                                   patterns,
                                   options,
                                   NULL,
                                   &api,
                                   NULL};
