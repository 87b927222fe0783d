// SPDX-License-Identifier: Apache-2.0
#include "core/base/memory.h"

#include <algorithm>
#include <cstdlib>

namespace crossdock::base {

namespace {
// Larger ones (a header of 100 MB, say) are rare and go back to the system at once.
constexpr uint64_t kLargestKept = 16u << 20;
}  // namespace

Memory::~Memory() {
  drop_kept();
  for (const auto& [p, buffer] : used_) std::free(p);
}

void* Memory::alloc(uint64_t size, uint64_t align, const void* owner) {
  size = std::max<uint64_t>(size, 1);
  align = std::max<uint64_t>(align, 64);
  if (size > limit_ || align > 4096 || size > UINT64_MAX - align) return nullptr;
  size = (size + align - 1) / align * align;  // what aligned_alloc asks for
  const std::lock_guard lock(mutex_);
  if (const auto it = kept_.find(size); it != kept_.end() && align <= 64) {
    void* p = it->second;
    kept_.erase(it);
    kept_bytes_ -= size;
    used_.emplace(p, Buffer{size, owner});
    return p;
  }
  if (size > limit_ - held_) drop_kept();
  if (size > limit_ - held_) return nullptr;
  void* p = std::aligned_alloc(align, size);
  if (!p) return nullptr;
  used_.emplace(p, Buffer{size, owner});
  held_ += size;
  peak_ = std::max(peak_, held_);
  return p;
}

std::optional<uint64_t> Memory::dealloc(void* p, const void* owner) {
  const std::lock_guard lock(mutex_);
  const auto it = used_.find(p);
  if (it == used_.end() || it->second.owner != owner) return std::nullopt;
  const uint64_t size = it->second.size;
  release(it);
  return size;
}

size_t Memory::dealloc_all(const void* owner) {
  const std::lock_guard lock(mutex_);
  size_t n = 0;
  for (auto it = used_.begin(); it != used_.end();) {
    const auto next = std::next(it);
    if (it->second.owner == owner) {
      release(it);
      ++n;
    }
    it = next;
  }
  return n;
}

void Memory::release(std::unordered_map<void*, Buffer>::iterator buffer) {
  const auto [p, size] = std::pair(buffer->first, buffer->second.size);
  used_.erase(buffer);
  if (size <= kLargestKept) {
    kept_.emplace(size, p);
    kept_bytes_ += size;
  } else {
    held_ -= size;
    std::free(p);
  }
}

uint64_t Memory::peak() const {
  const std::lock_guard lock(mutex_);
  return peak_;
}

void Memory::drop_kept() {
  for (const auto& [size, p] : kept_) std::free(p);
  held_ -= kept_bytes_;
  kept_bytes_ = 0;
  kept_.clear();
}

bool Memory::reserve(uint64_t n, const std::function<bool()>& stop) {
  std::unique_lock lock(mutex_);
  if (n > limit_) return false;
  changed_.wait(lock, [&] { return stop() || n <= limit_ - reserved_; });
  if (stop()) return false;
  reserved_ += n;
  return true;
}

void Memory::wake() {
  // Not between a waiter's look at stop() and its sleep, where the call would be lost.
  { const std::lock_guard lock(mutex_); }
  changed_.notify_all();
}

void Memory::unreserve(uint64_t n) {
  {
    const std::lock_guard lock(mutex_);
    reserved_ -= n;
  }
  changed_.notify_all();
}

}  // namespace crossdock::base
