// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/write/items.h"

#include <algorithm>
#include <utility>

namespace crossdock::torch_write {
namespace {

using From = StorageSource::From;

// When the host casts, what it reads, what it gives and what we checksum of it then stay in a
// core's second-level cache (256 KiB on the smallest of today's) until they are written.
constexpr uint64_t kCastPiece = 256 << 10;
// When it does not cast, the host reads right into our buffer, and fewer calls count for more.
constexpr uint64_t kCopyPiece = 1 << 20;
// The same zeros again and again: small enough to stay in cache.
constexpr uint64_t kZeroPiece = 256 << 10;

bool is_hole(const StorageSource& storage) {
  return storage.from == From::kZeros && storage.n_bytes >= kMinHoleBytes;
}

// Elements [begin, end) of a segment and the zeros behind it.
Segment slice(const Segment& whole, uint64_t begin, uint64_t end) {
  const uint64_t first = std::min(begin, whole.count), last = std::min(end, whole.count);
  return {whole.tensor, whole.begin + first, last - first, (end - begin) - (last - first),
          whole.is_cast};
}

class Cutter {
 public:
  explicit Cutter(uint64_t max_bytes) : max_bytes_(max_bytes) {
    out_.emplace_back().is_first = true;
  }

  void add(size_t index, const StorageSource& storage) {
    at_ = 0;
    if (storage.from == From::kZeros) return grow(index, storage.n_bytes, is_hole(storage));
    const uint64_t elem_bytes = manifest::info(storage.dtype).bits / 8;
    if (storage.segments.empty()) add_run(index, storage.n_bytes, 1, nullptr);
    for (const Segment& segment : storage.segments)
      add_run(index, segment.count + segment.pad, elem_bytes, &segment);
  }

  std::vector<Item> finish() && { return std::move(out_); }

 private:
  void add_run(size_t index, uint64_t n_elems, uint64_t elem_bytes, const Segment* segment) {
    if (used_ > 0 && n_elems > (max_bytes_ - std::min(used_, max_bytes_)) / elem_bytes) close();
    const uint64_t most = std::max<uint64_t>(max_bytes_ / elem_bytes, 1);
    for (uint64_t done = 0;;) {
      const uint64_t n = std::min(n_elems - done, most);
      grow(index, n * elem_bytes, false);
      if (segment) part_of(index).segments.push_back(slice(*segment, done, done + n));
      done += n;
      if (done == n_elems) return;
      close();
    }
  }

  void grow(size_t index, uint64_t n_bytes, bool is_free) {
    Part& part = part_of(index);
    at_ += n_bytes;
    part.end = at_;
    if (!is_free) used_ += n_bytes;
  }

  Part& part_of(size_t index) {
    auto& parts = out_.back().parts;
    if (parts.empty() || parts.back().storage != index) parts.push_back({index, at_, at_, {}});
    return parts.back();
  }

  void close() {
    out_.emplace_back();
    used_ = 0;
  }

  const uint64_t max_bytes_;
  std::vector<Item> out_;
  uint64_t used_ = 0;  // bytes of output in the last item
  uint64_t at_ = 0;    // in the storage
};

std::vector<xd_range> needs_of(const Content& content, const Item& item) {
  std::vector<xd_range> out;
  for (const Part& part : item.parts) {
    const StorageSource& storage = content.storages[part.storage];
    for (const Segment& segment : part.segments) {
      // An empty tensor that is a storage by itself is needed too: the plan must use it whole.
      if (segment.count > 0 || storage.segments.size() == 1)
        out.push_back(range_of(storage, segment, 0, segment.count));
    }
  }
  return out;
}

}  // namespace

std::vector<Item> cut(const Content& content, uint64_t max_bytes) {
  Cutter cutter(max_bytes);
  for (size_t i = 0; i < content.storages.size(); ++i) cutter.add(i, content.storages[i]);
  return std::move(cutter).finish();
}

bool needs_item(const Content& content) {
  return std::any_of(content.storages.begin(), content.storages.end(),
                     [](const StorageSource& storage) { return storage.from != From::kZeros; });
}

uint64_t begin_of(const Content& content, const Item& item) {
  if (item.is_first) return 0;
  return content.file.storage_offset(item.parts[0].storage) + item.parts[0].begin;
}

uint64_t piece_of(const StorageSource& storage, const Part& part) {
  const uint64_t n_bytes = part.end - part.begin;
  switch (storage.from) {
    case From::kTensors: {
      const bool casts = std::any_of(part.segments.begin(), part.segments.end(),
                                     [](const Segment& s) { return s.is_cast; });
      return std::min(n_bytes, casts ? kCastPiece : kCopyPiece);
    }
    case From::kWrittenZeros:
      return std::min(n_bytes, kZeroPiece);
    case From::kZeros:
      return 0;
  }
  return 0;
}

xd_range range_of(const StorageSource& storage, const Segment& segment, uint64_t begin,
                  uint64_t count) {
  return dense_range(segment.tensor, segment.begin + begin, count,
                     segment.is_cast ? storage.dtype : manifest::DType::UNSPECIFIED);
}

uint64_t item_memory(const Content& content, const Item& item) {
  uint64_t out = 0;
  for (const Part& part : item.parts)
    out = std::max(out, piece_of(content.storages[part.storage], part));
  return out;
}

Result<void> plan_items(Plan& plan, uint32_t object, const Content& content, uint64_t max_bytes) {
  if (!needs_item(content)) return {};
  const std::vector<Item> items = cut(content, max_bytes);
  for (size_t i = 0; i < items.size(); ++i) {
    const bool is_last = i + 1 == items.size();
    const uint64_t end = is_last ? content.file.tail_offset() : begin_of(content, items[i + 1]);
    uint64_t n_bytes = end - begin_of(content, items[i]);
    for (const Part& part : items[i].parts) {
      const StorageSource& storage = content.storages[part.storage];
      if (is_hole(storage)) n_bytes -= storage.n_bytes;
    }
    XD_TRY(plan.item(object, needs_of(content, items[i]), n_bytes, item_memory(content, items[i])));
  }
  return {};
}

}  // namespace crossdock::torch_write
