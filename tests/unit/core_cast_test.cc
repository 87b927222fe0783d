// SPDX-License-Identifier: Apache-2.0

// The judge is arithmetic on doubles, from the definitions of the formats (IEEE 754; bfloat16 is
// binary32's upper half): no bit tricks shared with the code under test.
#include "core/transform/cast.h"

#include <crossdock/bytes.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/catch.h"

using crossdock::manifest::DType;
using crossdock::manifest::info;
using crossdock::transform::CastFunction;
using crossdock::transform::find_cast;

namespace {

struct Format {
  int significant;  // bits of the significand, the hidden one included
  int least;        // exponent of the smallest normal number
  int mantissa_bits;
  int exponent_bits;
};
constexpr Format kHalf{11, -14, 10, 5};
constexpr Format kBrain{8, -126, 7, 8};
constexpr Format kSingle{24, -126, 23, 8};

// What 16 bits stand for.
double meaning(uint16_t bits, const Format& f) {
  const int exponent = bits >> f.mantissa_bits & ((1 << f.exponent_bits) - 1);
  const int mantissa = bits & ((1 << f.mantissa_bits) - 1);
  const double sign = bits >> 15 ? -1 : 1;
  if (exponent == (1 << f.exponent_bits) - 1) return mantissa ? std::nan("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, f.least - f.mantissa_bits);
  return sign * std::ldexp(1 + std::ldexp(mantissa, -f.mantissa_bits), exponent - 1 + f.least);
}

// The nearest number of the format, ties to even, infinity beyond the largest.
double nearest(double x, const Format& f) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int unit = std::max(std::ilogb(x), f.least) - (f.significant - 1);
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
  const double largest = std::ldexp(2 - std::ldexp(1, 1 - f.significant), 1 - f.least);
  return std::abs(rounded) > largest ? std::copysign(INFINITY, x) : rounded;
}

template <class To, class From>
std::vector<To> cast(DType from, DType to, const std::vector<From>& values) {
  const CastFunction function = find_cast(from, to);
  REQUIRE(function);
  std::vector<To> out(values.size());
  function(reinterpret_cast<const std::byte*>(values.data()),
           reinterpret_cast<std::byte*>(out.data()), values.size());
  return out;
}

bool same(double a, double b) {
  return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

std::vector<uint16_t> all_patterns() {
  std::vector<uint16_t> out(65536);
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<uint16_t>(i);
  return out;
}

// Every half-way point between two neighbours of a 16-bit format and the floats next to it, the
// ends of every range, and random patterns.
std::vector<float> hard_floats() {
  std::vector<float> out{0.0f,
                         65504,
                         65519.996f,
                         65520,
                         65520.004f,
                         65536,
                         0x1p-24f,
                         0x1p-25f,
                         0x1.000002p-25f,
                         0x1.fffffep-26f,
                         0x1p-126f,
                         0x1p-149f,
                         std::numeric_limits<float>::max(),
                         std::numeric_limits<float>::infinity()};
  for (const Format& f : {kHalf, kBrain}) {
    for (uint32_t i = 0; i < 0x7fff; ++i) {
      const double low = meaning(static_cast<uint16_t>(i), f),
                   high = meaning(static_cast<uint16_t>(i + 1), f);
      if (!std::isfinite(low) || !std::isfinite(high)) continue;
      const auto middle = static_cast<float>((low + high) / 2);
      for (const float x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, INFINITY)})
        out.push_back(x);
    }
  }
  for (size_t i = 0, n = out.size(); i < n; ++i) out.push_back(-out[i]);
  std::mt19937 random(5);
  for (int i = 0; i < 300'000; ++i) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isnan(x)) out.push_back(x);
  }
  return out;
}

