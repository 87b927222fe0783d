// SPDX-License-Identifier: Apache-2.0
#include "core/transform/loops.h"

#include "core/transform/processor.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace crossdock::transform {

namespace {

template <class Change>
[[gnu::always_inline]] inline void each(float* values, const Blocks& by, size_t n, Change change) {
  const float* number = by.values;
  if (by.block == 1) {
    for (size_t i = 0; i < n; ++i) values[i] = change(values[i], number[i]);
    return;
  }
  for (uint64_t left = by.left; n > 0; left = by.block, ++number) {
    const auto some = static_cast<size_t>(std::min<uint64_t>(left, n));
    const float all = *number;
    for (size_t i = 0; i < some; ++i) values[i] = change(values[i], all);
    values += some;
    n -= some;
  }
}
constexpr auto kSubtract = [](float a, float b) { return a - b; };
constexpr auto kMultiply = [](float a, float b) { return a * b; };
constexpr auto kDivide = [](float a, float b) { return a / b; };

template <auto Change>
XD_FAST void each_fast(float* values, const Blocks& by, size_t n) {
  each(values, by, n, Change);
}
template <auto Change>
void either(float* values, const Blocks& by, size_t n) {
  is_fast() ? each_fast<Change>(values, by, n) : each(values, by, n, Change);
}

[[gnu::always_inline]] inline void round_all(float* values, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(values[i]);
    const bool is_nan = (bits & 0x7FFFFFFF) > 0x7F800000;
    const uint32_t rounded = is_nan ? bits | 0x400000 : bits + 0x7FFF + (bits >> 16 & 1);
    values[i] = std::bit_cast<float>(rounded & 0xFFFF0000);
  }
}
XD_FAST void round_fast(float* values, size_t n) { round_all(values, n); }

template <class T>
[[gnu::always_inline]] inline void pick_all(const std::byte* groups, const std::byte* from,
                                            std::byte* out, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    int32_t group;
    std::memcpy(&group, groups + i * sizeof group, sizeof group);
    std::memcpy(out + i * sizeof(T), from + static_cast<uint32_t>(group) * sizeof(T), sizeof(T));
  }
}

[[gnu::always_inline]] inline uint32_t largest(const std::byte* numbers, size_t n) {
  uint32_t out = 0;
  for (size_t i = 0; i < n; ++i) {
    uint32_t number;
    std::memcpy(&number, numbers + i * sizeof number, sizeof number);
    out = std::max(out, number);
  }
  return out;
}
XD_FAST uint32_t largest_fast(const std::byte* numbers, size_t n) { return largest(numbers, n); }

}  // namespace

void subtract(float* values, const Blocks& by, size_t n) { either<kSubtract>(values, by, n); }
void multiply(float* values, const Blocks& by, size_t n) { either<kMultiply>(values, by, n); }
void divide(float* values, const Blocks& by, size_t n) { either<kDivide>(values, by, n); }

void round_to_bf16(float* values, size_t n) {
  is_fast() ? round_fast(values, n) : round_all(values, n);
}

std::optional<int32_t> pick(const std::byte* groups, const std::byte* from, size_t elem_bytes,
                            uint64_t n_groups, std::byte* out, size_t n) {
  // One that is below 0 is a large one without its sign.
  const uint32_t most = is_fast() ? largest_fast(groups, n) : largest(groups, n);
  if (n > 0 && most >= n_groups) return static_cast<int32_t>(most);
  elem_bytes == 2 ? pick_all<uint16_t>(groups, from, out, n)
                  : pick_all<uint32_t>(groups, from, out, n);
  return std::nullopt;
}

}  // namespace crossdock::transform
