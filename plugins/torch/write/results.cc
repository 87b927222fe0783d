// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/write/results.h"

#include <crossdock/bytes.hpp>

#include "plugins/common/crc32.h"

namespace crossdock::torch_write {
namespace {

void put_varint(std::string& out, uint64_t n) {
  for (; n >= 0x80; n >>= 7) out += static_cast<char>(n | 0x80);
  out += static_cast<char>(n);
}

Error unexpected(uint64_t storage, uint64_t byte, const std::string& found) {
  return {XD_INTERNAL, cat("expected items' results to go on at byte ", byte, " of storage ",
                           storage, ", found ", found)};
}

}  // namespace

std::string ItemResult::encode() const {
  std::string out;
  put_varint(out, n_beyond_fp16);
  for (const WrittenPart& part : parts) {
    put_varint(out, part.storage);
    put_varint(out, part.begin);
    put_varint(out, part.n_bytes);
    put_le(out, part.crc);
  }
  return out;
}

Result<ItemResult> ItemResult::decode(std::string_view bytes) {
  ItemResult out;
  Cursor in(as_bytes(bytes));
  out.n_beyond_fp16 = in.varint();
  while (!in.done()) {
    WrittenPart& part = out.parts.emplace_back();
    part.storage = in.varint();
    part.begin = in.varint();
    part.n_bytes = in.varint();
    part.crc = in.le<uint32_t>();
  }
  if (!in.failed()) return out;
  return Error{XD_INTERNAL,
               cat("expected an item's result, found ", bytes.size(), " bytes that are none")};
}

Result<ItemResult> joined(std::span<const std::string_view> results) {
  ItemResult out;
  for (const std::string_view bytes : results) {
    XD_TRY_SET(const ItemResult one, ItemResult::decode(bytes));
    out.n_beyond_fp16 += one.n_beyond_fp16;
    out.parts.insert(out.parts.end(), one.parts.begin(), one.parts.end());
  }
  return out;
}

Result<std::vector<WrittenStorage>> join_parts(std::span<const WrittenPart> parts,
                                               std::span<const uint64_t> sizes) {
  std::vector<WrittenStorage> out;
  out.reserve(sizes.size());
  uint64_t at = 0;  // in storage out.size()
  uint32_t crc = 0;
  for (const WrittenPart& part : parts) {
    const bool follows = out.size() < sizes.size() && part.storage == out.size() &&
                         part.begin == at && part.n_bytes <= sizes[out.size()] - at;
    if (!follows)
      return unexpected(out.size(), at,
                        cat(part.n_bytes, " bytes at ", part.begin, " of storage ", part.storage));
    crc = at == 0 ? part.crc : common::crc32_join(crc, part.crc, part.n_bytes);
    at += part.n_bytes;
    if (at < sizes[out.size()]) continue;
    out.push_back({crc, part.begin == 0});
    at = 0;
  }
  if (out.size() < sizes.size()) return unexpected(out.size(), at, "their end");
  return out;
}

}  // namespace crossdock::torch_write
