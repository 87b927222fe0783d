#include "plugins/torch/write/stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "plugins/common/crc32.h"

namespace crossdock::torch_write {

using common::crc32;
using common::crc32_zeros;

namespace {

using From = StorageSource::From;

// Bytes of output at a time when the host casts: what it reads, what it gives and what we checksum
// of it then stay in a core's second-level cache (256 KiB on the smallest of today's) until they
// are written.
constexpr uint64_t kCastPiece = 256 << 10;
// When it does not cast, the host reads right into our buffer, and fewer calls count for more.
constexpr uint64_t kCopyPiece = 1 << 20;
// The same zeros again and again: small enough to stay in cache.
constexpr uint64_t kZeroPiece = 256 << 10;
// Zeros below a file system's block are no hole: they go out with the bytes around them.
constexpr uint64_t kSmallestHole = 4096;

uint64_t piece_of(const StorageSource& storage) {
  switch (storage.from) {
    case From::kTensors: {
      const bool casts = std::any_of(storage.segments.begin(), storage.segments.end(),
                                     [](const Segment& s) { return s.is_cast; });
      return std::min(storage.n_bytes, casts ? kCastPiece : kCopyPiece);
    }
    case From::kWrittenZeros:
      return std::min(storage.n_bytes, kZeroPiece);
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
    if (n < kSmallestHole) {
      waiting_.append(n, '\0');
      return {};
    }
    XD_TRY(flush());
    XD_TRY(object_.zero(offset_, n));
    offset_ += n;
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

// A step of `piece` bytes of a loop over a whole that has `left`: never 0, so that a tiny budget
// cannot stop the loop.
uint64_t step_of(uint64_t left, uint64_t piece) {
  return std::min(left, std::max<uint64_t>(piece, 1));
}

Result<void> stop_if_cancelled(const Host& host) {
  if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
  return {};
}

// In storages of fp32 the values themselves; in those of fp16, which the host has cast, the
// infinities.
uint64_t count_beyond_fp16(std::span<const std::byte> values, manifest::DType dtype) {
  constexpr float kRoundsToInfinity = 65520;
  uint64_t n = 0;
  const auto each = [&]<class T>(T, auto&& is_beyond) {
    for (size_t i = 0; i < values.size(); i += sizeof(T)) {
      T value;
      std::memcpy(&value, values.data() + i, sizeof(T));
      n += is_beyond(value);
    }
  };
  if (dtype == manifest::DType::F32)
    each(float{}, [](float v) { return std::isfinite(v) && std::abs(v) >= kRoundsToInfinity; });
  if (dtype == manifest::DType::F16)
    each(uint16_t{}, [](uint16_t v) { return (v & 0x7fff) == 0x7c00; });
  return n;
}

Result<uint32_t> write_tensors(const Host& host, const StorageSource& storage,
                               std::span<std::byte> buffer, InOrder& out,
                               std::atomic<uint64_t>* beyond_fp16) {
  const uint64_t element = manifest::info(storage.dtype).bits / 8;
  const uint64_t room =
      std::max<uint64_t>(std::min<uint64_t>(buffer.size(), piece_of(storage)) / element, 1);
  uint32_t crc = 0;
  // Small neighbours share a piece, so that a storage of many short segments is not as many writes.
  uint64_t filled = 0;
  const auto write = [&]() -> Result<void> {
    const auto piece = buffer.first(filled * element);
    filled = 0;
    if (beyond_fp16 && storage.is_computed_with)
      *beyond_fp16 += count_beyond_fp16(piece, storage.dtype);
    crc = crc32(piece, crc);
    return out.write(piece);
  };
  for (const Segment& segment : storage.segments) {
    for (uint64_t done = 0; done < segment.count;) {
      if (filled == room) XD_TRY(write());
      XD_TRY(stop_if_cancelled(host));
      const uint64_t n = std::min(segment.count - done, room - filled);
      XD_TRY(read_tensor(host, range_of(storage, segment, done, n),
                         buffer.subspan(filled * element, n * element)));
      filled += n;
      done += n;
    }
    for (uint64_t done = 0; done < segment.pad;) {
      if (filled == room) XD_TRY(write());
      const uint64_t n = std::min(segment.pad - done, room - filled);
      std::memset(buffer.data() + filled * element, 0, n * element);
      filled += n;
      done += n;
    }
  }
  if (filled > 0) XD_TRY(write());
  return crc;
}

Result<uint32_t> write_zeros(const Host& host, const StorageSource& storage,
                             std::span<std::byte> buffer, InOrder& out) {
  if (storage.from == From::kZeros) {
    XD_TRY(out.zeros(storage.n_bytes));
    return crc32_zeros(storage.n_bytes);
  }
  if (!buffer.empty()) std::memset(buffer.data(), 0, buffer.size());
  for (uint64_t done = 0; done < storage.n_bytes;) {
    XD_TRY(stop_if_cancelled(host));
    const uint64_t n = step_of(storage.n_bytes - done, buffer.size());
    XD_TRY(out.write(buffer.first(n)));
    done += n;
  }
  return crc32_zeros(storage.n_bytes);
}

// From the beginning to the end of the last storage. Gives the storages' CRCs.
Result<std::vector<uint32_t>> write_storages(const Host& host, const Content& content, InOrder& out,
                                             std::atomic<uint64_t>* beyond_fp16 = nullptr) {
  // An element is at most 16 bytes; a host that allows no such buffer fails the allocation.
  const uint64_t size = std::min(item_memory(content), std::max<uint64_t>(host.piece_bytes(), 16));
  std::optional<Buffer> buffer;
  if (size > 0) {
    XD_TRY_SET(Buffer made, Buffer::make(host, size));
    buffer.emplace(std::move(made));
  }
  const auto span = buffer ? buffer->span() : std::span<std::byte>();

  out.add(content.file.head());
  std::vector<uint32_t> crcs;
  for (const StorageSource& storage : content.storages) {
    if (!crcs.empty()) out.add(content.file.gap(crcs.size(), crcs.back()));
    XD_TRY_SET(const uint32_t crc, storage.from == From::kTensors
                                       ? write_tensors(host, storage, span, out, beyond_fp16)
                                       : write_zeros(host, storage, span, out));
    crcs.push_back(crc);
  }
  return crcs;
}

Result<std::vector<uint32_t>> parse_results(const Content& content,
                                            std::span<const std::string_view> results) {
  std::vector<uint32_t> crcs;
  if (results.size() == 1) {
    Cursor in(as_bytes(results[0]));
    while (!in.done()) crcs.push_back(in.le<uint32_t>());
    if (!in.failed() && crcs.size() == content.storages.size()) return crcs;
  }
  return Error{XD_INTERNAL,
               cat("expected one item's result of ", 4 * content.storages.size(), " bytes, found ",
                   results.size(), " results",
                   results.empty() ? "" : cat(", the first of ", results[0].size(), " bytes"))};
}

}  // namespace

bool needs_item(const Content& content) {
  return std::any_of(content.storages.begin(), content.storages.end(),
                     [](const StorageSource& storage) { return storage.from != From::kZeros; });
}

std::vector<xd_range> needs(const Content& content) {
  std::vector<xd_range> out;
  for (const StorageSource& storage : content.storages) {
    for (const Segment& segment : storage.segments) {
      if (segment.count > 0 || storage.segments.size() == 1)
        out.push_back(range_of(storage, segment, 0, segment.count));
    }
  }
  return out;
}

uint64_t item_bytes(const Content& content) {
  uint64_t holes = 0;
  for (const StorageSource& storage : content.storages) {
    if (storage.from == From::kZeros && storage.n_bytes >= kSmallestHole) holes += storage.n_bytes;
  }
  return content.file.tail_offset() - holes;
}

uint64_t item_memory(const Content& content) {
  uint64_t out = 0;
  for (const StorageSource& storage : content.storages) out = std::max(out, piece_of(storage));
  return out;
}

Result<std::string> write_item(const Host& host, const Content& content, Object& object,
                               std::atomic<uint64_t>* beyond_fp16) {
  InOrder out(object, 0);
  XD_TRY_SET(const auto crcs, write_storages(host, content, out, beyond_fp16));
  XD_TRY(out.flush());
  std::string result;
  for (const uint32_t crc : crcs) put_le(result, crc);
  return result;
}

Result<void> seal(const Host& host, const Content& content, Object& object,
                  std::span<const std::string_view> results) {
  const bool has_item = needs_item(content);
  InOrder out(object, has_item ? content.file.tail_offset() : 0);
  XD_TRY_SET(const auto crcs,
             has_item ? parse_results(content, results) : write_storages(host, content, out));
  out.add(content.file.tail(crcs));
  return out.flush();
}

}  // namespace crossdock::torch_write
