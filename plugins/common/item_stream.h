// SPDX-License-Identifier: Apache-2.0

// What an item writes into its object, from one offset on: texts and tensors, one behind the other
// through one buffer, so that many small ones are not as many writes. For one item, on one thread.
//
//   XD_TRY_SET(auto stream, ItemStream::make(host, model, object, offset, memory));
//   XD_TRY(stream.write(header));
//   XD_TRY_SET(const uint32_t crc, stream.write_crc(tensor, 0, tensor.n_elems));
//   XD_TRY(stream.flush());
#pragma once

#include "plugins/common/float_cast.h"

#include <optional>

namespace crossdock::common {

// The fewest elements that fill whole bytes.
struct Unit {
  uint64_t n_elems = 1, n_bytes = 1;
};
Unit unit_of(manifest::DType dtype);

// The most that an item allocates: a buffer for its output, and one for source values.
struct ItemMemory {
  uint64_t output = 0, source = 0;

  uint64_t sum() const { return output + source; }
};
// Of an item with so many bytes of output, of whose tensors some are cast, or may overflow.
ItemMemory item_memory(uint64_t n_bytes, bool is_cast, bool may_overflow);

class ItemStream {
 public:
  static Result<ItemStream> make(const Host& host, const manifest::Manifest& model, Object& out,
                                 uint64_t offset, ItemMemory memory);

  Result<void> write(std::span<const std::byte> bytes);
  // Elements [begin, begin + count) of a tensor, which are whole units.
  Result<void> write(const CastTensor& tensor, uint64_t begin, uint64_t count);
  // The same, and the CRC of their bytes.
  Result<uint32_t> write_crc(const CastTensor& tensor, uint64_t begin, uint64_t count);
  // Counts what became infinite of a tensor's elements from `begin` on, of which these bytes are
  // written.
  Result<void> count_infinite(const CastTensor& tensor, uint64_t begin,
                              std::span<const std::byte> written);
  // Last: what is still in the buffer.
  Result<void> flush();

  const Overflow& overflow() const { return overflow_; }

 private:
  ItemStream(const Host& host, const manifest::Manifest& model, Object& out, uint64_t offset,
             ItemMemory memory, std::optional<Buffer> buffer)
      : host_(host),
        model_(model),
        out_(out),
        offset_(offset),
        memory_(memory),
        buffer_(std::move(buffer)) {}

  Result<void> write_tensor(const CastTensor& tensor, uint64_t begin, uint64_t count,
                            uint32_t* crc);
  std::span<std::byte> room() const {
    return buffer_ ? buffer_->span().subspan(filled_) : std::span<std::byte>();
  }

  const Host& host_;
  const manifest::Manifest& model_;
  Object& out_;
  uint64_t offset_;  // where the buffer goes in the object
  ItemMemory memory_;
  std::optional<Buffer> buffer_;
  uint64_t filled_ = 0;
  Overflow overflow_;
};

}  // namespace crossdock::common
