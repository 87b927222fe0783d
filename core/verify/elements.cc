// SPDX-License-Identifier: Apache-2.0
#include "core/verify/elements.h"

#include "core/base/text.h"
#include "core/transform/cast.h"
#include "core/transform/decoder.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace crossdock::verify {

using manifest::DType;
using manifest::Kind;

namespace {

uint64_t bits_of(DType dtype) { return manifest::info(dtype).bits; }

// An element's bits, the lowest first; sub-byte ones lie one behind the other from the lowest bit.
uint64_t raw_bits(DType dtype, const std::byte* packed, uint64_t index) {
  const uint64_t n = bits_of(dtype), begin = index * n;
  uint64_t out = 0;
  std::memcpy(&out, packed + begin / 8, (begin % 8 + n + 7) / 8);
  return n == 64 ? out : out >> (begin % 8) & ((uint64_t{1} << n) - 1);
}

// Values by code, of the types of at most 8 bits.
const std::vector<float>& values_of(DType dtype) {
  using namespace transform;
  static const std::vector<float> e4m3 = e4m3_values(), e5m2 = e5m2_values(),
                                  e4m3fnuz = e4m3fnuz_values(), e5m2fnuz = e5m2fnuz_values(),
                                  e8m0 = exponents(true), e2m1 = e2m1_values(),
                                  e2m3 = e2m3_values(), e3m2 = [] {
                                    std::vector<float> out;
                                    for (unsigned code = 0; code < 64; ++code) {
                                      const unsigned exponent = code >> 2 & 7, mantissa = code & 3;
                                      const float size =
                                          exponent == 0
                                              ? std::ldexp(static_cast<float>(mantissa), -4)
                                              : std::ldexp(1 + static_cast<float>(mantissa) / 4,
                                                           static_cast<int>(exponent) - 3);
                                      out.push_back(code & 32 ? -size : size);
                                    }
                                    return out;
                                  }();
  static const std::vector<float> none;
  switch (dtype) {
    case DType::F8_E4M3:
      return e4m3;
    case DType::F8_E5M2:
      return e5m2;
    case DType::F8_E4M3FNUZ:
      return e4m3fnuz;
    case DType::F8_E5M2FNUZ:
      return e5m2fnuz;
    case DType::F8_E8M0:
      return e8m0;
    case DType::F4:
      return e2m1;
    case DType::F6_E2M3:
      return e2m3;
    case DType::F6_E3M2:
      return e3m2;
    default:
      return none;
  }
}

template <class T>
void from_integers(const std::byte* packed, uint64_t first, std::span<double> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, packed + (first + i) * sizeof(T), sizeof(T));
    out[i] = static_cast<double>(value);
  }
}

template <class T>
std::string integer_text(uint64_t raw) {
  return fmt::format("{}", static_cast<T>(raw));
}

bool is_float(DType dtype) {
  const Kind kind = manifest::info(dtype).kind;
  return kind == Kind::kFloat || kind == Kind::kFloat8 || kind == Kind::kSubByte;
}

std::string hex(const std::byte* bytes, size_t n) {
  std::string out = "0x";
  for (size_t i = n; i-- > 0;) out += fmt::format("{:02x}", static_cast<unsigned>(bytes[i]));
  return out;
}

}  // namespace

bool is_number(DType dtype) {
  const Kind kind = manifest::info(dtype).kind;
  return kind != Kind::kComplex && kind != Kind::kNone;
}

void to_doubles(DType dtype, const std::byte* packed, uint64_t first, std::span<double> out) {
  if (manifest::info(dtype).kind == Kind::kFloat) {
    transform::find_cast(dtype, DType::F64)(packed + first * bits_of(dtype) / 8,
                                            reinterpret_cast<std::byte*>(out.data()), out.size());
    return;
  }
  switch (dtype) {
    case DType::BOOL:
    case DType::U8:
      return from_integers<uint8_t>(packed, first, out);
    case DType::I8:
      return from_integers<int8_t>(packed, first, out);
    case DType::U16:
      return from_integers<uint16_t>(packed, first, out);
    case DType::I16:
      return from_integers<int16_t>(packed, first, out);
    case DType::U32:
      return from_integers<uint32_t>(packed, first, out);
    case DType::I32:
      return from_integers<int32_t>(packed, first, out);
    case DType::U64:
      return from_integers<uint64_t>(packed, first, out);
    case DType::I64:
      return from_integers<int64_t>(packed, first, out);
    default:
      break;
  }
  const std::vector<float>& values = values_of(dtype);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<double>(values[raw_bits(dtype, packed, first + i)]);
}

std::string element_text(DType dtype, const std::byte* packed, uint64_t index) {
  const uint64_t n_bytes = bits_of(dtype) / 8;
  switch (dtype) {
    case DType::U64:
      return integer_text<uint64_t>(raw_bits(dtype, packed, index));
    case DType::I64:
      return integer_text<int64_t>(raw_bits(dtype, packed, index));
    default:
      break;
  }
  if (!is_number(dtype)) return hex(packed + index * n_bytes, n_bytes);
  double value = 0;
  to_doubles(dtype, packed, index, {&value, 1});
  if (!is_float(dtype)) return fmt::format("{:.0f}", value);
  if (std::isnan(value)) return fmt::format("nan ({:#x})", raw_bits(dtype, packed, index));
  return dtype == DType::F64 ? fmt::format("{}", value)
                             : fmt::format("{}", static_cast<float>(value));
}

uint64_t first_difference(DType dtype, const std::byte* a, const std::byte* b, uint64_t n) {
  const uint64_t bits = bits_of(dtype);
  if (std::memcmp(a, b, n * bits / 8) == 0) return n;
  for (uint64_t i = 0; i < n; ++i) {
    const bool same = bits % 8 == 0 ? std::memcmp(a + i * bits / 8, b + i * bits / 8, bits / 8) == 0
                                    : raw_bits(dtype, a, i) == raw_bits(dtype, b, i);
    if (!same) return i;
  }
  return n;
}

std::string place_text(const std::string& tensor, std::span<const uint64_t> shape, uint64_t index) {
  std::vector<uint64_t> at(shape.size());
  for (size_t dim = shape.size(); dim-- > 0;) {
    at[dim] = index % shape[dim];
    index /= shape[dim];
  }
  return cat("tensor \"", base::printable(tensor), "\" ", base::list_text(at));
}

}  // namespace crossdock::verify
