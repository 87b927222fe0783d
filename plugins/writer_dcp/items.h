// SPDX-License-Identifier: Apache-2.0

// How a shard is cut into items of work, and what an item gives back to seal.
//
// An item is a run of whole archives, or a part of the data of one that is larger than an item; of
// such a one the first part writes what stands before the data, and seal what stands behind it,
// which needs the CRC of all. The cut follows from the shard alone: every call and every process
// makes the same one. Pure functions, any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/common/item_stream.h"
#include "plugins/writer_dcp/layout.h"

namespace crossdock::writer_dcp {

// Bytes of output of one item: a few for every thread of a large file, and enough that starting one
// costs nothing.
inline constexpr uint64_t kMaxItemBytes = 256 << 20;

struct Item {
  size_t first_chunk = 0, n_chunks = 0;  // in Shard::chunks
  // Elements of the chunk, where it is the only one: it may be a part.
  uint64_t begin = 0, count = 0;
  bool is_part = false;
  uint64_t offset = 0, n_bytes = 0;  // in the file
};

std::vector<Item> cut(const Layout& layout, const Shard& shard, uint64_t max_bytes = kMaxItemBytes);

Result<void> plan_items(Plan& plan, uint32_t object, const Layout& layout, const Shard& shard,
                        uint64_t max_bytes = kMaxItemBytes);

// The most that an item allocates, but for heads (heads.h).
common::ItemMemory memory_of(const Layout& layout, const Shard& shard, const Item& item);

struct ItemResult {
  common::Overflow overflow;
  // Of a part: the CRC of its data, and how many bytes they are.
  uint32_t crc = 0;
  uint64_t n_bytes = 0;

  std::string encode() const;
  // XD_INTERNAL for what encode() did not give.
  static Result<ItemResult> decode(std::string_view bytes);
};

// Writes an item.
Result<ItemResult> write_item(const Host& host, const manifest::Manifest& model,
                              const Layout& layout, const Shard& shard, const Item& item,
                              Object& out);

// Writes what items could not, from their results; gives what became infinite in all of them.
Result<common::Overflow> seal(const Layout& layout, const Shard& shard, Object& out,
                              std::span<const std::string_view> results,
                              uint64_t max_bytes = kMaxItemBytes);

}  // namespace crossdock::writer_dcp
