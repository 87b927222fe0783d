// SPDX-License-Identifier: Apache-2.0
#include "core/transform/decoder.h"

#include "core/transform/processor.h"

#include <crossdock/bytes.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace crossdock::transform {

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Eight codes are `bits` bytes, and so one little-endian number.
struct Groups {
  const float* values;
  const float* few;
  const uint8_t* shifts;
  uint32_t bits;

  [[gnu::always_inline]] inline float at(uint64_t group, size_t i) const {
    return values[group >> shifts[i] & ((1u << bits) - 1)];
  }
  // `eight` decodes a whole group.
  template <class Eight>
  [[gnu::always_inline]] inline void run(const std::byte* codes, uint64_t first, uint64_t n,
                                         float* out, Eight eight) const {
    codes += first / 8 * bits;
    first %= 8;
    while (n > 0) {
      uint64_t group;
      std::memcpy(&group, codes, sizeof group);
      if (first == 0 && n >= 8) {
        eight(group, out);
        out += 8;
        n -= 8;
      } else {
        for (; first < 8 && n > 0; ++first, --n) *out++ = at(group, first);
        first = 0;
      }
      codes += bits;
    }
  }
  [[gnu::always_inline]] inline void run(const std::byte* codes, uint64_t first, uint64_t n,
                                         float* out) const {
    run(codes, first, n, out, [this](uint64_t group, float* eight) {
      for (size_t i = 0; i < 8; ++i) eight[i] = at(group, i);
    });
  }
};

#if defined(__x86_64__)
XD_FAST void run_fast(const Groups& groups, const std::byte* codes, uint64_t first, uint64_t n,
                      float* out) {
  groups.run(codes, first, n, out);
}

// Two registers hold all values that codes of 4 bits may have, and one instruction picks eight.
XD_FAST void run_few(const Groups& groups, const std::byte* codes, uint64_t first, uint64_t n,
                     float* out) {
  const __m256 low = _mm256_loadu_ps(groups.few), high = _mm256_loadu_ps(groups.few + 8);
  const __m256i shifts =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(groups.shifts)));
  groups.run(codes, first, n, out, [&](uint64_t group, float* eight) XD_FAST {
    const __m256i code = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(group)), shifts);
    const __m256 is_high = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));  // its sign
    _mm256_storeu_ps(eight, _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code),
                                             _mm256_permutevar8x32_ps(high, code), is_high));
  });
}

// Of eight bytes: signed integers, those counted from the table's first, and floats that are halves
// but for their bias: a sign, and a magnitude that is shifted into place, NaN above `last`.
struct Signed {
  XD_FAST static __m256 values(__m128i codes, const float*) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
  }
};
struct Counted {
  XD_FAST static __m256 values(__m128i codes, const float* table) {
    return _mm256_add_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)), _mm256_set1_ps(*table));
  }
};
template <int shift, short last, int factor>
struct Half {
  XD_FAST static __m256 values(__m128i codes, const float*) {
    const __m128i wide = _mm_cvtepi8_epi16(codes);
    const __m128i sign = _mm_and_si128(wide, _mm_set1_epi16(static_cast<short>(0x8000)));
    const __m128i magnitude = _mm_and_si128(wide, _mm_set1_epi16(0x7F));
    const __m128i is_nan = _mm_cmpgt_epi16(magnitude, _mm_set1_epi16(last));
    const __m128i half =
        _mm_blendv_epi8(_mm_slli_epi16(magnitude, shift), _mm_set1_epi16(0x7E00), is_nan);
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(sign, half)), _mm256_set1_ps(factor));
  }
};

// 2^(code - 127 - less), which is below the normal floats where the code is not above `less`.
template <int less>
struct Exponent {
  XD_FAST static __m256 values(__m128i codes, const float*) {
    const __m256i above = _mm256_sub_epi32(_mm256_cvtepu8_epi32(codes), _mm256_set1_epi32(less));
    const __m256i below = _mm256_sub_epi32(_mm256_setzero_si256(), above);  // large if negative
    const __m256i normal = _mm256_slli_epi32(_mm256_max_epi32(above, _mm256_setzero_si256()), 23);
    const __m256i small = _mm256_srlv_epi32(_mm256_set1_epi32(1 << 22), below);
    return _mm256_castsi256_ps(_mm256_or_si256(normal, small));
  }
};

template <class Eight>
XD_FAST void compute(const float* values, const std::byte* codes, uint64_t n, float* out) {
  uint64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i));
    _mm256_storeu_ps(out + i, Eight::values(eight, values));
  }
  for (; i < n; ++i) out[i] = values[static_cast<uint8_t>(codes[i])];
}

