// SPDX-License-Identifier: Apache-2.0

// A matrix turned over: its columns become rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace crossdock::transform {

// Writes `rows` rows of `columns` elements, of 1, 2, 4, 8 or 16 bytes; row r is column r of `from`.
// The strides are from one row to the next, in elements. [any]
void turn(const std::byte* from, uint64_t from_stride, std::byte* to, uint64_t to_stride,
          uint64_t rows, uint64_t columns, uint64_t elem_bytes);

}  // namespace crossdock::transform
