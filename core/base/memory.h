// SPDX-License-Identifier: Apache-2.0

// One job's memory budget: every buffer of data is charged to it.
//
// Two accounts, one limit. *Reservations* admit work: a worker reserves an item's declared peak
// before it starts and waits while others hold too much, so items never fail half-way for want of
// memory. *Allocations* are the buffers themselves; freed ones are kept for the next of the same
// size, since the first touch of fresh pages is the slowest thing on many machines. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace crossdock::base {

class Memory {
 public:
  explicit Memory(uint64_t limit) : limit_(limit) {}
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  uint64_t limit() const { return limit_; }

  // A buffer, or nullptr when the limit would be passed. `align` is a power of two. `owner` stands
  // for whoever has to give it back.
  void* alloc(uint64_t size, uint64_t align, const void* owner = nullptr);
  // Gives its size. Nothing: it is no buffer of this owner (any more), and is left alone, for it
  // may be another's by now.
  std::optional<uint64_t> dealloc(void* p, const void* owner = nullptr);
  // Takes back what an owner still has: the number of buffers.
  size_t dealloc_all(const void* owner);
  // The most bytes ever held, kept ones included.
  uint64_t peak() const;

  // Waits until n more bytes may be reserved; false when stop() turned true instead, or n can never
  // be had.
  bool reserve(uint64_t n, const std::function<bool()>& stop);
  void unreserve(uint64_t n);
  void wake();  // after stop() changed

 private:
  struct Buffer {
    uint64_t size;
    const void* owner;
  };
  // Under mutex_, both:
  void drop_kept();
  void release(std::unordered_map<void*, Buffer>::iterator buffer);

  const uint64_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<void*, Buffer> used_;
  std::multimap<uint64_t, void*> kept_;
  uint64_t held_ = 0;  // bytes of used_ and kept_
  uint64_t kept_bytes_ = 0;
  uint64_t reserved_ = 0;
  uint64_t peak_ = 0;
};

// A buffer for the length of a scope. `data` is nullptr when the budget refused it.
struct Block {
  Block(Memory& memory, uint64_t size)
      : memory(memory), data(static_cast<std::byte*>(memory.alloc(size, 64))) {}
  ~Block() { memory.dealloc(data); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  Memory& memory;
  std::byte* const data;
};

}  // namespace crossdock::base
