/* SPDX-License-Identifier: Apache-2.0 */

/* crossdock/plugin.h - the whole binary contract between the host and one plugin.  C99.
 *
 * A plugin is a shared library that exports one symbol, xd_plugin_v1.  A reader turns an input
 * (named byte objects) into a manifest (protobuf bytes: crossdock/manifest.proto) and then into
 * tensor bytes; a writer turns a manifest into a plan (output objects and the items of work that
 * fill them) and then fills them.  The host does all I/O.
 *
 * Calls:   the host hands every function of a plugin an xd_call, and the plugin hands it on to
 *          every function of the host: it knows the error, the item of work, the cancellation and
 *          the memory.  It is good until the plugin's function returns, on any thread.
 * Thread tags:  [once]   loader thread, never concurrent
 *               [serial] one call at a time per reader or writer, any thread
 *               [any]    concurrent calls allowed, any thread
 * Memory:  whoever allocates frees.  Input pointers live until the call returns.  Text is UTF-8,
 *          NUL-terminated.  Library, descriptors and tables live until process exit: the host never
 *          unloads a plugin.
 * Errors:  every fallible function returns xd_status; details go to the host by fail().  No C++
 *          exception, longjmp or signal may cross this line in either direction.
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
 *          [G6] optional features are extensions "name/rev" (extensions.h); they graduate into
 *               MINOR unchanged.
 *          [G7] a breaking change is a new symbol xd_plugin_v2; the host looks for v2, then v1.
 * ABI.md has the reasons, and says what is promised. */
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

/* desc.caps. */
enum {
  /* The functions tagged [any] "if XD_CAP_CONCURRENT" may run at once; else they are [serial]. */
  XD_CAP_CONCURRENT = 1,
  /* A writer that needs Manifest.module; the host describes the job's module, or refuses. */
  XD_CAP_MODULE = 2,
  /* A writer whose tensors have the names and shapes of Hugging Face's files; of the others they
     have those of the running module, unless the user says otherwise. */
  XD_CAP_FILE_NAMES = 4,
  /* A writer that writes Manifest.training and the tensors of role OPTIMIZER_STATE; the others get
     a manifest without the first and module, and the second excluded.  A reader that gives them: of
     several that find a model in SRC, such a writer reads from this one. */
  XD_CAP_TRAINING_STATE = 8,
  /* A writer whose format has every name of a tied parameter: Manifest.module is filled where the
     module is known, and nothing is refused where it is not. */
  XD_CAP_TIED_NAMES = 16,
  /* A writer that takes quantised weights as they are stored: codes and scales under the source's
     names, and elements of 8 bits and fewer.  For the others the host dequantises what it can, and
     refuses the rest. */
  XD_CAP_QUANTISED = 32
};
enum { XD_LOG_DEBUG, XD_LOG_INFO, XD_LOG_WARN, XD_LOG_PLUGIN_BUG };
enum { XD_MEMORY_CPU = 0 }; /* view.memory; the only kind so far, others are refused */

/* What the host limits, so that a plugin's mistake cannot use up the machine. */
#define XD_MAX_MANIFEST_BYTES (UINT64_C(1) << 30)
#define XD_MAX_RESULT_BYTES (UINT64_C(1) << 20)  /* of one item */
#define XD_MAX_MESSAGE_BYTES (UINT64_C(1) << 14) /* longer ones are cut off */

typedef struct xd_host xd_host;     /* host: its functions, below */
typedef struct xd_input xd_input;   /* host: what the user named, a file or a folder of objects */
typedef struct xd_source xd_source; /* host: one opened input object; the host closes it */
typedef struct xd_object xd_object; /* host: one staged output object */
typedef struct xd_bytes xd_bytes;   /* host: growing byte sink */
typedef struct xd_plan xd_plan;     /* host: receives a writer's objects and items */
typedef struct xd_reader xd_reader; /* plugin: one opened model */
typedef struct xd_writer xd_writer; /* plugin: one conversion's output */

/* Host-owned; more of it lies behind these fields. */
typedef struct {
  uint32_t struct_size, reserved;
  const xd_host* host;
} xd_call;

/* One tensor's elements [begin, begin + count); `tensor` is its index in the manifest.  Values are
   dense: little-endian, row-major. */
typedef struct {
  uint32_t struct_size;
  /* The element type wanted (DType of manifest.proto), 0 = the manifest's.  A reader is only ever
     asked for 0: the host casts. */
  uint32_t dtype;
  uint64_t tensor, begin, count;
} xd_range;

typedef struct { /* bytes of the host's; they live until the call returns */
  uint32_t struct_size, memory;
  const void* data;
  uint64_t size;
} xd_view;

