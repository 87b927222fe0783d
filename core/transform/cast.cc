// SPDX-License-Identifier: Apache-2.0
#include "core/transform/cast.h"

#include "core/transform/processor.h"

#include <bit>
#include <cstdint>
#include <cstring>

namespace crossdock::transform {

namespace {

using manifest::DType;

float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  const uint32_t nan = bits >> 16 | 0x40;  // quiet, payload's top kept
  return static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
}

float f16_to_f32(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t magnitude = half & 0x7FFFu;
  if (magnitude >= 0x7C00) {  // infinity, or NaN made quiet as the F16C instruction does
    const uint32_t quiet = magnitude > 0x7C00 ? 0x400000 : 0;
    return std::bit_cast<float>(sign | 0x7F800000 | quiet | (magnitude & 0x3FF) << 13);
  }
  // Shifting the exponent into place leaves it 112 too small, for subnormals too: one exact
  // multiplication mends both.
  return std::bit_cast<float>(
      sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f));
}

uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  uint32_t half;
  if (magnitude > 0x7F800000) {
    half = 0x7E00 | (magnitude >> 13 & 0x3FF);
  } else if (magnitude >= 0x477FF000) {  // 65520 and above round to infinity
    half = 0x7C00;
  } else if (magnitude < 0x38800000) {  // subnormal: let the addition round at the right place
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3F000000;
  } else {
    half = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

template <class From, class To, auto Convert>
[[gnu::always_inline]] inline void each(const std::byte* from, std::byte* to, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    From a;
    std::memcpy(&a, from + i * sizeof(From), sizeof(From));
    const To b = Convert(a);
    std::memcpy(to + i * sizeof(To), &b, sizeof(To));
  }
}

template <class From, class To, auto Convert>
void loop(const std::byte* from, std::byte* to, size_t n) {
  each<From, To, Convert>(from, to, n);
}
template <class From, class To, auto Convert>
XD_FAST void fast_loop(const std::byte* from, std::byte* to, size_t n) {
  each<From, To, Convert>(from, to, n);
}

template <size_t Size>
void copy(const std::byte* from, std::byte* to, size_t n) {
  if (n != 0) std::memcpy(to, from, n * Size);
}

#if defined(__x86_64__)
// The F16C instructions, eight at a time; the tail goes through a padded block, so that every
// element is treated alike.
XD_FAST void f16_to_f32_f16c(const std::byte* from, std::byte* to, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i));
    _mm256_storeu_ps(reinterpret_cast<float*>(to + 4 * i), _mm256_cvtph_ps(half));
  }
  if (i == n) return;
  alignas(32) uint16_t in[8] = {};
  alignas(32) float out[8];
  std::memcpy(in, from + 2 * i, 2 * (n - i));
  _mm256_store_ps(out, _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(in))));
  std::memcpy(to + 4 * i, out, 4 * (n - i));
}

XD_FAST void f32_to_f16_f16c(const std::byte* from, std::byte* to, size_t n) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT;
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 full = _mm256_loadu_ps(reinterpret_cast<const float*>(from + 4 * i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * i), _mm256_cvtps_ph(full, kNearest));
  }
  if (i == n) return;
  alignas(32) float in[8] = {};
  alignas(32) uint16_t out[8];
  std::memcpy(in, from + 4 * i, 4 * (n - i));
  _mm_store_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(_mm256_load_ps(in), kNearest));
  std::memcpy(to + 2 * i, out, 2 * (n - i));
}

XD_FAST __m128i bf16_to_f16_of_eight(__m128i brain) {
  const __m128i low = _mm_slli_epi32(_mm_cvtepu16_epi32(brain), 16);
  const __m128i high = _mm_slli_epi32(_mm_cvtepu16_epi32(_mm_srli_si128(brain, 8)), 16);
  const __m256 full = _mm256_castsi256_ps(_mm256_set_m128i(high, low));
  return _mm256_cvtps_ph(full, _MM_FROUND_TO_NEAREST_INT);
}

