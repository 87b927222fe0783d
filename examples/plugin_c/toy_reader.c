/* SPDX-License-Identifier: Apache-2.0 */

/* Reads the toy format: open() parses the header, manifest() describes it, read() gives values. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <crossdock/wire.h>
#include "toy.h"

struct xd_reader {
  const xd_source* source;
  char* name; /* of the file */
  char* comment;
  uint64_t file_size;
  toy_tensor* tensors;
  size_t n_tensors;
};

static int is_toy(const char* name) {
  const size_t n = strlen(name);
  return n > 6 && strcmp(name + n - 6, ".xdtoy") == 0;
}

/* The one toy file of the input, or NULL. */
static const char* find_file(xd_call* c, const xd_input* in) {
  const char* found = NULL;
  for (uint64_t i = 0, n = c->host->input_count(c, in); i < n; ++i) {
    xd_input_entry entry = {XD_INIT_SIZE(xd_input_entry), 0, NULL, 0};
    if (c->host->input_entry(c, in, i, &entry) != XD_OK) return NULL;
    const char* name = entry.name;
    if (!is_toy(name)) continue;
    if (found) return NULL;
    found = name;
  }
  return found;
}

static int32_t toy_probe(xd_call* c, const xd_input* in) {
  char magic[6];
  xd_source* source = NULL;
  const char* name = find_file(c, in);
  if (!name || c->host->source_open(c, in, name, &source) != XD_OK) return 0;
  if (c->host->source_read(c, source, 0, magic, sizeof magic) != XD_OK) return 0;
  return memcmp(magic, "xdtoy ", 6) == 0 ? 100 : 0;
}

static xd_status refuse(xd_call* c, const xd_reader* r, unsigned line, const char* what) {
  char where[300];
  snprintf(where, sizeof where, "%s: line %u", r->name, line);
  return toy_fail(c, XD_CORRUPT, where, what);
}

/* "2,3" or "-". */
static int parse_shape(const char* text, toy_tensor* t) {
  int overflow = 0;
  t->count = 1;
  if (strcmp(text, "-") == 0) return 1;
  for (;;) {
    char* end = NULL;
    if (t->rank == TOY_MAX_RANK || *text < '0' || *text > '9') return 0;
    const uint64_t dim = strtoull(text, &end, 10);
    if (end - text > 19) return 0; /* 20 digits may be beyond 64 bits */
    t->shape[t->rank++] = dim;
    t->count = toy_mul(t->count, dim, &overflow);
    if (overflow || (*end != ',' && *end != '\0')) return 0;
    if (*end == '\0') return 1;
    text = end + 1;
  }
}

/* One line of the header; `offset` moves on by the tensor's size. */
static const char* parse_tensor(char* line, toy_tensor* t, uint64_t* offset) {
  char* type = strchr(line, ' ');
  char* shape = type ? strchr(type + 1, ' ') : NULL;
  if (!shape) return "expected NAME TYPE SHAPE";
  *type++ = *shape++ = '\0';
  if (*line == '\0' || strlen(line) > TOY_MAX_NAME) return "expected a name of 1 to 200 bytes";
  strcpy(t->name, line);
  const toy_dtype* dtype = NULL;
  for (size_t i = 0; i < sizeof toy_dtypes / sizeof *toy_dtypes; ++i) {
    if (strcmp(toy_dtypes[i].name, type) == 0) dtype = &toy_dtypes[i];
  }
  if (!dtype) return "expected a type such as F32 or BF16";
  t->dtype = dtype->dtype;
  if (!parse_shape(shape, t)) return "expected a shape such as 2,3 or -";
  int overflow = 0;
  const uint64_t n_bytes = toy_mul(t->count, dtype->bytes, &overflow);
  if (overflow || n_bytes > UINT64_MAX - *offset) return "expected fewer than 2^64 bytes";
  t->offset = *offset; /* from the start of the values; the header's length is not known yet */
  *offset += n_bytes;
  return NULL;
}

