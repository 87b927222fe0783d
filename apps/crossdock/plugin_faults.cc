// SPDX-License-Identifier: Apache-2.0
#include "apps/crossdock/plugin_faults.h"

#include "core/base/sanitized.h"
#include "core/plugin/active_calls.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

namespace crossdock::app {

namespace {

constexpr unsigned kWaitSeconds = 2, kAgainSeconds = 10;

// A line on stderr, put together without allocating.
class Line {
 public:
  Line& add(const char* text) {
    while (*text && n_ < sizeof bytes_) bytes_[n_++] = *text++;
    return *this;
  }
  Line& add(int64_t number) {
    char digits[24];
    char* at = digits + sizeof digits;
    *--at = '\0';
    do {
      *--at = static_cast<char>('0' + number % 10);
    } while ((number /= 10) > 0);
    return add(at);
  }
  ~Line() { (void)!::write(STDERR_FILENO, bytes_, n_); }

 private:
  char bytes_[1000];
  size_t n_ = 0;
};

std::atomic<Stage> stage{Stage::kNothingWritten};

const char* what_now() {
  switch (stage) {
    case Stage::kWriting:
      return ": nothing was published. What was written is in DST.partial: the same command goes "
             "on with it, crossdock clean removes it\n";
    case Stage::kPublished:
      return ", after DST was published whole\n";
    default:
      return "\n";
  }
}

void on_crash(int signal) {
  const auto place = plugin::call_of_this_thread();
  if (place) {
    Line line;
    line.add("crossdock: error: ").add(place->plugin).add(" crashed in ").add(place->function);
    line.add(" (SIG").add(sigabbrev_np(signal)).add(")").add(what_now());
  } else {
    Line line;
    line.add("crossdock: error: crashed (SIG").add(sigabbrev_np(signal));
    line.add(") in no plugin's call: a thread that a plugin left running, or a fault of ours");
    line.add(what_now());
  }
  // The handler was reset when it was called, so that this ends the process, with its core dump.
  ::raise(signal);
}

void on_exit() {
  const auto place = plugin::call_of_this_thread();
  if (!place) return;
  {
    Line line;
    line.add("crossdock: error: ").add(place->plugin).add(" called exit() in ");
    line.add(place->function).add(what_now());
  }
  ::_exit(1);  // whatever it gave: a plugin's 0 must not look like a conversion
}

void on_alarm(int) {
  if (const auto place = plugin::longest_call()) {
    Line line;
    line.add("crossdock: waiting for ").add(place->plugin).add(" in ").add(place->function);
    line.add(" (").add(place->seconds).add(" s); Ctrl-C again ends at once\n");
  }
  ::alarm(kAgainSeconds);
}

}  // namespace

void set_stage(Stage now) { stage = now; }

void tell_of_plugin_faults() {
// The sanitizers tell of crashes themselves, and better.
#if !defined(CROSSDOCK_SANITIZED)
  struct sigaction action {};
  action.sa_handler = on_crash;
  action.sa_flags = SA_ONSTACK | static_cast<int>(SA_RESETHAND) | SA_NODEFER;
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT})
    ::sigaction(signal, &action, nullptr);
#endif
  std::atexit(on_exit);
  std::at_quick_exit(on_exit);
}

void tell_what_is_waited_for() {
  struct sigaction action {};
  action.sa_handler = on_alarm;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGALRM, &action, nullptr);
  ::alarm(kWaitSeconds);
}

}  // namespace crossdock::app
