// SPDX-License-Identifier: Apache-2.0
#include "core/convert/scheduler.h"

#include <chrono>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "tests/catch.h"

using namespace crossdock;
using namespace std::chrono_literals;
using base::Memory;
using convert::run_schedule;
using convert::Schedule;

namespace {

const std::atomic<bool> kNotCancelled{false};

// What the tasks did; they may not use the test framework, which is of one thread.
struct Trace {
  std::mutex mutex;
  std::vector<size_t> started;
  void start(size_t task) {
    const std::lock_guard lock(mutex);
    started.push_back(task);
  }
};

// Raises `most` to at least `value`.
void raise(std::atomic<uint64_t>& most, uint64_t value) {
  for (uint64_t old = most; old < value && !most.compare_exchange_weak(old, value);) {
  }
}

}  // namespace

TEST_CASE("every task runs once, and one thread runs them in order") {
  for (const unsigned threads : {1u, 8u}) {
    Memory memory(1000);
    Trace trace;
    Schedule schedule;
    schedule.threads = threads;
    schedule.memory.assign(500, 10);
    schedule.run = [&](size_t task) -> Result<void> {
      trace.start(task);
      return {};
    };
    REQUIRE(run_schedule(schedule, memory, kNotCancelled));
    std::vector<size_t> wanted(500);
    std::iota(wanted.begin(), wanted.end(), size_t{0});
    if (threads > 1) std::sort(trace.started.begin(), trace.started.end());
    CHECK(trace.started == wanted);
    CHECK(memory.reserve(1000, [] { return false; }));  // all was given back
  }
}

TEST_CASE("nothing to do is done, and no threads are as one") {
  Memory memory(10);
  Schedule schedule;
  schedule.threads = 0;
  CHECK(run_schedule(schedule, memory, kNotCancelled));
  schedule.memory = {1};
  bool ran = false;
  schedule.run = [&](size_t) -> Result<void> {
    ran = true;
    return {};
  };
  CHECK(run_schedule(schedule, memory, kNotCancelled));
  CHECK(ran);
}

TEST_CASE("tasks run at the same time when there is room") {
  Memory memory(100);
  std::atomic<int> inside{0};
  Schedule schedule;
  schedule.threads = 4;
  schedule.memory.assign(4, 25);
  schedule.run = [&](size_t) -> Result<void> {
    ++inside;
    for (int i = 0; i < 5000 && inside < 4; ++i)
      std::this_thread::sleep_for(1ms);  // each waits for all
    return inside == 4 ? Result<void>() : corrupt("alone");
  };
  CHECK(run_schedule(schedule, memory, kNotCancelled));
}

TEST_CASE("the budget is never passed") {
  constexpr uint64_t kBudget = 100;
  Memory memory(kBudget);
  std::atomic<uint64_t> held{0}, most{0};
  Schedule schedule;
  schedule.threads = 8;
  for (uint64_t i = 0; i < 400; ++i) schedule.memory.push_back((i * 37) % (kBudget + 1));
  schedule.run = [&](size_t task) -> Result<void> {
    raise(most, held += schedule.memory[task]);
    std::this_thread::yield();
    held -= schedule.memory[task];
    return {};
  };
  CHECK(run_schedule(schedule, memory, kNotCancelled));
  CHECK(most <= kBudget);
  CHECK(most > 0);
}

TEST_CASE("a task that can never have its memory is an error that says so") {
  for (const unsigned threads : {1u, 4u}) {
    Memory memory(100);
    Schedule schedule;
    schedule.threads = threads;
    schedule.memory = {10, 101, 10};
    schedule.run = [](size_t) -> Result<void> { return {}; };
    const auto result = run_schedule(schedule, memory, kNotCancelled);
    REQUIRE_FALSE(result);
    CHECK(result.error().code == XD_NO_MEMORY);
    CHECK(result.error().message ==
          "expected at most 100 bytes for one item of work, found 101: raise --memory");
  }
}

TEST_CASE("the first error in time wins, and stops what has not started") {
  Memory memory(1000);
  Trace trace;
  std::atomic<bool> failed{false};
  Schedule schedule;
  schedule.threads = 2;
  schedule.memory.assign(1000, 1);
  schedule.run = [&](size_t task) -> Result<void> {
    trace.start(task);
    if (task == 1) {
      std::this_thread::sleep_for(20ms);
      failed = true;
      return corrupt("first");
    }
    // The other thread's task ends after it, with an error of its own.
    for (int i = 0; i < 5000 && !failed; ++i) std::this_thread::sleep_for(1ms);
    std::this_thread::sleep_for(50ms);
    return corrupt("second");
  };
  const auto result = run_schedule(schedule, memory, kNotCancelled);
  REQUIRE_FALSE(result);
  CHECK(result.error().code == XD_CORRUPT);
  CHECK(result.error().message == "first");
  CHECK(trace.started.size() == 2);
}