typedef struct {
  uint32_t struct_size;
  xd_status code;
  const char* place;   /* NULL, or goes in front, so that each layer adds its place once */
  const char* message; /* NULL: keeps what a failed function of the host already wrote */
} xd_failure;

typedef struct { /* of an input */
  uint32_t struct_size, reserved;
  const char* name; /* relative, '/'-separated; lives as long as the input */
  uint64_t size;
} xd_input_entry;

enum { /* object_desc.flags */
       /* The size is not known yet (compressed formats): `size` is an upper bound, and the object
          ends where the last byte is that was written when it is sealed. */
       XD_OBJECT_SIZE_AT_SEAL = 1,
       /* Its items run one after the other, by their numbers; object_size() tells each where to go
          on. After a kill they all run anew.  Other objects are written meanwhile. */
       XD_OBJECT_IN_ORDER = 2
};
typedef struct {
  uint32_t struct_size, flags;
  const char* path; /* relative, '/'-separated */
  uint64_t size;    /* in bytes */
} xd_object_desc;

typedef struct {
  uint32_t struct_size;
  uint32_t object; /* as plan_object() numbered it */
  /* What it will read: all of it, once or more; ends in NULL.  Every tensor is needed by some item,
     or excluded; one without elements too, though there is nothing to read of it. */
  const xd_range* const* needs;
  uint64_t out_bytes; /* that it will write, or at most; zeros not counted */
  /* The most bytes that it will hold of alloc() at a time: the one thing of a plan that may depend
     on piece_bytes(). */
  uint64_t memory;
} xd_item_desc;

/* ---- what the host offers; all [any] --------------------------------------------------------- */
struct xd_host {
  uint32_t struct_size, abi_minor;
  const void* (*get_extension)(xd_call* c, const char* id); /* extensions.h; NULL: there is none */
  /* Returns its code, so that a plugin can return that. */
  xd_status (*fail)(xd_call* c, const xd_failure* failure);
  void (*log)(xd_call* c, int32_t level, const char* message);
  /* Poll between pieces; then return XD_CANCELLED. */
  int32_t (*cancelled)(xd_call* c);
  /* Output bytes done since the last call; object_write counts itself. */
  void (*progress)(xd_call* c, uint64_t bytes);
  /* The size of buffer that suits the memory budget: ask for no larger ones.  It is another one
     with another budget, so what is written must not depend on it. */
  uint64_t (*piece_bytes)(xd_call* c);
  /* Counted against the memory budget.  Never waits: NULL when the budget, or in write_item() what
     the plan said, is used up.  `align`: a power of two up to 4096.  What write_item() and seal()
     allocate they free; what other functions allocate may live until close(), after which the host
     takes back what is left. */
  void* (*alloc)(xd_call* c, uint64_t size, uint64_t align);
  void (*dealloc)(xd_call* c, void* p);

  /* Entries may be 100,000, sorted by name: nothing is opened yet. */
  uint64_t (*input_count)(xd_call* c, const xd_input* in);
  xd_status (*input_entry)(xd_call* c, const xd_input* in, uint64_t i, xd_input_entry* out);
  /* The file that the user named as SRC, an index of shards too: read that one, whatever its name
     and whatever lies beside it.  NULL: SRC is a folder.  source_open also opens files beside a
     named one, though they are not listed. */
  const char* (*input_named)(xd_call* c, const xd_input* in);
  /* XD_NOT_FOUND: there is no such object. */
  xd_status (*source_open)(xd_call* c, const xd_input* in, const char* name, xd_source** out);
  uint64_t (*source_size)(xd_call* c, const xd_source* s);
  xd_status (*source_read)(xd_call* c, const xd_source* s, uint64_t off, void* dst, uint64_t n);
  xd_status (*bytes_append)(xd_call* c, xd_bytes* b, const void* data, uint64_t n);

  /* Writers, inside plan(). */
  xd_status (*plan_object)(xd_call* c, xd_plan* p, const xd_object_desc* desc, uint32_t* object);
  /* The items of an object are numbered 0, 1, ... in the order of these calls. */
  xd_status (*plan_item)(xd_call* c, xd_plan* p, const xd_item_desc* desc);
  /* The host copies the manifest's auxiliary file number `aux`. */
  xd_status (*plan_aux)(xd_call* c, xd_plan* p, const char* path, uint64_t aux);
  /* This tensor is written nowhere, for this reason. */
  xd_status (*plan_exclude)(xd_call* c, xd_plan* p, uint64_t tensor, const char* reason);
  /* What the user must know: goes into the report. */
  xd_status (*plan_note)(xd_call* c, xd_plan* p, const char* text);