template <class Bits>
void check_narrowed(const std::vector<double>& wanted, const std::vector<Bits>& got,
                    const Format& f) {
  REQUIRE(wanted.size() == got.size());
  size_t wrong = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (same(wanted[i], meaning(got[i], f))) continue;
    if (++wrong < 5)
      FAIL_CHECK("element " << i << ": expected " << wanted[i] << ", found " << meaning(got[i], f));
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("all patterns of 16 bits widen to what they mean") {
  const auto patterns = all_patterns();
  for (const auto& [dtype, format] :
       {std::pair{DType::F16, kHalf}, std::pair{DType::BF16, kBrain}}) {
    const auto floats = cast<float>(dtype, DType::F32, patterns);
    const auto doubles = cast<double>(dtype, DType::F64, patterns);
    size_t wrong = 0;
    for (size_t i = 0; i < patterns.size(); ++i) {
      const double wanted = meaning(patterns[i], format);
      wrong += !same(wanted, static_cast<double>(floats[i])) || !same(wanted, doubles[i]);
      wrong += std::signbit(floats[i]) != (patterns[i] >> 15 != 0);  // NaNs keep their sign too
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("all patterns of 16 bits come back from F32 and F64, NaNs as NaNs") {
  const auto patterns = all_patterns();
  for (const auto& [dtype, format] :
       {std::pair{DType::F16, kHalf}, std::pair{DType::BF16, kBrain}}) {
    const auto from_floats =
        cast<uint16_t>(DType::F32, dtype, cast<float>(dtype, DType::F32, patterns));
    const auto from_doubles =
        cast<uint16_t>(DType::F64, dtype, cast<double>(dtype, DType::F64, patterns));
    size_t wrong = 0;
    for (size_t i = 0; i < patterns.size(); ++i) {
      const bool nan = std::isnan(meaning(patterns[i], format));
      wrong += nan ? !std::isnan(meaning(from_floats[i], format)) : from_floats[i] != patterns[i];
      wrong += nan ? !std::isnan(meaning(from_doubles[i], format)) : from_doubles[i] != patterns[i];
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("the 16-bit formats cast to each other by rounding once") {
  const auto patterns = all_patterns();
  std::vector<double> to_half, to_brain;
  for (const uint16_t bits : patterns) {
    to_half.push_back(nearest(meaning(bits, kBrain), kHalf));
    to_brain.push_back(nearest(meaning(bits, kHalf), kBrain));
  }
  check_narrowed(to_half, cast<uint16_t>(DType::BF16, DType::F16, patterns), kHalf);
  check_narrowed(to_brain, cast<uint16_t>(DType::F16, DType::BF16, patterns), kBrain);
}

TEST_CASE("F32 narrows to the nearest, ties to even") {
  const auto floats = hard_floats();
  for (const auto& [dtype, format] :
       {std::pair{DType::F16, kHalf}, std::pair{DType::BF16, kBrain}}) {
    std::vector<double> wanted;
    for (const float x : floats) wanted.push_back(nearest(x, format));
    check_narrowed(wanted, cast<uint16_t>(DType::F32, dtype, floats), format);
  }
}

TEST_CASE("F64 narrows to F32 to the nearest, and to 16 bits by way of F32") {
  std::vector<double> doubles;
  for (const float x : hard_floats()) {
    for (const double y : {double{x}, std::nextafter(double{x}, 0.0),
                           std::nextafter(double{x}, INFINITY), x * (1 + 0x1p-24)})
      doubles.push_back(y);
  }
  for (const double x : {1e300, -1e300, 0x1.ffffffp127, 0x1.fffffefffffffp127, 0x1p-150,
                         0x1.0000000000001p-150, 1e-320})
    doubles.push_back(x);
  const auto floats = cast<float>(DType::F64, DType::F32, doubles);
  size_t wrong = 0;
  for (size_t i = 0; i < doubles.size(); ++i)
    wrong += !same(nearest(doubles[i], kSingle), floats[i]);
  CHECK(wrong == 0);
  for (const auto& [dtype, format] :
       {std::pair{DType::F16, kHalf}, std::pair{DType::BF16, kBrain}}) {
    std::vector<double> wanted;
    for (const double x : doubles) wanted.push_back(nearest(nearest(x, kSingle), format));
    check_narrowed(wanted, cast<uint16_t>(DType::F64, dtype, doubles), format);
  }
}

TEST_CASE("F32 widens to F64 exactly") {
  const auto floats = hard_floats();
  const auto doubles = cast<double>(DType::F32, DType::F64, floats);
  size_t wrong = 0;
  for (size_t i = 0; i < floats.size(); ++i) wrong += !same(floats[i], doubles[i]);
  CHECK(wrong == 0);
}

TEST_CASE("NaN stays NaN, also when its payload lies in the bits that go, and keeps its sign") {
  std::vector<float> nans;
  for (const uint32_t payload :
       {0x1u, 0x1000u, 0x1fffu, 0x2000u, 0xffffu, 0x10000u, 0x3fffffu, 0x400000u, 0x7fffffu}) {
    for (const uint32_t sign : {0u, 0x80000000u})
      nans.push_back(std::bit_cast<float>(sign | 0x7f800000u | payload));
  }
  for (const auto& [dtype, format] :
       {std::pair{DType::F16, kHalf}, std::pair{DType::BF16, kBrain}}) {
    const auto narrowed = cast<uint16_t>(DType::F32, dtype, nans);
    for (size_t i = 0; i < nans.size(); ++i) {
      INFO(std::bit_cast<uint32_t>(nans[i]));
      CHECK(std::isnan(meaning(narrowed[i], format)));
      CHECK((narrowed[i] >> 15 != 0) == std::signbit(nans[i]));
    }
  }
  const std::vector<double> wide{std::bit_cast<double>(0x7ff0000000000001u),
                                 std::bit_cast<double>(0xfff0000000000001u)};
  CHECK(std::isnan(cast<float>(DType::F64, DType::F32, wide)[0]));
  CHECK(std::isnan(meaning(cast<uint16_t>(DType::F64, DType::F16, wide)[1], kHalf)));
}

TEST_CASE(
    "the processor's own half-precision instructions agree with the portable code, NaNs included") {
  // Casts to and from F64 never use the instructions, and add nothing of their own to values that
  // F32 holds.
  const auto patterns = all_patterns();
  const auto by_instruction = cast<float>(DType::F16, DType::F32, patterns);
  const auto portable = cast<double>(DType::F16, DType::F64, patterns);
  size_t wrong = 0;
  for (size_t i = 0; i < patterns.size(); ++i) {
    wrong += std::bit_cast<uint32_t>(by_instruction[i]) !=
             std::bit_cast<uint32_t>(static_cast<float>(portable[i]));
  }
  CHECK(wrong == 0);
  auto floats = hard_floats();
  for (uint32_t payload = 1; payload < 1u << 23; payload += 4099)
    floats.push_back(std::bit_cast<float>(0x7fc00000u | payload));
  CHECK(cast<uint16_t>(DType::F32, DType::F16, floats) ==
        cast<uint16_t>(DType::F64, DType::F16, std::vector<double>(floats.begin(), floats.end())));
}

TEST_CASE("any number of elements at any address, and not a byte beyond") {
  const std::vector<DType> types{DType::BF16, DType::F16, DType::F32, DType::F64};
  std::mt19937 random(3);
  std::vector<std::byte> source(40 * 8 + 8);
  for (auto& b : source) b = static_cast<std::byte>(random());
  for (const DType from : types) {
    for (const DType to : types) {
      const CastFunction function = find_cast(from, to);
      REQUIRE(function);
      const size_t in = info(from).bits / 8, out = info(to).bits / 8;
      for (const size_t n : {0, 1, 2, 7, 8, 9, 15, 16, 17, 33, 40}) {
        for (const size_t shift : {0, 1, 3}) {
          // One at a time, aligned, is the judge.
          std::vector<std::byte> wanted(n * out);
          for (size_t i = 0; i < n; ++i) {
            alignas(8) std::byte a[8], b[8];
            std::memcpy(a, source.data() + shift + i * in, in);
            function(a, b, 1);
            std::memcpy(wanted.data() + i * out, b, out);
          }
          std::vector<std::byte> got(n * out + shift + 16, std::byte{0xA5});
          function(source.data() + shift, got.data() + shift, n);
          INFO(crossdock::manifest::name(from)
               << " to " << crossdock::manifest::name(to) << ", " << n << " at " << shift);
          CHECK(std::equal(wanted.begin(), wanted.end(),
                           got.begin() + static_cast<std::ptrdiff_t>(shift)));
          CHECK(std::all_of(got.begin() + static_cast<std::ptrdiff_t>(shift + n * out), got.end(),
                            [](std::byte b) { return b == std::byte{0xA5}; }));
        }
      }
    }
  }
}

TEST_CASE("equal types copy, and only floating types cast") {
  const std::string text = "0123456789abcdef0123456789abcdef";
  for (uint32_t i = 0; i < crossdock::manifest::kDTypes.size(); ++i) {
    const auto dtype = static_cast<DType>(i);
    const CastFunction copy = find_cast(dtype, dtype);
    INFO(info(dtype).name);
    CHECK((copy != nullptr) == (info(dtype).bits >= 8));
    if (copy) {
      std::string out(32, '-');
      copy(reinterpret_cast<const std::byte*>(text.data()),
           reinterpret_cast<std::byte*>(out.data()), 2);
      const size_t n = 2 * info(dtype).bits / 8;
      CHECK(out == text.substr(0, n) + std::string(32 - n, '-'));
      copy(nullptr, nullptr, 0);
    }
    if (info(dtype).kind != crossdock::manifest::Kind::kFloat) {
      CHECK(find_cast(dtype, DType::F32) == nullptr);
      CHECK(find_cast(DType::F32, dtype) == nullptr);
    }
  }
}
