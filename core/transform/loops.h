// SPDX-License-Identifier: Apache-2.0

// What is done with n values that codes have become. Each operation rounds once, in this order: the
// file is compiled with -fno-trapping-math and without fused operations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace crossdock::transform {

// One number for each `block` of values, for the first only those that are `left` of it.
struct Blocks {
  const float* values;
  uint64_t left = 1, block = 1;
};
void subtract(float* values, const Blocks& by, size_t n);
void multiply(float* values, const Blocks& by, size_t n);
void divide(float* values, const Blocks& by, size_t n);
// To what bfloat16 holds, as casting there and back does.
void round_to_bf16(float* values, size_t n);

// Puts down of each of n groups, which are int32, its element of `from`: 2 or 4 bytes. Nothing, but
// a group that is none of `n_groups`, if there is any.
std::optional<int32_t> pick(const std::byte* groups, const std::byte* from, size_t elem_bytes,
                            uint64_t n_groups, std::byte* out, size_t n);

}  // namespace crossdock::transform
