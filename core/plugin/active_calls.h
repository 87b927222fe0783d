// SPDX-License-Identifier: Apache-2.0

// Which plugin's function each thread is in, so that a crash, an exit() or a wait that does not end
// can be told by name. What asks may be a signal handler: nothing here locks or allocates.
#pragma once

#include <cstdint>
#include <optional>

namespace crossdock::plugin {

// While it lives, this thread is in that function. Both texts live as long; calls nest.
class ActiveCall {
 public:
  ActiveCall(const char* plugin, const char* function);
  ~ActiveCall();
  ActiveCall(const ActiveCall&) = delete;
  ActiveCall& operator=(const ActiveCall&) = delete;

  // How many there are on this thread.
  static int depth();

 private:
  const char* const outer_plugin_;
  const char* const outer_function_;
};

struct CallPlace {
  const char* plugin;
  const char* function;
  int64_t seconds;  // since the thread's outermost call began
};
// The innermost call of this thread. [any, and in signal handlers]
std::optional<CallPlace> call_of_this_thread();
// Of the thread that has been in one the longest. [any, and in signal handlers]
std::optional<CallPlace> longest_call();

// A thread that overflows its stack in a plugin has no room left for a handler: this gives it some.
// Once for each thread that calls plugins.
void give_signal_stack();

}  // namespace crossdock::plugin
