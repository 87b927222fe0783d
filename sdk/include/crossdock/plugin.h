/* crossdock/plugin.h - the whole binary contract between the host and one plugin.  C99.
 *
 * A plugin is a shared library that exports one symbol, xd_plugin_v1.  A reader turns an input
 * (named byte objects) into a manifest (protobuf bytes: crossdock/manifest.proto) and then into
 * tensor bytes; a writer turns a manifest into a plan (output objects and the items of work that
 * fill them) and then fills them.  The host does all I/O.
 *
 * Thread tags:  [once]   loader thread, never concurrent
 *               [serial] one call at a time per handle, any thread
 *               [any]    concurrent calls allowed, any thread
 * Memory:  whoever allocates frees.  Input pointers live until the call returns.  Text is UTF-8,
 *          NUL-terminated.  Library, descriptors and tables live until process exit: the host never
 *          unloads a plugin.
 * Errors:  every fallible call returns xd_status; details go into the host-owned `err` by
 *          host->fail().  No C++ exception, longjmp or signal may cross this line in either
 *          direction.
 * Growth:  [G1] every crossing struct begins with struct_size = XD_INIT_SIZE(type), set by whoever
 *               provides its storage (so the caller zeroes and sizes out-structs; the callee fills
 *               only what fits).
 *          [G2] within a MAJOR: append fields only; never reorder, resize, repurpose or remove;
 *               zero = old behaviour.
 *          [G3] read a newer field only through XD_HAS(); an absent or NULL function means
 *               XD_UNIMPLEMENTED.
 *          [G4] arrays hold pointers and end in NULL, never structs by value (their stride would
 *               change).
 *          [G5] fixed-width integers only: no enum, bool, bit-field, long, size_t or float in a
 *               struct.
 *          [G6] optional features are extensions "name/rev" (get_extension); they graduate into
 *               MINOR unchanged.
 *          [G7] a breaking change is a new symbol xd_plugin_v2; the host looks for v2, then v1.
 * Until ABI.md says "frozen", v1 itself may still change. */
#ifndef XD_PLUGIN_H
#define XD_PLUGIN_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define XD_ABI_MINOR 0u /* MAJOR is in the symbol name */
#define XD_ENTRY_SYMBOL "xd_plugin_v1"
#define XD_INIT_SIZE(T) ((uint32_t)sizeof(T))
#define XD_HAS(p, T, f) ((p)->struct_size >= offsetof(T, f) + sizeof((p)->f))
#if defined(_WIN32)
#define XD_EXPORT __declspec(dllexport)
#else
#define XD_EXPORT __attribute__((visibility("default")))
#endif

typedef int32_t xd_status;
enum {
  XD_OK = 0,
  XD_CANCELLED,
  XD_INVALID_ARGUMENT,
  XD_NOT_FOUND,
  XD_CORRUPT,
  XD_UNIMPLEMENTED,
  XD_UNSUPPORTED_DATA,
  XD_IO,
  XD_NO_MEMORY,
  XD_OUT_OF_RANGE,
  XD_INTERNAL
};
enum { XD_READER = 1, XD_WRITER = 2 }; /* desc.kind */
/* desc.caps.  XD_CAP_MODULE: a writer that needs Manifest.module; the host describes the job's
   module, or refuses.  XD_CAP_FILE_NAMES: a writer whose tensors have the names and shapes of
   Hugging Face's files; of the others they have those of the running module, unless the user says
   otherwise.  XD_CAP_TRAINING_STATE: a writer that writes Manifest.training and the tensors of role
   OPTIMIZER_STATE; the others get a manifest without the first and module, and the second
   excluded.  A reader that gives them: of several that find a model in SRC, such a writer reads from
   this one.  XD_CAP_TIED_NAMES: a writer whose format has every name of a tied parameter:
   Manifest.module is filled where the module is known, and nothing is refused where it is not. */
enum {
  XD_CAP_CONCURRENT = 1,
  XD_CAP_VIEW = 2,
  XD_CAP_MODULE = 4,
  XD_CAP_FILE_NAMES = 8,
  XD_CAP_TRAINING_STATE = 16,
  XD_CAP_TIED_NAMES = 32
};
enum { XD_FORM_DENSE = 0, XD_FORM_STORED = 1 }; /* range.form */
enum { XD_LOG_DEBUG, XD_LOG_INFO, XD_LOG_WARN, XD_LOG_PLUGIN_BUG };

typedef struct xd_error xd_error;   /* host-owned, opaque; may be NULL */
typedef struct xd_input xd_input;   /* host: what the user named, a file or a folder of objects */
typedef struct xd_source xd_source; /* host: one opened input object; the host closes it */
typedef struct xd_object xd_object; /* host: one staged output object */
typedef struct xd_bytes xd_bytes;   /* host: growing byte sink */
typedef struct xd_plan xd_plan;     /* host: receives a writer's objects and items */
typedef struct xd_reader xd_reader; /* plugin: one opened model */
typedef struct xd_writer xd_writer; /* plugin: one conversion's output */

