// SPDX-License-Identifier: Apache-2.0

// How ZeRO cuts a group of parameters over the ranks: numbers only. FORMAT.md has the facts.
#pragma once

#include <crossdock/result.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace crossdock::deepspeed {

// Elements [offset, offset + count) of what a rank holds of the group.
struct Piece {
  uint64_t rank, offset, count;
  bool operator==(const Piece&) const = default;
};
using Pieces = std::vector<Piece>;  // of one parameter, in its order; none is empty

// Elements of all of them; an error when they are more than any model has.
Result<uint64_t> sum_of(std::span<const uint64_t> sizes);

// Stage 3: each parameter is cut by itself, into n_ranks parts of ceil(size / n_ranks) elements.
// `sizes`: elements of the group's parameters, as sum_of takes them.
std::vector<Pieces> cut_each(std::span<const uint64_t> sizes, uint64_t n_ranks);
// What each rank then holds.
uint64_t elements_of_rank(std::span<const uint64_t> sizes, uint64_t n_ranks);

// Stages 1 and 2: the group is one row, which the ranks hold in turn. `gaps`: elements behind each
// parameter that are none; empty where there are none. `held`: elements that each rank holds,
// padding at the end of the row left out or not. An error unless that is the row.
Result<std::vector<Pieces>> cut_row(std::span<const uint64_t> sizes, std::span<const uint64_t> gaps,
                                    std::span<const uint64_t> held);

}  // namespace crossdock::deepspeed