XD_FAST void bf16_to_f16_f16c(const std::byte* from, std::byte* to, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i brain = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * i), bf16_to_f16_of_eight(brain));
  }
  if (i == n) return;
  alignas(16) uint16_t block[8] = {};
  std::memcpy(block, from + 2 * i, 2 * (n - i));
  __m128i* const eight = reinterpret_cast<__m128i*>(block);
  _mm_store_si128(eight, bf16_to_f16_of_eight(_mm_load_si128(eight)));
  std::memcpy(to + 2 * i, block, 2 * (n - i));
}
// f32_to_bf16, eight at a time, in the lower halves.
XD_FAST __m256i bf16_of_eight(__m256 value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(_mm256_add_epi32(bits, up), quiet, is_nan), 16);
}

// GCC's own loop takes 1.7 times as long.
XD_FAST void f32_to_bf16_avx2(const std::byte* from, std::byte* to, size_t n) {
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const auto* full = reinterpret_cast<const float*>(from + 4 * i);
    const __m256i a = bf16_of_eight(_mm256_loadu_ps(full));
    const __m256i b = bf16_of_eight(_mm256_loadu_ps(full + 8));
    // Packing works by halves of registers.
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * i), packed);
  }
  each<float, uint16_t, f32_to_bf16>(from + 4 * i, to + 2 * i, n - i);
}
#else
constexpr CastFunction f32_to_bf16_avx2 = nullptr;
constexpr CastFunction f16_to_f32_f16c = nullptr;
constexpr CastFunction f32_to_f16_f16c = nullptr;
constexpr CastFunction bf16_to_f16_f16c = nullptr;
#endif

float narrow(double value) { return static_cast<float>(value); }
double widen(float value) { return value; }
double bf16_to_f64(uint16_t bits) { return bf16_to_f32(bits); }
double f16_to_f64(uint16_t bits) { return f16_to_f32(bits); }
uint16_t f64_to_bf16(double value) { return f32_to_bf16(narrow(value)); }
uint16_t f64_to_f16(double value) { return f32_to_f16(narrow(value)); }
uint16_t bf16_to_f16(uint16_t bits) { return f32_to_f16(bf16_to_f32(bits)); }
uint16_t f16_to_bf16(uint16_t bits) { return f32_to_bf16(f16_to_f32(bits)); }

struct Row {
  DType from, to;
  CastFunction function, fast;
};

template <class From, class To, auto Convert>
constexpr Row row(DType from, DType to) {
  return {from, to, loop<From, To, Convert>, fast_loop<From, To, Convert>};
}

constexpr Row kCasts[] = {
    row<uint16_t, float, bf16_to_f32>(DType::BF16, DType::F32),
    row<uint16_t, double, bf16_to_f64>(DType::BF16, DType::F64),
    row<uint16_t, uint16_t, bf16_to_f16>(DType::BF16, DType::F16),
    row<uint16_t, float, f16_to_f32>(DType::F16, DType::F32),
    row<uint16_t, double, f16_to_f64>(DType::F16, DType::F64),
    row<uint16_t, uint16_t, f16_to_bf16>(DType::F16, DType::BF16),
    row<float, uint16_t, f32_to_bf16>(DType::F32, DType::BF16),
    row<float, uint16_t, f32_to_f16>(DType::F32, DType::F16),
    row<float, double, widen>(DType::F32, DType::F64),
    row<double, float, narrow>(DType::F64, DType::F32),
    row<double, uint16_t, f64_to_bf16>(DType::F64, DType::BF16),
    row<double, uint16_t, f64_to_f16>(DType::F64, DType::F16),
};

CastFunction find_copy(DType dtype) {
  switch (manifest::info(dtype).bits) {
    case 8:
      return copy<1>;
    case 16:
      return copy<2>;
    case 32:
      return copy<4>;
    case 64:
      return copy<8>;
    case 128:
      return copy<16>;
    default:
      return nullptr;
  }
}

}  // namespace

CastFunction find_cast(DType from, DType to) {
  if (from == to) return find_copy(from);
  if (from == DType::F16 && to == DType::F32 && is_fast()) return f16_to_f32_f16c;
  if (from == DType::F32 && to == DType::F16 && is_fast()) return f32_to_f16_f16c;
  if (from == DType::BF16 && to == DType::F16 && is_fast()) return bf16_to_f16_f16c;
  if (from == DType::F32 && to == DType::BF16 && is_fast()) return f32_to_bf16_avx2;
  for (const Row& row : kCasts) {
    if (row.from == from && row.to == to) return is_fast() ? row.fast : row.function;
  }
  return nullptr;
}

}  // namespace crossdock::transform
