// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/active_calls.h"

#include "core/base/sanitized.h"

#include <signal.h>
#include <time.h>

#include <array>
#include <atomic>
#include <memory>

namespace crossdock::plugin {

namespace {

int64_t now_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);  // async-signal-safe
  return now.tv_sec;
}

struct Slot {
  std::atomic<bool> taken{false};
  std::atomic<const char*> plugin{nullptr};
  std::atomic<const char*> function{nullptr};
  std::atomic<int64_t> since{0};
};

// A thread that finds no free one is told of by itself only (call_of_this_thread()).
std::array<Slot, 256> slots;
Slot spare;

struct Here {
  Slot* slot = nullptr;
  const char* plugin = nullptr;
  const char* function = nullptr;
  int64_t since = 0;
  int depth = 0;

  ~Here() {
    if (slot && slot != &spare) slot->taken = false;
  }
  Slot& own() {
    if (slot) return *slot;
    for (Slot& s : slots) {
      if (!s.taken.exchange(true)) return *(slot = &s);
    }
    return *(slot = &spare);
  }
};
thread_local Here here;

}  // namespace

ActiveCall::ActiveCall(const char* plugin, const char* function)
    : outer_plugin_(here.plugin), outer_function_(here.function) {
  Slot& slot = here.own();
  if (here.depth++ == 0) slot.since = here.since = now_seconds();
  slot.function = here.function = function;
  slot.plugin = here.plugin = plugin;
}

ActiveCall::~ActiveCall() {
  Slot& slot = here.own();
  --here.depth;
  slot.plugin = here.plugin = outer_plugin_;
  slot.function = here.function = outer_function_;
}

int ActiveCall::depth() { return here.depth; }

std::optional<CallPlace> call_of_this_thread() {
  if (!here.plugin) return std::nullopt;
  return CallPlace{here.plugin, here.function, now_seconds() - here.since};
}

std::optional<CallPlace> longest_call() {
  const Slot* longest = nullptr;
  for (const Slot& slot : slots) {
    if (slot.plugin && (!longest || slot.since < longest->since)) longest = &slot;
  }
  if (!longest) return std::nullopt;
  // It may have ended meanwhile.
  const char* const plugin = longest->plugin;
  const char* const function = longest->function;
  if (!plugin || !function) return std::nullopt;
  return CallPlace{plugin, function, now_seconds() - longest->since};
}

void give_signal_stack() {
// The sanitizers give every thread one of their own.
#if !defined(CROSSDOCK_SANITIZED)
  constexpr size_t kBytes = 64 << 10;
  struct SignalStack {
    std::unique_ptr<char[]> memory = std::make_unique<char[]>(kBytes);
    SignalStack() {
      stack_t stack{};
      stack.ss_sp = memory.get();
      stack.ss_size = kBytes;
      sigaltstack(&stack, nullptr);
    }
    ~SignalStack() {
      stack_t none{};
      none.ss_flags = SS_DISABLE;
      sigaltstack(&none, nullptr);
    }
  };
  static thread_local const SignalStack stack;
#endif
}

}  // namespace crossdock::plugin
