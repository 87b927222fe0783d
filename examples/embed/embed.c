/* SPDX-License-Identifier: Apache-2.0 */

/* Converts a model to safetensors of a chosen type, with progress on one line and Ctrl-C, then
 * checks what was written.
 *
 *     embed SRC DST bf16|fp16|fp32
 */
#include <crossdock/host.h>

#include <signal.h>
#include <stdio.h>

static volatile sig_atomic_t interrupted = 0;

static void on_interrupt(int number) {
  (void)number;
  interrupted = 1;
}

static int32_t is_interrupted(void* user) {
  (void)user;
  return interrupted;
}

/* The name of the work that the next numbers are of. */
static void show_phase(void* user, const char* phase) { snprintf((char*)user, 16, "%s", phase); }

static void show_progress(void* user, uint64_t done, uint64_t total) {
  printf("\r%s: %3.0f%%", (const char*)user, total ? 100.0 * (double)done / (double)total : 100.0);
  if (done == total) printf("\n");
  fflush(stdout);
}

static void show_log(void* user, int32_t level, const char* text) {
  (void)user;
  fprintf(stderr, "%s: %s\n", level < 2 ? "note" : "warning", text);
}

/* Says what went wrong, and gives the program's exit code. */
static int end(crossdock_status status, char* text) {
  if (status != CROSSDOCK_DONE) fprintf(stderr, "embed: %s\n", text ? text : "out of memory");
  crossdock_free(text);
  return status;
}

int main(int argc, char** argv) {
  char work[16] = "";
  char* text = NULL;
  crossdock_status status;
  crossdock_option options[] = {
      {"to", "safetensors"}, {"dtype", NULL}, {"threads", "2"}, {"overwrite", NULL}};
  crossdock_call call = {sizeof call, 0, NULL, NULL, NULL, NULL, NULL, NULL};
  if (argc != 4) {
    fprintf(stderr, "usage: embed SRC DST bf16|fp16|fp32 (crossdock %s)\n", crossdock_version());
    return CROSSDOCK_USAGE;
  }
  signal(SIGINT, on_interrupt);
  options[1].value = argv[3];
  call.options = options;
  call.n_options = sizeof options / sizeof options[0];
  call.user = work;
  call.progress = show_progress;
  call.phase = show_phase;
  call.log = show_log;
  call.is_cancelled = is_interrupted;
  status = crossdock_convert(argv[1], argv[2], &call, &text);
  if (status != CROSSDOCK_DONE) return end(status, text);
  crossdock_free(text); /* the report, which is DST/crossdock.json too */

  call.n_options = 0;
  snprintf(work, sizeof work, "verify");
  status = crossdock_verify(argv[2], &call, &text);
  if (status != CROSSDOCK_DONE) return end(status, text);
  crossdock_free(text);
  status = crossdock_inspect(argv[2], &call, &text);
  if (status == CROSSDOCK_DONE && text) printf("%s", text);
  return end(status, text);
}