static xd_status parse_header(xd_call* c, xd_reader* r, char* text, uint64_t size) {
  uint64_t offset = 0, room = 0;
  char* line = text;
  for (unsigned number = 1;; ++number) {
    char* end = (char*)memchr(line, '\n', size - (uint64_t)(line - text));
    if (!end)
      return refuse(
          c, r, number,
          "expected the line \"data\" within the first megabyte, found no end of the header");
    *end = '\0';
    char* const next = end + 1;
    if (number == 1) {
      if (strcmp(line, "xdtoy 1") != 0) return refuse(c, r, number, "expected \"xdtoy 1\"");
    } else if (strcmp(line, "data") == 0) {
      line = next;
      break;
    } else if (*line == '#') {
      r->comment = line + 1 + (line[1] == ' ');
    } else {
      if (r->n_tensors == room) {
        room = room * 2 + 16;
        toy_tensor* grown = (toy_tensor*)realloc(r->tensors, room * sizeof *grown);
        if (!grown) return toy_fail(c, XD_NO_MEMORY, r->name, "out of memory");
        r->tensors = grown;
      }
      toy_tensor* t = &r->tensors[r->n_tensors++];
      memset(t, 0, sizeof *t);
      const char* problem = parse_tensor(line, t, &offset);
      if (problem) return refuse(c, r, number, problem);
    }
    line = next;
  }
  const uint64_t begin = (uint64_t)(line - text), end = begin + r->n_tensors * TOY_SUM_BYTES;
  if (offset > UINT64_MAX - end || offset + end != r->file_size) {
    char message[120];
    snprintf(message, sizeof message,
             "expected %" PRIu64 " bytes of values by the header, found a file of %" PRIu64
             " bytes",
             offset, r->file_size);
    return toy_fail(c, XD_CORRUPT, r->name, message);
  }
  for (size_t i = 0; i < r->n_tensors; ++i) r->tensors[i].offset += begin;
  return XD_OK;
}

static void toy_close(xd_call* c, xd_reader* r) {
  (void)c;
  free(r->tensors);
  free(r->name);
  free(r->comment);
  free(r);
}

static char* copy_text(const char* text) {
  char* out = (char*)malloc(strlen(text) + 1);
  return out ? strcpy(out, text) : NULL;
}

static xd_status load(xd_call* c, xd_reader* r, const xd_input* in) {
  xd_source* source = NULL;
  xd_status status = c->host->source_open(c, in, r->name, &source);
  if (status != XD_OK) return toy_fail(c, status, NULL, NULL); /* keeps the host's message */
  r->source = source;
  r->file_size = c->host->source_size(c, source);
  const uint64_t n = r->file_size < TOY_MAX_HEADER ? r->file_size : TOY_MAX_HEADER;
  char* text = (char*)malloc(n + 1);
  if (!text) return toy_fail(c, XD_NO_MEMORY, r->name, "out of memory");
  status = c->host->source_read(c, source, 0, text, n);
  if (status == XD_OK) {
    status = parse_header(c, r, text, n);
    r->comment = r->comment ? copy_text(r->comment) : NULL; /* it pointed into the text */
  } else {
    status = toy_fail(c, status, NULL, NULL); /* keeps the host's message */
  }
  free(text);
  return status;
}

static xd_status toy_open(xd_call* c, const xd_reader_open* args, xd_reader** out) {
  const xd_input* in = args->input; /* this reader has no options */
  const char* name = find_file(c, in);
  if (!name)
    return toy_fail(c, XD_NOT_FOUND, NULL,
                    "expected one .xdtoy file, found none or several: name the file");
  xd_reader* r = (xd_reader*)calloc(1, sizeof *r);
  if (!r) return toy_fail(c, XD_NO_MEMORY, NULL, "out of memory");
  r->name = copy_text(name);
  const xd_status status =
      r->name ? load(c, r, in) : toy_fail(c, XD_NO_MEMORY, NULL, "out of memory");
  if (status != XD_OK) {
    toy_close(c, r);
    return status;
  }
  *out = r;
  return XD_OK;
}

