// SPDX-License-Identifier: Apache-2.0

// What an item of a torch file gives back to the host, and what seal makes of all of them: so
// nothing of a run lives in the writer between its items, which any thread or process may have
// written, in any order.
//
// As bytes: varints of the values that were counted and, for each part, of its storage, first byte
// and length, each followed by the CRC's four bytes. That of a file with one storage fits where
// std::string needs no memory of its own: a checkpoint may have 100,000 such files.
#pragma once

#include <crossdock/result.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::torch_write {

struct WrittenPart {
  uint64_t storage = 0;
  uint64_t begin = 0, n_bytes = 0;  // in the storage
  uint32_t crc = 0;                 // of these bytes

  bool operator==(const WrittenPart&) const = default;
};

struct ItemResult {
  uint64_t n_beyond_fp16 = 0;  // in the storages that count them
  std::vector<WrittenPart> parts;

  std::string encode() const;
  // XD_INTERNAL for other bytes: only the host lies between encode() and this.
  static Result<ItemResult> decode(std::string_view bytes);
};

// Of all items, in their order.
Result<ItemResult> joined(std::span<const std::string_view> results);

struct WrittenStorage {
  uint32_t crc = 0;
  bool is_whole = false;  // one part was all of it
};

// The storages with these sizes, of parts that are in the storages' order. XD_INTERNAL when one is
// missing or is there twice.
Result<std::vector<WrittenStorage>> join_parts(std::span<const WrittenPart> parts,
                                               std::span<const uint64_t> sizes);

}  // namespace crossdock::torch_write
