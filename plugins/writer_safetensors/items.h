// SPDX-License-Identifier: Apache-2.0

// How a file's data is cut into items of work, and what an item gives back to seal.
//
// Edges lie between tensors where they can, so that most are read whole by one item; only a tensor
// that is larger than an item is cut inside. The cut follows from the file alone: every call and
// every process makes the same one. Pure functions, any thread.
#pragma once

#include <crossdock/plugin.hpp>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/common/item_stream.h"
#include "plugins/writer_safetensors/layout.h"

namespace crossdock::writer_safetensors {

// Bytes of output of one item: a few for every thread of a large file, and enough that starting one
// costs nothing.
inline constexpr uint64_t kMaxItemBytes = 256 << 20;

// Elements [begin, begin + count) of a file's tensor.
struct Part {
  size_t tensor = 0;  // in File::tensors
  uint64_t begin = 0, count = 0;
};

struct Item {
  bool is_first = false;
  std::vector<Part> parts;          // one behind the other in the file
  uint64_t begin = 0, n_bytes = 0;  // in the file's data
};

// At least one item where there is a tensor. `max_bytes`: 1 or more.
std::vector<Item> cut(const File& file, uint64_t max_bytes = kMaxItemBytes);

// The most that an item allocates.
common::ItemMemory memory_of(const File& file, const Item& item);

Result<void> plan_items(Plan& plan, uint32_t object, const File& file);

// An item's result; empty for none.
std::string encode(const common::Overflow& overflow);
// Of all items, in their order. XD_INTERNAL for what encode() did not give.
Result<common::Overflow> joined(std::span<const std::string_view> results);

}  // namespace crossdock::writer_safetensors
