// SPDX-License-Identifier: Apache-2.0

// Evaluates a node of codes by ranges: rows of codes, and what belongs to them of zeros and scales,
// are read ahead into scratch and become values in pieces that stay in the processor's caches.
#pragma once

#include "core/transform/expression.h"

#include <array>
#include <functional>
#include <span>

namespace crossdock::transform {

// What was read of each operand, and where: kept between calls for ranges that follow each other,
// as the rows of a transposed tensor do, so that each code is read once. Belongs to one evaluation.
struct ReadAhead {
  struct Window {
    std::span<std::byte> room;
    uint64_t begin = 0, count = 0;  // elements in it
    uint64_t asked = UINT64_MAX;    // the end of what was asked for last
  };
  std::array<Window, 4> windows;  // of codes, zeros, scales, groups

  // Divides `scratch` among the operands.
  ReadAhead(const Node::Dequantised& node, std::span<std::byte> scratch);
};

// Fills `out` with elements of node `child` from `begin` on.
using ReadChild =
    std::function<Result<void>(uint32_t child, uint64_t begin, std::span<std::byte> out)>;

// Fills `out` with runs of the values of `node`, one of `nodes`.
Result<void> dequantise(std::span<const Node> nodes, const Node& node, const Runs& runs,
                        std::span<std::byte> out, ReadAhead& ahead, const ReadChild& read);

}  // namespace crossdock::transform