TEST_CASE("an exception in a task is an error, whatever was thrown") {
  const auto thrown = [](auto what) {
    Memory memory(10);
    Schedule schedule;
    schedule.threads = 2;
    schedule.memory.assign(3, 1);
    schedule.run = [&](size_t) -> Result<void> { throw what; };
    const auto result = run_schedule(schedule, memory, kNotCancelled);
    REQUIRE_FALSE(result);
    CHECK(memory.reserve(10, [] { return false; }));  // what it had reserved is free
    return result.error();
  };
  CHECK(thrown(std::runtime_error("boom")).code == XD_INTERNAL);
  CHECK(thrown(std::runtime_error("boom")).message == "boom");
  CHECK(thrown(std::bad_alloc()).code == XD_NO_MEMORY);
  CHECK(thrown(7).code == XD_INTERNAL);
}

TEST_CASE("a cancel before the start runs nothing") {
  Memory memory(10);
  const std::atomic<bool> cancelled{true};
  bool ran = false;
  Schedule schedule;
  schedule.memory = {1};
  schedule.run = [&](size_t) -> Result<void> {
    ran = true;
    return {};
  };
  const auto result = run_schedule(schedule, memory, cancelled);
  REQUIRE_FALSE(result);
  CHECK(result.error().code == XD_CANCELLED);
  CHECK_FALSE(ran);
}

TEST_CASE("a cancel reaches those who wait for the budget") {
  Memory memory(100);
  REQUIRE(memory.reserve(60, [] { return false; }));  // somebody else, who never gives it back
  std::atomic<bool> cancelled{false};
  std::atomic<int> ran{0};
  Schedule schedule;
  schedule.threads = 4;
  schedule.memory = {10, 90, 90, 90};
  schedule.run = [&](size_t) -> Result<void> {
    ++ran;
    return {};
  };
  std::thread user([&] {
    std::this_thread::sleep_for(50ms);
    cancelled = true;  // as a signal handler does: no more than this
  });
  const auto result = run_schedule(schedule, memory, cancelled);
  user.join();
  REQUIRE_FALSE(result);
  CHECK(result.error().code == XD_CANCELLED);
  CHECK(ran == 1);
}

TEST_CASE("an error reaches those who wait for the budget") {
  Memory memory(100);
  REQUIRE(memory.reserve(60, [] { return false; }));
  Schedule schedule;
  schedule.threads = 4;
  schedule.memory = {10, 90, 90, 90};
  schedule.run = [&](size_t) -> Result<void> {
    std::this_thread::sleep_for(50ms);
    return corrupt("bad");
  };
  const auto result = run_schedule(schedule, memory, kNotCancelled);
  REQUIRE_FALSE(result);
  CHECK(result.error().message == "bad");
}

TEST_CASE("the caller's thread ticks while tasks run") {
  Memory memory(10);
  const auto caller = std::this_thread::get_id();
  int ticks = 0;
  bool elsewhere = false;
  Schedule schedule;
  schedule.memory = {1};
  schedule.run = [](size_t) -> Result<void> {
    std::this_thread::sleep_for(700ms);
    return {};
  };
  schedule.on_tick = [&] {
    ++ticks;
    elsewhere |= std::this_thread::get_id() != caller;
  };
  CHECK(run_schedule(schedule, memory, kNotCancelled));
  CHECK(ticks >= 1);
  CHECK(ticks <= 4);
  CHECK_FALSE(elsewhere);
}

TEST_CASE("many short runs on many threads") {
  for (int round = 0; round < 200; ++round) {
    Memory memory(64);
    std::atomic<uint64_t> sum{0};
    Schedule schedule;
    schedule.threads = 1 + static_cast<unsigned>(round) % 16;
    schedule.memory.assign(40, 1 + static_cast<uint64_t>(round) % 64);
    schedule.run = [&](size_t task) -> Result<void> {
      sum += task;
      if (round % 5 == 4 && task == 20) return corrupt("stop");
      return {};
    };
    const bool done = run_schedule(schedule, memory, kNotCancelled).has_value();
    CHECK(done == (round % 5 != 4));
    if (done) CHECK(sum == 780);
  }
}