/* The numbers are the field numbers of manifest.proto. */
static xd_status toy_manifest(xd_call* c, xd_reader* r, xd_bytes* sink) {
  xd_wire_out m = {0}, source = {0}, file = {0}, entry = {0}, value = {0}, tensor = {0},
              extent = {0}, shape = {0};
  xd_put_number(&m, 1, 1); /* schema_version */
  xd_put_bytes(&source, 1, "toy", 3);
  xd_put_bytes(&file, 1, r->name, strlen(r->name));
  xd_put_number(&file, 2, r->file_size);
  xd_put_message(&source, 2, &file);
  if (r->comment) {
    xd_put_bytes(&entry, 1, "comment", 7);
    xd_put_bytes(&value, 6, r->comment, strlen(r->comment));
    xd_put_message(&entry, 2, &value);
    xd_put_message(&source, 3, &entry);
  }
  xd_put_message(&m, 2, &source);
  for (size_t i = 0; i < r->n_tensors; ++i) {
    const toy_tensor* t = &r->tensors[i];
    xd_put_bytes(&tensor, 1, t->name, strlen(t->name));
    xd_put_number(&tensor, 2, t->dtype);
    for (uint32_t d = 0; d < t->rank; ++d) xd_put_varint(&shape, t->shape[d]);
    xd_put_message(&tensor, 3, &shape);
    xd_put_number(&extent, 2, t->offset); /* file 0 need not be said */
    xd_put_number(&extent, 3, t->count * toy_find_dtype(t->dtype)->bytes);
    xd_put_message(&tensor, 4, &extent);
    xd_put_message(&m, 3, &tensor);
  }
  const xd_status status = m.failed ? toy_fail(c, XD_NO_MEMORY, r->name, "out of memory")
                                    : c->host->bytes_append(c, sink, m.data, m.size);
  free(m.data);
  return status;
}

/* Where the range lies in the file; the host asks for elements of the tensor's own type only, but
 * check what it costs nothing to check. */
static xd_status locate(xd_call* c, const xd_reader* r, const xd_range* range, uint64_t* offset,
                        uint64_t* size) {
  if (range->dtype != 0) return XD_UNIMPLEMENTED;
  if (range->tensor >= r->n_tensors)
    return toy_fail(c, XD_OUT_OF_RANGE, r->name,
                    "expected a tensor of the file, found a higher number");
  const toy_tensor* t = &r->tensors[range->tensor];
  if (range->begin > t->count || range->count > t->count - range->begin) {
    return toy_fail(c, XD_OUT_OF_RANGE, t->name,
                    "expected elements inside the tensor, found a range that leaves it");
  }
  const uint64_t bytes = toy_find_dtype(t->dtype)->bytes;
  *offset = t->offset + range->begin * bytes;
  *size = range->count * bytes;
  return XD_OK;
}

static xd_status toy_read(xd_call* c, xd_reader* r, const xd_range* range, void* dst,
                          uint64_t dst_size) {
  uint64_t offset = 0, size = 0;
  const xd_status status = locate(c, r, range, &offset, &size);
  if (status != XD_OK) return status;
  if (size != dst_size)
    return toy_fail(c, XD_INVALID_ARGUMENT, r->name, "expected a buffer as large as the range");
  return c->host->source_read(c, r->source, offset, dst, size);
}

static const xd_reader_api api = {
    XD_INIT_SIZE(xd_reader_api), 0, toy_probe, toy_open, toy_manifest, toy_read, toy_close};
static const char* const formats[] = {"toy", NULL};
static const char* const patterns[] = {"*.xdtoy", NULL};

const xd_plugin_desc toy_reader = {XD_INIT_SIZE(xd_plugin_desc),
                                   XD_READER,
                                   XD_CAP_CONCURRENT,
                                   "org.example.reader.toy",
                                   "1.0.0",
                                   "Reads the toy format of crossdock's examples",
                                   formats,
                                   patterns,
                                   NULL,
                                   &api,
                                   NULL,
                                   NULL};
