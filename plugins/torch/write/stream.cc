// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/write/stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "plugins/common/crc32.h"
#include "plugins/common/infinities.h"
#include "plugins/torch/write/results.h"

namespace crossdock::torch_write {
namespace {

using common::crc32;
using common::crc32_zeros;
using From = StorageSource::From;

// Writes on from an offset. Small pieces wait for the next large one or for flush().
class InOrder {
 public:
  InOrder(Object& object, uint64_t offset) : object_(object), offset_(offset) {}

  void add(std::string_view bytes) { waiting_ += bytes; }
  Result<void> write(std::span<const std::byte> bytes) {
    XD_TRY(flush());
    XD_TRY(object_.write(offset_, bytes));
    offset_ += bytes.size();
    return {};
  }
  Result<void> zeros(uint64_t n) {
    if (n < kMinHoleBytes) {
      waiting_.append(n, '\0');
      return {};
    }
    XD_TRY(flush());
    XD_TRY(object_.zero(offset_, n));
    offset_ += n;
    return {};
  }
  // Goes on from there, behind what another item or seal writes.
  Result<void> skip_to(uint64_t offset) {
    XD_TRY(flush());
    offset_ = offset;
    return {};
  }
  Result<void> flush() {
    if (waiting_.empty()) return {};
    XD_TRY(object_.write(offset_, as_bytes(waiting_)));
    offset_ += waiting_.size();
    waiting_.clear();
    return {};
  }

 private:
  Object& object_;
  uint64_t offset_;
  std::string waiting_;
};

Result<void> stop_if_cancelled(const Host& host) {
  if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
  return {};
}

// In storages of fp32 the values themselves; in those of fp16, which the host has cast, the
// infinities.
uint64_t count_beyond_fp16(std::span<const std::byte> values, manifest::DType dtype) {
  constexpr float kRoundsToInfinity = 65520;
  if (dtype == manifest::DType::F16) return common::count_infinities(values, dtype);
  if (dtype != manifest::DType::F32) return 0;
  uint64_t n = 0;
  for (size_t i = 0; i < values.size(); i += sizeof(float)) {
    float value;
    std::memcpy(&value, values.data() + i, sizeof(float));
    n += std::isfinite(value) && std::abs(value) >= kRoundsToInfinity;
  }
  return n;
}

class ItemWriter {
 public:
  // The buffer is the most that an item allocates.
  static Result<ItemWriter> make(const Host& host, const Content& content, const Item& item,
                                 InOrder& out) {
    // An element is at most 16 bytes; a host that allows no such buffer fails the allocation.
    const uint64_t size =
        std::min(item_memory(content, item), std::max<uint64_t>(host.piece_bytes(), 16));
    std::optional<Buffer> buffer;
    if (size > 0) {
      XD_TRY_SET(Buffer made, Buffer::make(host, size));
      buffer.emplace(std::move(made));
    }
    return ItemWriter(host, content, std::move(buffer), out);
  }

  // All that the item writes, but for what waits in the stream.
  Result<ItemResult> run(const Item& item) {
    const FileLayout& file = content_.file;
    if (item.is_first) out_.add(file.head());
    for (const Part& part : item.parts) {
      const StorageSource& storage = content_.storages[part.storage];
      XD_TRY_SET(const uint32_t crc, storage.from == From::kTensors ? write_tensors(storage, part)
                                                                    : write_zeros(storage, part));
      result_.parts.push_back({part.storage, part.begin, part.end - part.begin, crc});
      const size_t next = part.storage + 1;
      if (part.end != storage.n_bytes || next == content_.storages.size()) continue;
      if (part.begin == 0) {
        out_.add(file.gap(next, crc));
      } else if (&part != &item.parts.back()) {
        XD_TRY(out_.skip_to(file.storage_offset(next)));
      }
    }
    return std::move(result_);
  }

 private:
  ItemWriter(const Host& host, const Content& content, std::optional<Buffer> buffer, InOrder& out)
      : host_(host), content_(content), buffer_(std::move(buffer)), out_(out) {}

  std::span<std::byte> buffer() const { return buffer_ ? buffer_->span() : std::span<std::byte>(); }

