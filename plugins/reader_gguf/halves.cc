// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_gguf/halves.h"

#include "plugins/reader_gguf/blocks.h"

#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace crossdock::reader_gguf {

namespace {

[[gnu::always_inline]] inline uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t quiet = bits >> 16 | 64, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

// The hardware's float addition rounds subnormals, integer addition the rest.
[[gnu::always_inline]] inline uint16_t to_f16(float value) {
  constexpr uint32_t kInfinity = 0x7f800000, kOverflow = (127 + 16) << 23,
                     kMinNormal = (127 - 14) << 23;
  const auto all = std::bit_cast<uint32_t>(value);
  const uint32_t sign = all >> 16 & 0x8000, bits = all & 0x7fffffff;
  if (bits >= kOverflow) {
    const uint32_t nan = bits > kInfinity ? 0x200 | (bits >> 13 & 0x3ff) : 0;
    return static_cast<uint16_t>(sign | 0x7c00 | nan);
  }
  if (bits < kMinNormal) {
    const float rounded = std::bit_cast<float>(bits) + 0.5f;  // whose last bit is worth 2^-24
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - 0x3f000000));
  }
  const uint32_t rounded = bits + 0xfff + (bits >> 13 & 1);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - ((127 - 15) << 10)));
}

template <auto Round>
[[gnu::always_inline]] inline void round_each(const float* values, uint64_t n, std::byte* out) {
  for (uint64_t i = 0; i < n; ++i) {
    const uint16_t rounded = Round(values[i]);
    std::memcpy(out + 2 * i, &rounded, 2);
  }
}

void decode_each(const uint8_t* in, float* out, uint64_t n) {
  for (uint64_t i = 0; i < n; ++i) out[i] = blocks::f16_at(in + 2 * i);
}

void f16_to_bf16_each(const uint8_t* in, uint64_t n, std::byte* out) {
  for (uint64_t i = 0; i < n; ++i) {
    const uint16_t rounded = to_bf16(blocks::f16_at(in + 2 * i));
    std::memcpy(out + 2 * i, &rounded, 2);
  }
}

#if defined(__x86_64__)
constexpr uint64_t kLanes = 8;

bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __builtin_cpu_supports("avx2") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) &&
         (ecx & bit_F16C) != 0;
}

// The instruction sets the first bit of a NaN's payload: where the half has none, it goes again.
__attribute__((target("avx2,f16c"))) void decode_f16c(const uint8_t* in, float* out, uint64_t n) {
  const __m256i first_of_payload = _mm256_set1_epi32(0x400000);
  for (; n >= kLanes; n -= kLanes, in += 2 * kLanes, out += kLanes) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
    const __m256 value = _mm256_cvtph_ps(half);
    const __m256i payload = _mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 13);
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    const __m256i added = _mm256_andnot_si256(payload, _mm256_and_si256(is_nan, first_of_payload));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                        _mm256_andnot_si256(added, _mm256_castps_si256(value)));
  }
  decode_each(in, out, n);
}

__attribute__((target("avx2,f16c"))) void round_f16c(const float* values, uint64_t n,
                                                     std::byte* out) {
  for (; n >= kLanes; n -= kLanes, values += kLanes, out += 2 * kLanes) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(values), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), half);
  }
  round_each<to_f16>(values, n, out);
}

// to_bf16 of eight values, each in 32 bits. NaN is not rounded, but made quiet if it is not yet.
template <bool kQuietYet>
[[gnu::always_inline]] __attribute__((target("avx2"))) inline __m256i eight_bf16(__m256 value) {
  __m256i bits = _mm256_castps_si256(value);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i is_number = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_ORD_Q));
  const __m256i half =
      _mm256_and_si256(is_number, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  if (!kQuietYet)
    bits = _mm256_or_si256(bits, _mm256_andnot_si256(is_number, _mm256_set1_epi32(0x400000)));
  return _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
}
[[gnu::always_inline]] __attribute__((target("avx2"))) inline void put_16(__m256i first,
                                                                          __m256i second,
                                                                          std::byte* out) {
  const __m256i packed =
      _mm256_permute4x64_epi64(_mm256_packus_epi32(first, second), 0b11'01'10'00);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), packed);
}

__attribute__((target("avx2"))) void round_bf16_avx2(const float* values, uint64_t n,
                                                     std::byte* out) {
  for (; n >= 2 * kLanes; n -= 2 * kLanes, values += 2 * kLanes, out += 4 * kLanes)
    put_16(eight_bf16<false>(_mm256_loadu_ps(values)),
           eight_bf16<false>(_mm256_loadu_ps(values + kLanes)), out);
  round_each<to_bf16>(values, n, out);
}

__attribute__((target("avx2,f16c"))) void f16_to_bf16_f16c(const uint8_t* in, uint64_t n,
                                                           std::byte* out) {
  for (; n >= 2 * kLanes; n -= 2 * kLanes, in += 4 * kLanes, out += 4 * kLanes) {
    const __m256 first = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
    const __m256 second =
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 2 * kLanes)));
    put_16(eight_bf16<true>(first), eight_bf16<true>(second), out);
  }
  f16_to_bf16_each(in, n, out);
}
#endif

}  // namespace

void decode_f16(const uint8_t* in, float* out, uint64_t n) {
#if defined(__x86_64__)
  static const bool fast = has_f16c();
  if (fast) return decode_f16c(in, out, n);
#endif
  decode_each(in, out, n);
}

void round_to_f16(const float* values, uint64_t n, std::byte* out) {
#if defined(__x86_64__)
  static const bool fast = has_f16c();
  if (fast) return round_f16c(values, n, out);
#endif
  round_each<to_f16>(values, n, out);
}

void round_to_bf16(const float* values, uint64_t n, std::byte* out) {
#if defined(__x86_64__)
  static const bool fast = __builtin_cpu_supports("avx2");
  if (fast) return round_bf16_avx2(values, n, out);
#endif
  round_each<to_bf16>(values, n, out);
}

void f16_to_bf16(const uint8_t* in, uint64_t n, std::byte* out) {
#if defined(__x86_64__)
  static const bool fast = has_f16c();
  if (fast) return f16_to_bf16_f16c(in, n, out);
#endif
  f16_to_bf16_each(in, n, out);
}

}  // namespace crossdock::reader_gguf
