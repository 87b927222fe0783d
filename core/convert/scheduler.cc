// SPDX-License-Identifier: Apache-2.0
#include "core/convert/scheduler.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

namespace crossdock::convert {

namespace {

// One call of run_schedule(): what its threads share.
struct Run {
  const Schedule& schedule;
  base::Memory& memory;
  const std::atomic<bool>& cancelled;
  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
  size_t working = 0;
  std::mutex mutex{};
  std::condition_variable finished{};
  std::optional<Error> error{};

  // The first error counts; those of other threads mostly follow from it.
  void fail(Error e) {
    {
      const std::lock_guard lock(mutex);
      if (!error) error = std::move(e);
    }
    stop = true;
    memory.wake();
  }

  // Plugins are code of others: what they throw must not end the process.
  template <class Call>
  static Result<void> guarded(Call call) {
    try {
      return call();
    } catch (const std::bad_alloc&) {
      return Error{XD_NO_MEMORY, "out of memory"};
    } catch (const std::exception& e) {
      return Error{XD_INTERNAL, e.what()};
    } catch (...) {
      return Error{XD_INTERNAL, "unknown exception"};
    }
  }

  bool reserve(uint64_t bytes, const std::function<bool()>& stopped) {
    std::optional<base::Activities::OnThread> counted;
    if (schedule.activities) counted.emplace(*schedule.activities, "wait", base::Activity::kWait);
    return memory.reserve(bytes, stopped);
  }

  Result<void> run_one(size_t task) {
    std::optional<base::Activities::OnThread> counted;
    if (schedule.activities)
      counted.emplace(*schedule.activities, schedule.name ? schedule.name(task) : "task");
    return schedule.run(task);
  }

  // Takes tasks in order until none is left. A task waits until the budget has room for it, so that
  // many small ones run at once and a large one alone.
  void work() {
    const auto stopped = [this] { return stop || cancelled; };
    while (!stopped()) {
      const size_t task = next++;
      if (task >= schedule.memory.size()) break;
      const uint64_t bytes = schedule.memory[task];
      if (!reserve(bytes, stopped)) {
        if (!stopped())
          fail({XD_NO_MEMORY,
                cat("expected at most ", memory.limit(), " bytes for one item of work, found ",
                    bytes, ": raise --memory")});
        break;
      }
      auto result = guarded([&] { return run_one(task); });
      memory.unreserve(bytes);
      if (!result) fail(std::move(result).error());
    }
    const std::lock_guard lock(mutex);
    --working;
    finished.notify_all();
  }
};

}  // namespace

Result<void> run_schedule(const Schedule& schedule, base::Memory& memory,
                          const std::atomic<bool>& cancelled) {
  const size_t threads =
      std::max<size_t>(1, std::min<size_t>(schedule.threads, schedule.memory.size()));
  Run run{.schedule = schedule, .memory = memory, .cancelled = cancelled, .working = threads};
  std::vector<std::jthread> pool;
  try {
    for (size_t i = 0; i < threads; ++i) pool.emplace_back([&run] { run.work(); });
  } catch (const std::system_error& e) {
    // Fewer do it too.
    const std::lock_guard lock(run.mutex);
    run.working -= threads - pool.size();
    if (pool.empty()) return Error{XD_IO, cat("expected to start a thread, found ", e.what())};
  }
  {
    std::unique_lock lock(run.mutex);
    while (!run.finished.wait_for(lock, std::chrono::milliseconds(200),
                                  [&run] { return run.working == 0; })) {
      if (cancelled) memory.wake();  // a signal handler can set the flag but not notify
      lock.unlock();
      auto ticked = Run::guarded([&]() -> Result<void> {
        if (schedule.on_tick) schedule.on_tick();
        return {};
      });
      if (!ticked) run.fail(std::move(ticked).error());
      lock.lock();
    }
  }
  pool.clear();
  if (cancelled) return Error{XD_CANCELLED, "cancelled"};
  if (run.error) return *std::move(run.error);
  return {};
}

}  // namespace crossdock::convert
