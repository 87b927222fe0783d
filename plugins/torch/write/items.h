// SPDX-License-Identifier: Apache-2.0

// How a Content is cut into items of work: runs of parts of its storages, one behind the other.
//
// Edges lie between storages or segments where they can, so that most tensors are read whole by one
// item; only a segment (or a run of written zeros) that is larger than an item is cut inside. The
// cut follows from the content alone: every call and every process makes the same one. Pure
// functions, any thread.
#pragma once

#include <crossdock/plugin.hpp>

#include <vector>

#include "plugins/torch/write/content.h"

namespace crossdock::torch_write {

// Bytes of output of one item: a few for every thread of a large file, and enough that starting one
// costs nothing.
inline constexpr uint64_t kMaxItemBytes = 256 << 20;

// Bytes [begin, end) of a storage.
struct Part {
  size_t storage = 0;
  uint64_t begin = 0, end = 0;
  std::vector<Segment> segments;  // of kTensors: where they come from
};

struct Item {
  std::vector<Part> parts;  // one of each storage; none only where the content has none
  bool is_first = false;    // it writes what stands before the first storage
};

// At least one item. A hole costs nothing, so it is never cut.
std::vector<Item> cut(const Content& content, uint64_t max_bytes = kMaxItemBytes);

// Whether anything must be written before the file is sealed. Contents of holes and small zeros are
// written by seal alone.
bool needs_item(const Content& content);

// The most that writing an item allocates.
uint64_t item_memory(const Content& content, const Item& item);

// All items of the object, as cut() has them; none when the content needs none.
Result<void> plan_items(Plan& plan, uint32_t object, const Content& content,
                        uint64_t max_bytes = kMaxItemBytes);

// ---- for the writing of items
// Zeros below a file system's block are no hole: they go out with the bytes around them.
inline constexpr uint64_t kMinHoleBytes = 4096;

// Where in the file the item begins.
uint64_t begin_of(const Content& content, const Item& item);
// Bytes of output at a time.
uint64_t piece_of(const StorageSource& storage, const Part& part);
xd_range range_of(const StorageSource& storage, const Segment& segment, uint64_t begin,
                  uint64_t count);

}  // namespace crossdock::torch_write
