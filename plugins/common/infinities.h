// SPDX-License-Identifier: Apache-2.0

// How many floating-point values are infinite: what a writer that narrows them must know.
#pragma once

#include <crossdock/dtype.hpp>

#include <algorithm>
#include <cstring>
#include <span>

namespace crossdock::common {

namespace detail {
// Counts in numbers as narrow as the values, which the compiler adds up many at a time; a block is
// too short for these to overflow.
template <class Bits>
uint64_t count_equal(std::span<const std::byte> values, Bits mask, Bits wanted) {
  constexpr size_t kBlock = 32768;  // elements
  uint64_t n = 0;
  for (size_t begin = 0; begin < values.size(); begin += kBlock * sizeof(Bits)) {
    const auto block =
        values.subspan(begin, std::min(kBlock * sizeof(Bits), values.size() - begin));
    Bits found = 0;
    for (size_t i = 0; i + sizeof(Bits) <= block.size(); i += sizeof(Bits)) {
      Bits value;
      std::memcpy(&value, block.data() + i, sizeof(Bits));
      found = static_cast<Bits>(found + ((value & mask) == wanted));
    }
    n += found;
  }
  return n;
}
}  // namespace detail

// Of F16, BF16, F32 and F64; 0 for other types, which have none or are never narrowed.
inline uint64_t count_infinities(std::span<const std::byte> values, manifest::DType dtype) {
  using manifest::DType;
  switch (dtype) {
    case DType::F16:
      return detail::count_equal<uint16_t>(values, 0x7fff, 0x7c00);
    case DType::BF16:
      return detail::count_equal<uint16_t>(values, 0x7fff, 0x7f80);
    case DType::F32:
      return detail::count_equal<uint32_t>(values, 0x7fffffff, 0x7f800000);
    case DType::F64:
      return detail::count_equal<uint64_t>(values, 0x7fffffffffffffff, 0x7ff0000000000000);
    default:
      return 0;
  }
}

}  // namespace crossdock::common
