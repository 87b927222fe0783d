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
#include <unordered_map>

namespace crossdock::base {

class Memory {
 public:
  explicit Memory(uint64_t limit) : limit_(limit) {}
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  uint64_t limit() const { return limit_; }

  // A buffer, or nullptr when the limit would be passed. `align` is a power of two.
  void* alloc(uint64_t size, uint64_t align);
  void dealloc(void* p);
  // The most bytes ever held, kept ones included.
  uint64_t peak() const;

  // Waits until n more bytes may be reserved; false when stop() turned true instead, or n can never
  // be had.
  bool reserve(uint64_t n, const std::function<bool()>& stop);
  void unreserve(uint64_t n);
  void wake();  // after stop() changed

 private:
  void drop_kept();  // under mutex_

  const uint64_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<void*, uint64_t> used_;
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
