// How many floating-point values are infinite: what a writer that narrows them must know.
#pragma once

#include <crossdock/dtype.hpp>

#include <cstring>
#include <span>

namespace crossdock::common {

namespace detail {
template <class Bits>
uint64_t count_equal(std::span<const std::byte> values, Bits mask, Bits wanted) {
  uint64_t n = 0;
  for (size_t i = 0; i + sizeof(Bits) <= values.size(); i += sizeof(Bits)) {
    Bits value;
    std::memcpy(&value, values.data() + i, sizeof(Bits));
    n += (value & mask) == wanted;
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
