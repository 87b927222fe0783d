// SPDX-License-Identifier: Apache-2.0

// A tensor that lies in boxes of itself, each somewhere in a file: dense and row-major, or with
// strides. Pure but for the reads; any thread.
#pragma once

#include <crossdock/plugin.hpp>

#include <functional>
#include <span>
#include <vector>

namespace crossdock::common {

struct Box {
  std::vector<uint64_t> offsets, sizes;  // as many as the tensor has dimensions; no size is 0
  uint32_t file = 0;
  uint64_t data = 0;                   // its first byte in the file
  std::vector<uint64_t> strides = {};  // in the file, in elements; empty where it is dense
};

// How many pairs of boxes may be compared, in all that one checkpoint has: a grid of boxes needs
// few.
inline constexpr uint64_t kMaxPairs = 1 << 26;

// That the boxes are the tensor: they lie inside it, side by side, and leave nothing out. Takes
// what it compares from `pairs`.
Result<void> check_tiling(std::span<const uint64_t> shape, std::span<const Box> boxes,
                          uint64_t& pairs);

// Reads bytes of a file.
using ReadFile =
    std::function<Result<void>(uint32_t file, uint64_t offset, std::span<std::byte> out)>;

// Elements [begin, begin + count) of a tensor that its boxes tile; `out` is as large as they are.
Result<void> read_boxes(std::span<const uint64_t> shape, std::span<const Box> boxes,
                        uint64_t elem_bytes, uint64_t begin, uint64_t count,
                        std::span<std::byte> out, const ReadFile& read);

}  // namespace crossdock::common
