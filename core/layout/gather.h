// Reads the elements of a view, in its order, from where the stored tensor's elements can be read
// in theirs.
#pragma once

#include "core/layout/view.h"

#include <functional>
#include <span>
#include <vector>

namespace crossdock::layout {

// Fills `out` with the stored elements [begin, begin + out.size() / elem_bytes), dense and in
// order.
using ReadStored = std::function<Result<void>(uint64_t begin, std::span<std::byte> out)>;

// Fills `out` with the elements [begin, begin + out.size() / elem_bytes) of the enumeration that
// `factors` (as View::factors) make from the stored element `offset` on. `scratch` is room to read
// more than is wanted at once and pick from it; it holds an element at least, and the more it holds
// the fewer reads a transposed tensor takes.
Result<void> gather(std::span<const Factor> factors, uint64_t offset, uint64_t elem_bytes,
                    uint64_t begin, std::span<std::byte> out, std::span<std::byte> scratch,
                    const ReadStored& read);

}  // namespace crossdock::layout