// Whichever gives all of the table's 256 values, bit for bit.
auto find_arithmetic(const std::vector<float>& values) {
  constexpr decltype(&compute<Signed>) kAll[] = {compute<Signed>,
                                                 compute<Counted>,
                                                 compute<Exponent<0>>,
                                                 compute<Exponent<1>>,
                                                 compute<Half<7, 0x7E, 256>>,  // E4M3
                                                 compute<Half<8, 0x7C, 1>>};   // E5M2
  std::array<std::byte, 256> codes;
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::byte>(i);
  for (const auto computes : kAll) {
    float got[256];
    computes(values.data(), codes.data(), codes.size(), got);
    if (std::memcmp(got, values.data(), sizeof got) == 0) return computes;
  }
  return decltype(&compute<Signed>){nullptr};
}
#endif

// Of a float with so many bits for exponent and mantissa, without special codes.
std::vector<float> small_floats(int exponent_bits, int mantissa_bits, int bias) {
  std::vector<float> out;
  const int n_magnitudes = 1 << (exponent_bits + mantissa_bits);
  for (int code = 0; code < 2 * n_magnitudes; ++code) {
    const int exponent = code % n_magnitudes >> mantissa_bits;
    const int mantissa = code % (1 << mantissa_bits);
    const int whole = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
    const float magnitude =
        std::ldexp(static_cast<float>(whole), std::max(exponent, 1) - bias - mantissa_bits);
    out.push_back(code < n_magnitudes ? magnitude : -magnitude);
  }
  return out;
}

}  // namespace

Decoder::Decoder(std::string name, uint32_t bits, std::vector<float> values, CodeOrder order)
    : name_(std::move(name)), bits_(bits), order_(order), values_(std::move(values)) {
  constexpr uint8_t kInterleaved[] = {0, 4, 1, 5, 2, 6, 3, 7};
  for (size_t i = 0; i < 8; ++i) {
    const size_t place = order == CodeOrder::kLowFirst    ? i
                         : order == CodeOrder::kHighFirst ? i ^ 1
                                                          : kInterleaved[i];
    shifts_[i] = static_cast<uint8_t>(place * bits);
  }
  for (size_t i = 0; bits <= 4 && i < few_.size(); ++i) few_[i] = values_[i % values_.size()];
#if defined(__x86_64__)
  if (bits == 8 && is_fast()) arithmetic_ = find_arithmetic(values_);
#endif
}

std::optional<uint64_t> Decoder::row_bits(uint64_t codes) const {
  if (order_ != CodeOrder::kInterleaved) return checked_mul(codes, bits_);
  return checked_mul(codes / 8 + (codes % 8 != 0), 8 * bits_);
}

void Decoder::decode(const std::byte* codes, uint64_t first, uint64_t n, float* out) const {
  if (arithmetic_) return arithmetic_(values_.data(), codes + first, n, out);
  const Groups groups{values_.data(), few_.data(), shifts_.data(), bits_};
#if defined(__x86_64__)
  if (is_fast()) return (bits_ <= 4 ? run_few : run_fast)(groups, codes, first, n, out);
#endif
  groups.run(codes, first, n, out);
}

std::vector<float> e4m3_values() {
  auto out = small_floats(4, 3, 7);
  out[0x7F] = kNan;
  out[0xFF] = -kNan;
  return out;
}

std::vector<float> e5m2_values() {
  auto out = small_floats(5, 2, 15);
  for (const size_t sign : {0u, 0x80u}) {
    out[sign | 0x7C] = sign ? -kInfinity : kInfinity;
    for (size_t i = 0x7D; i < 0x80; ++i) out[sign | i] = sign ? -kNan : kNan;
  }
  return out;
}

std::vector<float> e4m3fnuz_values() {
  auto out = small_floats(4, 3, 8);
  out[0x80] = kNan;
  return out;
}

std::vector<float> e5m2fnuz_values() {
  auto out = small_floats(5, 2, 16);
  out[0x80] = kNan;
  return out;
}

std::vector<float> e2m1_values() { return small_floats(2, 1, 1); }
std::vector<float> e2m3_values() { return small_floats(2, 3, 1); }

std::vector<float> exponents(bool is_e8m0) {
  std::vector<float> out;
  for (int code = 0; code < 256; ++code) out.push_back(std::ldexp(1.0f, code - 127));
  if (is_e8m0) out.back() = kNan;
  return out;
}

std::vector<float> unsigned_values(uint32_t bits) {
  std::vector<float> out;
  for (uint32_t code = 0; code < 1u << bits; ++code) out.push_back(static_cast<float>(code));
  return out;
}

std::vector<float> signed_values() {
  std::vector<float> out;
  for (int code = 0; code < 256; ++code)
    out.push_back(static_cast<float>(static_cast<int8_t>(code)));
  return out;
}

}  // namespace crossdock::transform
