/* SPDX-License-Identifier: Apache-2.0 */

/* Embeds crossdock: conversions, looks and checks in a program of yours. In C99, on
 * libcrossdock_host.
 *
 *     static const crossdock_option options[] = {{"to", "universal"}, {"memory", "512MiB"}};
 *     crossdock_call call = {sizeof call};
 *     call.options = options;
 *     call.n_options = 2;
 *     char* text = NULL;
 *     if (crossdock_convert("model", "out", &call, &text) != CROSSDOCK_DONE) fprintf(stderr,
 * "%s\n", text); crossdock_free(text);
 *
 * Options are the command's flags without "--": `crossdock convert --help` and the others list
 * them, with those of the plugins. An option may come several times where its flag may. Options of
 * the command's own printing are not taken: progress, log-level, report, trace, json.
 *
 * Plugins and rules are those of the installation that the library is part of; "plugin-path" and
 * CROSSDOCK_PLUGIN_PATH add others.
 *
 * What is promised: the library's major version (libcrossdock_host.so.1) changes when a program
 * that was built against an older header would no longer work. Within it fields are appended to
 * structs, which begin with their size, and functions are added. All text is UTF-8. No exception
 * leaves the library.
 *
 * Threads: any number of calls at once; each has its own plugins' state and budget.
 */
#ifndef CROSSDOCK_HOST_H
#define CROSSDOCK_HOST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CROSSDOCK_HOST_API __attribute__((visibility("default")))
#else
#define CROSSDOCK_HOST_API
#endif

/* The exit codes of the command, and one more. */
enum {
  CROSSDOCK_DONE = 0,
  CROSSDOCK_FAILED = 1, /* the text says what was expected, and what was found */
  CROSSDOCK_USAGE = 2,  /* the same of a wrong option or argument: nothing was begun */
  CROSSDOCK_DAMAGED =
      3, /* of crossdock_verify: it looked, and found problems, which the text lists */
  CROSSDOCK_CANCELLED = 130 /* by is_cancelled; the destination is as it was */
};
typedef int32_t crossdock_status;

typedef struct crossdock_option {
  const char* name;  /* "to" */
  const char* value; /* "universal"; NULL for a flag without a value */
} crossdock_option;

/* What a call is given beside its paths. All but struct_size may be zero. The functions get `user`,
 * must not call longjmp or let an exception out, and are not called any more once the call has
 * returned. */
typedef struct crossdock_call {
  uint32_t struct_size; /* sizeof(crossdock_call) */
  uint32_t n_options;
  const crossdock_option* options;
  void* user;
  /* Bytes done, of all, about five times a second, on the thread that made the call. */
  void (*progress)(void* user, uint64_t done, uint64_t total);
  /* What is worked at now: "write", "digest", "sync". On the thread that made the call. */
  void (*phase)(void* user, const char* phase);
  /* Messages and notes, with a level: 0 debug, 1 info, 2 warning, 3 a plugin's bug. On any thread,
   * one at a time. */
  void (*log)(void* user, int32_t level, const char* text);
  /* Asked about ten times a second, on a thread of its own, until it gives something other than 0:
   * then the call ends. */
  int32_t (*is_cancelled)(void* user);
} crossdock_call;

/* Each gives a text in `*text`, unless `text` is NULL: the caller's, for crossdock_free(). After
 * CROSSDOCK_FAILED, CROSSDOCK_USAGE and CROSSDOCK_CANCELLED it is a sentence. `call` may be NULL
 * where no option is needed. */

/* Makes `destination` of `source`: a folder, a file, or org/name of the local Hugging Face cache.
 * It is there whole or not at all. The option "to" is needed. The text: the report, as
 * destination/crossdock.json has it; empty after "dry-run" and where other processes have still to
 * do their part. */
CROSSDOCK_HOST_API crossdock_status crossdock_convert(const char* source, const char* destination,
                                                      const crossdock_call* call, char** text);

/* What a checkpoint holds. The text: JSON, as of `crossdock inspect --json`; digests and statistics
 * if the options "digest" and "stats" ask for them. */
CROSSDOCK_HOST_API crossdock_status crossdock_inspect(const char* source,
                                                      const crossdock_call* call, char** text);

/* Whether a folder that crossdock wrote is as it was written, or a download of the Hub as it should
 * be; with the option "against" every value is compared with the source. The text: JSON with "good"
 * and "problems", "notes", "files", "bytes", "tensors". Only the first problems are listed;
 * "n_problems" counts them all. */
CROSSDOCK_HOST_API crossdock_status crossdock_verify(const char* folder, const crossdock_call* call,
                                                     char** text);

/* "1.2.3". */
CROSSDOCK_HOST_API const char* crossdock_version(void);

CROSSDOCK_HOST_API void crossdock_free(char* text); /* NULL is fine */

#ifdef __cplusplus
}
#endif

#endif
