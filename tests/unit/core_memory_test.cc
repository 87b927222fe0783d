// SPDX-License-Identifier: Apache-2.0
#include "core/base/memory.h"

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/catch.h"

using crossdock::base::Block;
using crossdock::base::Memory;

namespace {
const auto never = [] { return false; };
}

TEST_CASE("a buffer is aligned, writable and charged") {
  Memory memory(1 << 20);
  for (const uint64_t align : {uint64_t{1}, uint64_t{64}, uint64_t{256}, uint64_t{4096}}) {
    void* p = memory.alloc(1000, align);
    REQUIRE(p);
    CHECK(reinterpret_cast<uintptr_t>(p) % align == 0);
    std::memset(p, 1, 1000);
    memory.dealloc(p);
  }
  CHECK(memory.alloc(1000, 8192) == nullptr);
  CHECK(memory.alloc(0, 64) != nullptr);  // a plugin may ask for nothing
}

TEST_CASE("what passes the limit is refused, and what fits is not") {
  Memory memory(1000 * 64);
  CHECK(memory.alloc(1000 * 64 + 1, 64) == nullptr);
  CHECK(memory.alloc(UINT64_MAX, 64) == nullptr);
  CHECK(memory.alloc(UINT64_MAX - 63, 64) == nullptr);
  void* half = memory.alloc(500 * 64, 64);
  REQUIRE(half);
  CHECK(memory.alloc(501 * 64, 64) == nullptr);
  void* other = memory.alloc(500 * 64, 64);
  CHECK(other);
  CHECK(memory.alloc(1, 64) == nullptr);
  memory.dealloc(half);
  CHECK(memory.alloc(500 * 64, 64));
  CHECK(memory.peak() == 1000 * 64);
}

TEST_CASE("a limit near the end of the numbers does not wrap") {
  Memory memory(UINT64_MAX);
  CHECK(memory.alloc(UINT64_MAX, 64) == nullptr);
  CHECK(memory.alloc(UINT64_MAX - 10, 4096) == nullptr);
}

TEST_CASE("a freed buffer serves the next of its size, and makes room for others") {
  Memory memory(1 << 20);
  void* first = memory.alloc(1 << 19, 64);
  memory.dealloc(first);
  CHECK(memory.alloc(1 << 19, 64) == first);
  CHECK(memory.peak() == 1 << 19);
  memory.dealloc(first);
  CHECK(memory.alloc((1 << 19) + 64, 64));  // the kept one gives way
  CHECK(memory.peak() <= 1 << 20);
}

TEST_CASE("a plugin that frees what is not its own does no harm") {
  Memory memory(1 << 20);
  int mine = 0;
  memory.dealloc(nullptr);
  memory.dealloc(&mine);
  void* p = memory.alloc(64, 64);
  memory.dealloc(p);
  memory.dealloc(p);
  void* a = memory.alloc(64, 64);
  void* b = memory.alloc(64, 64);
  CHECK(a != b);  // the second dealloc did not put it in twice
}

TEST_CASE("a block is freed with its scope, and says when it was refused") {
  Memory memory(4096);
  for (int i = 0; i < 3; ++i) {
    const Block block(memory, 4096);
    REQUIRE(block.data);
    const Block second(memory, 64);
    CHECK(second.data == nullptr);
  }
}

TEST_CASE("a reservation waits for room") {
  Memory memory(100);
  REQUIRE(memory.reserve(60, never));
  std::atomic<bool> got{false};
  std::thread waiter([&] { got = memory.reserve(60, never); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK_FALSE(got);
  memory.unreserve(60);
  waiter.join();
  CHECK(got);
}

TEST_CASE("a reservation that can never be had, or is stopped, is refused") {
  Memory memory(100);
  CHECK_FALSE(memory.reserve(101, never));
  REQUIRE(memory.reserve(100, never));
  CHECK_FALSE(memory.reserve(1, [] { return true; }));
  std::atomic<bool> stop{false}, refused{false};
  std::thread waiter([&] { refused = !memory.reserve(1, [&] { return stop.load(); }); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  stop = true;
  memory.wake();
  waiter.join();
  CHECK(refused);
  memory.unreserve(100);
  CHECK(memory.reserve(100, never));
}

TEST_CASE("many threads never hold more than the limit") {
  constexpr uint64_t kLimit = 1000;
  Memory memory(kLimit);
  std::atomic<uint64_t> held{0}, most{0};
  std::atomic<int> bad_blocks{0};
  const auto work = [&](unsigned seed) {
    for (int i = 0; i < 300; ++i) {
      const uint64_t n = 1 + (seed * 7919u + static_cast<unsigned>(i) * 104729u) % kLimit;
      if (!memory.reserve(n, never)) continue;
      const uint64_t now = held += n;
      for (uint64_t old = most; old < now && !most.compare_exchange_weak(old, now);) {
      }
      if (auto* p = static_cast<unsigned char*>(memory.alloc(64, 64))) {
        std::memset(p, static_cast<int>(seed), 64);
        std::this_thread::yield();
        for (int k = 0; k < 64; ++k) bad_blocks += p[k] != seed;  // nobody else was given it
        memory.dealloc(p);
      }
      held -= n;
      memory.unreserve(n);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 8; ++t) threads.emplace_back(work, t);
  for (auto& t : threads) t.join();
  CHECK(most <= kLimit);
  CHECK(most > 0);
  CHECK(bad_blocks == 0);
  CHECK(memory.peak() <= kLimit);
}
