// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/item_stream.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "plugins/common/crc32.h"

namespace crossdock::common {
namespace {

// When the host casts, what it reads, what it gives and what we count in it then stay in a core's
// second-level cache (256 KiB on the smallest of today's) until they are written.
constexpr uint64_t kCastPiece = 256 << 10;
// When it does not cast, the host reads right into our buffer, and fewer calls count for more.
constexpr uint64_t kCopyPiece = 1 << 20;
// Source values that are looked at again: seldom, so a small buffer will do.
constexpr uint64_t kSourcePiece = 64 << 10;
constexpr uint64_t kLargestElement = 16;

}  // namespace

Unit unit_of(manifest::DType dtype) {
  const uint64_t bits = manifest::info(dtype).bits;
  const uint64_t together = std::lcm(bits, uint64_t{8});
  return {together / bits, together / 8};
}

ItemMemory item_memory(uint64_t n_bytes, bool is_cast, bool may_overflow) {
  return {std::min(n_bytes, is_cast ? kCastPiece : kCopyPiece), may_overflow ? kSourcePiece : 0};
}

Result<ItemStream> ItemStream::make(const Host& host, const manifest::Manifest& model, Object& out,
                                    uint64_t offset, ItemMemory memory) {
  const uint64_t size = std::min(memory.output, std::max(host.piece_bytes(), kLargestElement));
  std::optional<Buffer> buffer;
  if (size > 0) {
    XD_TRY_SET(Buffer made, Buffer::make(host, size));
    buffer.emplace(std::move(made));
  }
  return ItemStream(host, model, out, offset, memory, std::move(buffer));
}

Result<void> ItemStream::write(std::span<const std::byte> bytes) {
  if (bytes.size() > room().size()) XD_TRY(flush());
  if (bytes.size() > room().size()) {
    XD_TRY(out_.write(offset_, bytes));
    offset_ += bytes.size();
    return {};
  }
  if (!bytes.empty()) std::memcpy(room().data(), bytes.data(), bytes.size());
  filled_ += bytes.size();
  return {};
}

Result<void> ItemStream::write(const CastTensor& tensor, uint64_t begin, uint64_t count) {
  return write_tensor(tensor, begin, count, nullptr);
}

Result<uint32_t> ItemStream::write_crc(const CastTensor& tensor, uint64_t begin, uint64_t count) {
  uint32_t crc = 0;
  XD_TRY(write_tensor(tensor, begin, count, &crc));
  return crc;
}

Result<void> ItemStream::write_tensor(const CastTensor& tensor, uint64_t begin, uint64_t count,
                                      uint32_t* crc) {
  const Unit unit = unit_of(tensor.dtype);
  for (uint64_t done = 0; done < count;) {
    const uint64_t fits = room().size() / unit.n_bytes * unit.n_elems;
    if (fits == 0) {
      XD_TRY(flush());
      continue;
    }
    if (host_.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    const uint64_t n = std::min(count - done, fits);
    const auto piece = room().first(n / unit.n_elems * unit.n_bytes);
    XD_TRY(read_tensor(host_, range_of(tensor, begin + done, n), piece));
    if (crc) *crc = crc32(piece, *crc);
    XD_TRY(count_infinite(tensor, begin + done, piece));
    filled_ += piece.size();
    done += n;
  }
  return {};
}

Result<void> ItemStream::count_infinite(const CastTensor& tensor, uint64_t begin,
                                        std::span<const std::byte> written) {
  if (!tensor.may_overflow) return {};
  XD_TRY_SET(const Overflow found,
             count_overflow(host_, model_, tensor, begin, written, memory_.source));
  if (found.n_values > 0) overflow_.add(found);
  return {};
}

Result<void> ItemStream::flush() {
  if (filled_ == 0) return {};
  XD_TRY(out_.write(offset_, buffer_->span().first(filled_)));
  offset_ += filled_;
  filled_ = 0;
  return {};
}

}  // namespace crossdock::common