/* One tensor range; `tensor` is its index in the manifest. */
typedef struct {
  uint32_t struct_size, form;    /* DENSE: little-endian, row-major; STORED: bytes as in the file */
  uint64_t tensor, begin, count; /* DENSE: elements; STORED: bytes, on block boundaries */
  /* DENSE: the element type wanted (DType of manifest.proto), 0 = the manifest's.  A reader is only
     ever asked for 0: the host casts. */
  uint32_t dtype, reserved;
} xd_range;

typedef struct { /* borrowed bytes; the consumer calls release exactly once, on any thread */
  uint32_t struct_size, reserved;
  const void* data;
  uint64_t size;
  void (*release)(void* owner); /* NULL: valid until the reader closes */
  void* owner;
} xd_view;

/* ---- what the host offers; all [any] but tensor_view and tensor_read ------------------------- */
typedef struct xd_host {
  uint32_t struct_size, abi_minor;
  void* ctx; /* first argument of every call below; one table per job for readers and writers */
  const void* (*get_extension)(void* ctx, const char* id);
  /* Returns code.  With a message: that is the error.  With message NULL: keeps what a failed host
     call already wrote.  `where` (may be NULL) goes in front, so each layer adds its place once. */
  xd_status (*fail)(void* ctx, xd_error* err, xd_status code, const char* where,
                    const char* message);
  void (*log)(void* ctx, int32_t level, const char* message);
  /* Poll between pieces; then return XD_CANCELLED. */
  int32_t (*cancelled)(void* ctx);
  /* Output bytes done since the last call; object_write counts itself. */
  void (*progress)(void* ctx, uint64_t bytes);
  /* The size of buffer that suits the memory budget: ask for no larger ones. */
  uint64_t (*piece_bytes)(void* ctx);
  /* Counted against the memory budget; NULL if refused. */
  void* (*alloc)(void* ctx, uint64_t size, uint64_t align);
  void (*dealloc)(void* ctx, void* p);

  /* Names may be 100,000: nothing is opened yet.  They are relative, '/'-separated, sorted. */
  uint64_t (*input_count)(void* ctx, const xd_input* in);
  const char* (*input_name)(void* ctx, const xd_input* in, uint64_t i);
  uint64_t (*input_size)(void* ctx, const xd_input* in, uint64_t i);
  /* XD_NOT_FOUND: there is no such object. */
  xd_status (*source_open)(void* ctx, const xd_input* in, const char* name, xd_source** out,
                           xd_error* err);
  uint64_t (*source_size)(void* ctx, const xd_source* s);
  xd_status (*source_read)(void* ctx, const xd_source* s, uint64_t off, void* dst, uint64_t n,
                           xd_error* err);
  xd_status (*bytes_append)(void* ctx, xd_bytes* b, const void* data, uint64_t n, xd_error* err);

  /* Writers, inside plan(). */
  xd_status (*plan_object)(void* ctx, xd_plan* p, const char* path, uint64_t size, uint32_t* object,
                           xd_error* err);
  /* The items of an object are numbered 0, 1, ... in the order of these calls.  `needs` ends in
     NULL.  `memory`: peak bytes that write_item will alloc. */
  xd_status (*plan_item)(void* ctx, xd_plan* p, uint32_t object, const xd_range* const* needs,
                         uint64_t out_bytes, uint64_t memory, xd_error* err);
  /* The host copies the manifest's auxiliary file number `aux`. */
  xd_status (*plan_aux)(void* ctx, xd_plan* p, const char* path, uint64_t aux, xd_error* err);
  /* This tensor is written nowhere, for this reason. */
  xd_status (*plan_exclude)(void* ctx, xd_plan* p, uint64_t tensor, const char* reason,
                            xd_error* err);
  /* What the user must know: goes into the report. */
  xd_status (*plan_note)(void* ctx, xd_plan* p, const char* text, xd_error* err);

  /* Writers, inside write_item() and on its thread: ranges of what the item needs. */
  /* XD_UNIMPLEMENTED: use tensor_read. */
  xd_status (*tensor_view)(void* ctx, const xd_range* r, xd_view* out, xd_error* err);
  xd_status (*tensor_read)(void* ctx, const xd_range* r, void* dst, uint64_t dst_size,
                           xd_error* err);
  /* Writers, inside write_item() and seal(). */
  xd_status (*object_write)(void* ctx, xd_object* o, uint64_t off, const void* data, uint64_t n,
                            xd_error* err);
  /* Logical zeros: a hole where the file system has them. */
  xd_status (*object_zero)(void* ctx, xd_object* o, uint64_t off, uint64_t n, xd_error* err);

  /* Readers.  The file that the user named as SRC, an index of shards too: read that one, whatever
     its name and whatever lies beside it.  NULL: SRC is a folder.  source_open also opens files
     beside a named one, though they are not listed. */
  const char* (*input_named)(void* ctx, const xd_input* in);
} xd_host;

