// SPDX-License-Identifier: Apache-2.0

// How the shares that tensor-parallel ranks have of a parameter make the whole one: numbers only.
// The rules are those of DeepSpeed's ds_to_universal.py (merge_tp_slices); FORMAT.md has them.
#pragma once

#include "plugins/reader_zero/universal_info.h"

#include <span>

namespace crossdock::reader_zero {

using Shape = std::vector<uint64_t>;

// A box of the whole parameter that a rank holds.
struct Held {
  uint64_t rank = 0;
  Shape offsets, sizes;  // in the whole
  Shape in_share;        // offsets in the rank's share
};

struct Sharing {
  Shape shape;                // of the whole
  std::vector<Shape> shares;  // of each rank, as the boxes count in them
  // None is empty. Ranks may hold the same box: then the first one counts, and the others must have
  // the same values.
  std::vector<Held> boxes;
  bool is_average = false;  // the whole is the mean of what the ranks hold
};

// `shares`: the shape of each rank's; a rank without any has the shape [0]. Errors: the info does
// not fit them, or tells of nothing that can be merged. Takes from `pairs` as common::check_tiling.
Result<Sharing> sharing_of(const UniversalInfo& info, std::string_view name,
                           std::span<const Shape> shares, uint64_t& pairs);

}  // namespace crossdock::reader_zero
