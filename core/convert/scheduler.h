// SPDX-License-Identifier: Apache-2.0

// Runs tasks on a pool of threads under the memory budget. The first failure, or a cancel, stops
// what has not started.
#pragma once

#include "core/base/activity.h"
#include "core/base/memory.h"

#include <crossdock/result.hpp>

#include <atomic>
#include <functional>
#include <string>
#include <vector>

namespace crossdock::convert {

struct Schedule {
  unsigned threads = 1;
  // Bytes that task i holds at most while it runs; it starts when the budget has room for them.
  std::vector<uint64_t> memory;
  std::function<Result<void>(size_t task)> run;
  // Where the threads' time is counted, and what a task is called there; may be null and empty.
  base::Activities* activities = nullptr;
  std::function<std::string(size_t task)> name;
  // Called on the calling thread about five times a second while tasks run; may be empty.
  std::function<void()> on_tick;
};

// Tasks start in order. Returns the first error in time, XD_CANCELLED when `cancelled` turned true,
// or success. `memory` outlives the call. An exception in a task or in on_tick becomes an
// XD_INTERNAL error.
Result<void> run_schedule(const Schedule& schedule, base::Memory& memory,
                          const std::atomic<bool>& cancelled);

}  // namespace crossdock::convert
