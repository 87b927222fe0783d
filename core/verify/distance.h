// SPDX-License-Identifier: Apache-2.0

// How far apart the values of two tensors are.
//
// They are compared as numbers, in double. Two that are equal bit for bit in one type are the same,
// NaN too; -0 and 0 are equal numbers with other bits, and so they differ by 0. The distance in
// *ulp* is counted in the coarser of the two types, the one with fewer bits of mantissa: both
// values are rounded to it, and it is how many steps from one representable value to the next lie
// between them. It is told of BF16, F16, F32 and F64.
#pragma once

#include <crossdock/dtype.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace crossdock::verify {

struct Distance {
  uint64_t n_differ = 0;  // elements
  uint64_t n_nan[2] = {0, 0};
  double max_abs = 0;  // infinity where one is not finite and the other is another
  std::optional<uint64_t> max_ulp;
  uint64_t first = 0;      // the first element that differs
  std::string first_text;  // "A 1.5, B 1.25"

  void add(const Distance& other);  // of other elements of the same tensors
};

// Takes ranges of two tensors' values, one after the other. [one thread]
class DistanceMeter {
 public:
  // Types that are the same, or both of numbers (elements.h).
  DistanceMeter(manifest::DType a, manifest::DType b);

  // Adds what differs among n elements, of which the first is element `begin` of its tensor.
  void compare(const std::byte* a, const std::byte* b, uint64_t begin, uint64_t n, Distance& out);

 private:
  static constexpr size_t kFewElems = 2048;  // that are numbers at once, in cache
  void compare_numbers(const std::byte* a, const std::byte* b, uint64_t begin, uint64_t at,
                       size_t few, Distance& out);
  void compare_bits(const std::byte* a, const std::byte* b, uint64_t begin, uint64_t bad,
                    uint64_t n, Distance& out) const;
  bool same_bits(const std::byte* a, const std::byte* b, uint64_t k) const;
  // Counts element k as one that differs.
  void add(const std::byte* a, const std::byte* b, uint64_t begin, uint64_t k, Distance& out) const;

  const std::array<manifest::DType, 2> dtypes_;
  const std::optional<manifest::DType> coarser_;
  std::array<double, kFewElems> a_, b_;
  std::array<std::byte, 8 * kFewElems> coarse_a_, coarse_b_;  // the same in the coarser type
};

// The coarser of two types that ulps are counted in; nothing for others.
std::optional<manifest::DType> coarser(manifest::DType a, manifest::DType b);
// Steps between two numbers that are no NaN, in such a type.
uint64_t ulp_distance(manifest::DType dtype, double a, double b);

}  // namespace crossdock::verify