  /* Writers, inside write_item(): ranges of what the item needs. */
  xd_status (*tensor_read)(xd_call* c, const xd_range* r, void* dst, uint64_t dst_size);
  /* Writers, inside write_item() and seal(), in any order: a header may be left out and written
     last. */
  xd_status (*object_write)(xd_call* c, xd_object* o, uint64_t off, const void* data, uint64_t n);
  /* Logical zeros: a hole where the file system has them. */
  xd_status (*object_zero)(xd_call* c, xd_object* o, uint64_t off, uint64_t n);
  /* Where the last byte ends that was written so far. */
  uint64_t (*object_size)(xd_call* c, const xd_object* o);
  /* Inside seal() only: bytes that were written. */
  xd_status (*object_read)(xd_call* c, xd_object* o, uint64_t off, void* dst, uint64_t n);
};

/* Already checked against the schema below; a list comes as one entry per value, all with the same
   key. */
typedef struct {
  uint32_t struct_size, reserved;
  const char *key, *value;
} xd_option;

/* ---- what a reader offers -------------------------------------------------------------------- */
typedef struct {
  uint32_t struct_size, reserved;
  const xd_input* input; /* lives as long as the reader */
  const xd_option* const* options;
} xd_reader_open;

typedef struct {
  uint32_t struct_size, reserved;
  /* [any] Score 0 = not mine .. 100 = certain, for the whole input: 50 and more for what may well
     be a model of its format, 80 and more under the format's standard name.  May open a few objects
     and read their first bytes, nothing else. */
  int32_t (*probe)(xd_call* c, const xd_input* in);
  /* [any] */
  xd_status (*open)(xd_call* c, const xd_reader_open* args, xd_reader** out);
  /* [serial] protobuf wire bytes, the same at each call */
  xd_status (*manifest)(xd_call* c, xd_reader* r, xd_bytes* out);
  /* [any] if XD_CAP_CONCURRENT.  Of a tensor with strides: elements of its storage. */
  xd_status (*read)(xd_call* c, xd_reader* r, const xd_range* range, void* dst, uint64_t dst_size);
  void (*close)(xd_call* c, xd_reader* r); /* [serial] */
} xd_reader_api;

/* ---- what a writer offers: open, plan, write_item*, seal per object, commit, close ----------- */
typedef struct {
  uint32_t struct_size, reserved;
  const void* manifest; /* protobuf wire bytes */
  uint64_t manifest_size;
  const xd_option* const* options;
} xd_writer_open;

typedef struct {
  uint32_t struct_size;
  uint32_t object; /* as plan_object() numbered it */
  uint64_t item;   /* among its object's */
  xd_object* out;
  /* What seal must know of this item (its CRC, say); the host keeps it, across a kill and from
     other machines. */
  xd_bytes* result;
} xd_item;

typedef struct {
  uint32_t struct_size, object;
  xd_object* out;
  const xd_view* const* results; /* of all items, in order; ends in NULL */
} xd_seal;

typedef struct {
  uint32_t struct_size, reserved;
  /* [any] */
  xd_status (*open)(xd_call* c, const xd_writer_open* args, xd_writer** out);
  /* [serial] Pure: the same manifest and options give the same plan, in every process: it is how a
     later run, or another machine, finds that it makes the same thing. */
  xd_status (*plan)(xd_call* c, xd_writer* w, xd_plan* out);
  /* [any] if XD_CAP_CONCURRENT.  Idempotent: it may run again, in this process or another, and then
     writes the same bytes. */
  xd_status (*write_item)(xd_call* c, xd_writer* w, const xd_item* item);
  /* [any] if XD_CAP_CONCURRENT.  Trailer, checksums.  After it every byte of the object is written
     once. */
  xd_status (*seal)(xd_call* c, xd_writer* w, const xd_seal* seal);
  /* [serial] last check; the host then publishes atomically */
  xd_status (*commit)(xd_call* c, xd_writer* w);
  void (*close)(xd_call* c, xd_writer* w); /* [serial] also after failure; the host clears up */
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
  const void* (*get_extension)(const char* id); /* [any] extensions.h; may be NULL */
} xd_plugin_desc;

typedef struct {
  /* The host refuses the library, by name, when its own MINOR is lower than needs_minor. */
  uint32_t struct_size, needs_minor;
  const xd_plugin_desc* const* plugins;
} xd_library;

/* The only exported symbol. [once] Fast, no I/O, no threads; `*out` has static storage. */
XD_EXPORT xd_status xd_plugin_v1(xd_call* call, const xd_library** out);

#ifdef __cplusplus
}
#endif
#endif /* XD_PLUGIN_H */