  Result<uint32_t> write_tensors(const StorageSource& storage, const Part& part) {
    const uint64_t element = manifest::info(storage.dtype).bits / 8;
    const uint64_t room = std::max<uint64_t>(
        std::min<uint64_t>(buffer().size(), piece_of(storage, part)) / element, 1);
    uint32_t crc = 0;
    // Small neighbours share a piece, so that a storage of many short segments is not as many
    // writes.
    uint64_t filled = 0;
    const auto write = [&]() -> Result<void> {
      const auto piece = buffer().first(filled * element);
      filled = 0;
      if (storage.counts_beyond_fp16)
        result_.n_beyond_fp16 += count_beyond_fp16(piece, storage.dtype);
      crc = crc32(piece, crc);
      return out_.write(piece);
    };
    for (const Segment& segment : part.segments) {
      for (uint64_t done = 0; done < segment.count;) {
        if (filled == room) XD_TRY(write());
        XD_TRY(stop_if_cancelled(host_));
        const uint64_t n = std::min(segment.count - done, room - filled);
        XD_TRY(read_tensor(host_, range_of(storage, segment, done, n),
                           buffer().subspan(filled * element, n * element)));
        filled += n;
        done += n;
      }
      for (uint64_t done = 0; done < segment.pad;) {
        if (filled == room) XD_TRY(write());
        const uint64_t n = std::min(segment.pad - done, room - filled);
        std::memset(buffer().data() + filled * element, 0, n * element);
        filled += n;
        done += n;
      }
    }
    if (filled > 0) XD_TRY(write());
    return crc;
  }

  Result<uint32_t> write_zeros(const StorageSource& storage, const Part& part) {
    const uint64_t n_bytes = part.end - part.begin;
    if (!storage.bytes.empty()) {
      out_.add(storage.bytes);
      return crc32(as_bytes(storage.bytes), 0);
    }
    if (storage.from == From::kZeros) {
      XD_TRY(out_.zeros(n_bytes));
      return crc32_zeros(n_bytes);
    }
    if (!buffer().empty()) std::memset(buffer().data(), 0, buffer().size());
    for (uint64_t done = 0; done < n_bytes;) {
      XD_TRY(stop_if_cancelled(host_));
      // Never 0, so that a tiny budget cannot stop the loop.
      const uint64_t n = std::min(n_bytes - done, std::max<uint64_t>(buffer().size(), 1));
      XD_TRY(out_.write(buffer().first(n)));
      done += n;
    }
    return crc32_zeros(n_bytes);
  }

  const Host& host_;
  const Content& content_;
  std::optional<Buffer> buffer_;
  InOrder& out_;
  ItemResult result_;
};

Result<ItemResult> write_parts(const Host& host, const Content& content, const Item& item,
                               InOrder& out) {
  XD_TRY_SET(ItemWriter writer, ItemWriter::make(host, content, item, out));
  return writer.run(item);
}

}  // namespace

Result<std::string> write_item(const Host& host, const Content& content, const Item& item,
                               Object& object) {
  InOrder out(object, begin_of(content, item));
  XD_TRY_SET(const ItemResult result, write_parts(host, content, item, out));
  XD_TRY(out.flush());
  return result.encode();
}

Result<void> seal(const Host& host, const Content& content, Object& object,
                  std::span<const std::string_view> results) {
  const bool has_items = needs_item(content);
  InOrder out(object, 0);
  XD_TRY_SET(const ItemResult all,
             has_items ? joined(results) : write_parts(host, content, cut(content)[0], out));
  XD_TRY_SET(const auto storages, join_parts(all.parts, content.sizes()));
  std::vector<uint32_t> crcs;
  crcs.reserve(storages.size());
  for (const WrittenStorage& storage : storages) {
    const size_t i = crcs.size();
    crcs.push_back(storage.crc);
    if (storage.is_whole || i + 1 == storages.size()) continue;
    XD_TRY(out.skip_to(content.file.storage_offset(i) + content.storages[i].n_bytes));
    out.add(content.file.gap(i + 1, storage.crc));
  }
  if (has_items) XD_TRY(out.skip_to(content.file.tail_offset()));
  out.add(content.file.tail(crcs));
  return out.flush();
}

}  // namespace crossdock::torch_write
