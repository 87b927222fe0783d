// SPDX-License-Identifier: Apache-2.0

// Reads the elements of a view, in its order, from where the elements below it can be read in
// theirs: those of a stored tensor, or of an expression.
#pragma once

#include "core/transform/view.h"

#include <functional>
#include <span>

namespace crossdock::transform {

// Runs of elements below the view: `count` of one length, whose first elements are `begin` and each
// `stride` further.
struct Runs {
  uint64_t begin = 0;
  uint64_t count = 1, stride = 0;
};

// Fills `out` with runs, one after the other.
using ReadBelow = std::function<Result<void>(const Runs& runs, std::span<std::byte> out)>;

// To read so many bytes of a file, which nobody wants, costs about as much as another call.
inline constexpr uint64_t kCallBytes = 4 << 10;

// Fills `out` with the elements [begin, begin + out.size() / elem_bytes) of the enumeration that
// `factors` (as View::factors) make from the element `offset` on. `elem_bytes` is 1, 2, 4, 8 or 16.
// `scratch` is room to read more than is wanted at once and pick from it; it holds an element at
// least, and the more it holds the fewer reads a transposed tensor takes. Runs of elements that lie
// alike on both sides are read straight into `out`. `call_bytes` is what kCallBytes is of a file.
// [any]
Result<void> gather(std::span<const Factor> factors, uint64_t offset, uint64_t elem_bytes,
                    uint64_t begin, std::span<std::byte> out, std::span<std::byte> scratch,
                    const ReadBelow& read, uint64_t call_bytes = kCallBytes);

}  // namespace crossdock::transform
