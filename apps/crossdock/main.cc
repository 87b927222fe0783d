// SPDX-License-Identifier: Apache-2.0

// crossdock: converts model checkpoints between formats through plugins.
#include "apps/crossdock/plugin_faults.h"
#include "apps/crossdock/verb.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <exception>

namespace crossdock::app {

std::atomic<bool> cancelled{false};

namespace {

constexpr std::array kVerbs{&kConvert, &kInspect, &kVerify,  &kDiff,
                            &kCommit,  &kClean,   &kPlugins, &kCompletion};

std::string help() {
  std::string out = "crossdock: converts model checkpoints between formats\n\n";
  for (const Verb* verb : kVerbs) {
    out +=
        fmt::format("  crossdock {:<30}{}\n", cat(verb->name, " ", verb->arguments), verb->summary);
  }
  return out +
         "\nSRC is a file, a folder, or a model of the local Hugging Face cache (org/name).\n"
         "`crossdock VERB --help` lists a verb's options, `crossdock convert --to FORMAT --help` "
         "also those of a format.\n";
}

// The first signal asks the work to stop, which removes the staging; the second ends the process at
// once.
void on_signal(int) {
  if (cancelled.exchange(true)) _exit(kCancelled);
  tell_what_is_waited_for();
}

// Else the first files that are opened get these numbers, and what is printed goes into them.
void open_standard_streams() {
  for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = open("/dev/null", O_RDWR)) {
    if (fd <= STDERR_FILENO) continue;
    close(fd);
    return;
  }
}

void set_up_process() {
  open_standard_streams();
  struct sigaction action {};
  action.sa_handler = on_signal;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction old {};
    // A shell's background job ignores SIGINT, nohup SIGHUP: keep it so.
    if (sigaction(signal, nullptr, &old) == 0 && old.sa_handler != SIG_IGN)
      sigaction(signal, &action, nullptr);
  }
  tell_of_plugin_faults();
  signal(SIGXFSZ,
         SIG_IGN);  // a write beyond the limit of files' sizes is an error like a full disk
  signal(SIGPIPE, SIG_IGN);  // progress that nobody reads must not end a conversion
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {  // hundreds of a source stay open
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
}

int run(const std::vector<std::string>& words) {
  if (words.empty()) {
    say(help());
    return kUsage;
  }
  const std::string& verb = words.front();
  const std::vector<std::string> args(words.begin() + 1, words.end());
  std::string names;
  for (const Verb* known : kVerbs) {
    if (verb == known->name) return known->run(args);
    names += cat(names.empty() ? "" : known == kVerbs.back() ? " or " : ", ", known->name);
  }
  if (verb == "man") return man(args);
  if (verb == "--help" || verb == "-h" || verb == "help") {
    fmt::print("{}", help());
    return kDone;
  }
  if (verb == "--version") {
    fmt::print("crossdock {}\n", CROSSDOCK_VERSION);
    return kDone;
  }
  return usage_error(cat("expected ", names, ", found ", verb), "");
}

}  // namespace

std::span<const Verb* const> verbs() { return kVerbs; }

void say(const std::string& text) {
  (void)std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

int fail(const Error& error) {
  if (error.code == XD_CANCELLED) {
    const bool is_kept = error.message != "cancelled";
    say(fmt::format("crossdock: {}\n", is_kept ? base::printable(error.message)
                                               : "cancelled; nothing was left behind"));
    return kCancelled;
  }
  say(fmt::format("crossdock: error: {}\n", base::printable(error.message)));
  return kFailed;
}

int usage_error(const std::string& message, const std::string& verb) {
  say(fmt::format("crossdock: {}\nTry: crossdock {}{}--help\n", base::printable(message), verb,
                  verb.empty() ? "" : " "));
  return kUsage;
}

}  // namespace crossdock::app

int main(int argc, char** argv) {
  using namespace crossdock::app;
  try {
    set_up_process();
    const int code = run({argv + 1, argv + argc});
    // A full disk under a redirected stdout is a failure too.
    if (std::fflush(stdout) == 0 || code != kDone) return code;
    return fail({XD_IO, "expected to print what was done, found that stdout cannot be written"});
  } catch (const std::exception& e) {
    return fail({XD_INTERNAL, e.what()});
  }
}
