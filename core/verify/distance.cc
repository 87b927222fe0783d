// SPDX-License-Identifier: Apache-2.0
#include "core/verify/distance.h"

#include "core/transform/cast.h"
#include "core/verify/elements.h"

#include <crossdock/result.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace crossdock::verify {

using manifest::DType;

namespace {

// Of a type that ulps are counted in; 0 for others.
unsigned mantissa_bits(DType dtype) {
  switch (dtype) {
    case DType::BF16:
      return 7;
    case DType::F16:
      return 10;
    case DType::F32:
      return 23;
    case DType::F64:
      return 52;
    default:
      return 0;
  }
}

// The place of a value among all of its type, in order; both zeros are 0.
template <class Bits>
int64_t place_of(const std::byte* bytes) {
  Bits bits;
  std::memcpy(&bits, bytes, sizeof bits);
  constexpr Bits kSign = Bits{1} << (8 * sizeof(Bits) - 1);
  const auto size = static_cast<int64_t>(bits & ~kSign);
  return bits & kSign ? -size : size;
}

// Of element i of some that lie one after the other.
int64_t place_of(DType dtype, const std::byte* values, size_t i) {
  switch (dtype) {
    case DType::F64:
      return place_of<uint64_t>(values + 8 * i);
    case DType::F32:
      return place_of<uint32_t>(values + 4 * i);
    default:
      return place_of<uint16_t>(values + 2 * i);
  }
}

uint64_t steps_between(DType dtype, const std::byte* a, const std::byte* b, size_t i) {
  const int64_t x = place_of(dtype, a, i), y = place_of(dtype, b, i);
  return x > y ? static_cast<uint64_t>(x) - static_cast<uint64_t>(y)
               : static_cast<uint64_t>(y) - static_cast<uint64_t>(x);
}

void round_to(DType dtype, std::span<const double> values, std::byte* to) {
  transform::find_cast(DType::F64, dtype)(reinterpret_cast<const std::byte*>(values.data()), to,
                                          values.size());
}

bool same_numbers(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

}  // namespace

void Distance::add(const Distance& other) {
  if (other.n_differ > 0 && (n_differ == 0 || other.first < first)) {
    first = other.first;
    first_text = other.first_text;
  }
  n_differ += other.n_differ;
  for (const int i : {0, 1}) n_nan[i] += other.n_nan[i];
  max_abs = std::max(max_abs, other.max_abs);
  if (other.max_ulp) max_ulp = std::max(max_ulp.value_or(0), *other.max_ulp);
}

DistanceMeter::DistanceMeter(DType a, DType b) : dtypes_{a, b}, coarser_(coarser(a, b)) {}

void DistanceMeter::compare(const std::byte* a, const std::byte* b, uint64_t begin, uint64_t n,
                            Distance& out) {
  const bool one_type = dtypes_[0] == dtypes_[1];
  const uint64_t bad = one_type ? first_difference(dtypes_[0], a, b, n) : 0;
  if (!is_number(dtypes_[0])) return compare_bits(a, b, begin, bad, n, out);
  for (uint64_t at = 0; at < n; at += kFewElems) {
    const auto few = static_cast<size_t>(std::min<uint64_t>(kFewElems, n - at));
    const auto count_nan = [few](const std::array<double, kFewElems>& values) {
      return static_cast<uint64_t>(std::count_if(values.begin(),
                                                 values.begin() + static_cast<std::ptrdiff_t>(few),
                                                 [](double x) { return std::isnan(x); }));
    };
    to_doubles(dtypes_[0], a, at, {a_.data(), few});
    const uint64_t n_nan = count_nan(a_);
    out.n_nan[0] += n_nan;
    if (one_type && at + few <= bad) {  // equal, and may be NaN all the same
      out.n_nan[1] += n_nan;
      continue;
    }
    to_doubles(dtypes_[1], b, at, {b_.data(), few});
    out.n_nan[1] += count_nan(b_);
    compare_numbers(a, b, begin, at, few, out);
  }
}

// Of elements [at, at + few), which are in a_ and b_.
void DistanceMeter::compare_numbers(const std::byte* a, const std::byte* b, uint64_t begin,
                                    uint64_t at, size_t few, Distance& out) {
  const bool one_type = dtypes_[0] == dtypes_[1];
  if (coarser_) {
    round_to(*coarser_, {a_.data(), few}, coarse_a_.data());
    round_to(*coarser_, {b_.data(), few}, coarse_b_.data());
  }
  for (size_t i = 0; i < few; ++i) {
    const double x = a_[i], y = b_[i];
    if (one_type ? same_bits(a, b, at + i) : same_numbers(x, y)) continue;
    add(a, b, begin, at + i, out);
    if (std::isnan(x) || std::isnan(y)) {
      out.max_abs = std::numeric_limits<double>::infinity();
      continue;
    }
    out.max_abs = std::max(out.max_abs, x == y ? 0 : std::abs(x - y));
    if (coarser_)
      out.max_ulp = std::max(out.max_ulp.value_or(0),
                             steps_between(*coarser_, coarse_a_.data(), coarse_b_.data(), i));
  }
}

bool DistanceMeter::same_bits(const std::byte* a, const std::byte* b, uint64_t k) const {
  const uint64_t bits = manifest::info(dtypes_[0]).bits;
  if (bits % 8 != 0)
    return first_difference(dtypes_[0], a + k / 8 * bits, b + k / 8 * bits, k % 8 + 1) > k % 8;
  return std::memcmp(a + k * bits / 8, b + k * bits / 8, bits / 8) == 0;
}

void DistanceMeter::compare_bits(const std::byte* a, const std::byte* b, uint64_t begin,
                                 uint64_t bad, uint64_t n, Distance& out) const {
  for (uint64_t k = bad; k < n; ++k) {
    if (!same_bits(a, b, k)) add(a, b, begin, k, out);
  }
}

void DistanceMeter::add(const std::byte* a, const std::byte* b, uint64_t begin, uint64_t k,
                        Distance& out) const {
  if (out.n_differ++ > 0 && begin + k > out.first) return;
  out.first = begin + k;
  out.first_text =
      cat("A ", element_text(dtypes_[0], a, k), ", B ", element_text(dtypes_[1], b, k));
}

std::optional<DType> coarser(DType a, DType b) {
  const unsigned of_a = mantissa_bits(a), of_b = mantissa_bits(b);
  if (of_a == 0 || of_b == 0) return std::nullopt;
  return of_a < of_b ? a : b;
}

uint64_t ulp_distance(DType dtype, double a, double b) {
  std::array<std::byte, 8> x{}, y{};
  round_to(dtype, {&a, 1}, x.data());
  round_to(dtype, {&b, 1}, y.data());
  return steps_between(dtype, x.data(), y.data(), 0);
}

}  // namespace crossdock::verify