/* Already checked against the schema below; a list comes as one entry per value, all with the same
   key. */
typedef struct {
  uint32_t struct_size, reserved;
  const char *key, *value;
} xd_option;

/* ---- what a reader offers -------------------------------------------------------------------- */
typedef struct {
  uint32_t struct_size, reserved;
  /* [any] Score 0 = not mine .. 100 = certain, for the whole input; may open a few objects and read
     their first bytes, nothing else. */
  int32_t (*probe)(const xd_host* h, const xd_input* in);
  /* [any] `h` and `in` live as long as the reader. */
  xd_status (*open)(const xd_host* h, const xd_input* in, const xd_option* const* options,
                    xd_reader** out, xd_error* err);
  /* [serial] protobuf wire bytes */
  xd_status (*manifest)(xd_reader* r, xd_bytes* out, xd_error* err);
  /* [any] if XD_CAP_CONCURRENT.  Of a tensor with strides: elements of its storage. */
  xd_status (*read)(xd_reader* r, const xd_range* range, void* dst, uint64_t dst_size,
                    xd_error* err);
  /* As read; may be NULL. */
  xd_status (*view)(xd_reader* r, const xd_range* range, xd_view* out, xd_error* err);
  void (*close)(xd_reader* r); /* [serial] */
} xd_reader_api;

/* ---- what a writer offers: open, plan, write_item*, seal per object, commit, close ----------- */
typedef struct {
  uint32_t struct_size, reserved;
  /* [any] `h` lives as long as the writer. */
  xd_status (*open)(const xd_host* h, const void* manifest, uint64_t size,
                    const xd_option* const* options, xd_writer** out, xd_error* err);
  /* [serial] pure: same input, same plan */
  xd_status (*plan)(xd_writer* w, xd_plan* out, xd_error* err);
  /* [any] if XD_CAP_CONCURRENT.  `result`: what seal must know of this item (its CRC, say); the
     host keeps it, across a kill and from other machines. */
  xd_status (*write_item)(xd_writer* w, uint32_t object, uint64_t item, xd_object* o,
                          xd_bytes* result, xd_error* err);
  /* [any] if XD_CAP_CONCURRENT.  Trailer, checksums.  `results`: of all items, in order, ends in
     NULL.  After it every byte of the object is written once. */
  xd_status (*seal)(xd_writer* w, uint32_t object, xd_object* o, const xd_view* const* results,
                    xd_error* err);
  /* [serial] last check; the host then publishes atomically */
  xd_status (*commit)(xd_writer* w, xd_error* err);
  void (*close)(xd_writer* w); /* [serial] also after failure; the host clears the staging */
} xd_writer_api;

/* ---- who the plugin is ----------------------------------------------------------------------- */
typedef struct {
  uint32_t struct_size, reserved;
  /* name: "sub-group-size", the flag without "--".  fallback NULL = required.  type: "bool" "int"
     "float" "size" "string" "list" "enum:a|b" "file" (the user gives a path, the plugin gets the
     text: UTF-8 without NUL, 1 byte to 16 MiB). */
  const char *name, *type, *fallback, *help;
} xd_option_desc;

typedef struct {
  uint32_t struct_size, kind;
  uint64_t caps;
  const char *id, *version, *summary; /* "org.example.reader.gguf", "1.2.0", one line */
  /* What --from and --to call it, then revisions: "gguf", "gguf/3", NULL. */
  const char* const* formats;
  const char* const* patterns;          /* "*.gguf", ... NULL */
  const xd_option_desc* const* options; /* NULL-terminated */
  const xd_reader_api* reader;          /* exactly one of the two is set, by kind */
  const xd_writer_api* writer;
} xd_plugin_desc;

typedef struct {
  /* The host refuses the library, by name, when its own MINOR is lower than needs_minor. */
  uint32_t struct_size, needs_minor;
  const xd_plugin_desc* const* plugins;
  const void* (*get_extension)(const char* id); /* [any] */
} xd_library;

/* The only exported symbol. [once] Fast, no I/O, no threads; `*out` has static storage. */
XD_EXPORT xd_status xd_plugin_v1(const xd_host* host, const xd_library** out, xd_error* err);

#ifdef __cplusplus
}
#endif
#endif /* XD_PLUGIN_H */
