#include "core/transform/decoder.h"

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

// A loop is compiled twice: for every processor, and for those with AVX2 and BMI2, whose shifts by
// a variable are one operation each.
#if defined(__x86_64__)
#define XD_FAST __attribute__((target("avx2,bmi2")))
bool is_fast() {
  static const bool fast = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
  return fast;
}
#else
#define XD_FAST
constexpr bool is_fast() { return false; }
#endif

// Eight codes are `bits` bytes, and so one little-endian number.
struct Groups {
  const float* values;
  const uint8_t* shifts;
  uint32_t bits;

  [[gnu::always_inline]] inline float at(uint64_t group, size_t i) const {
    return values[group >> shifts[i] & ((1u << bits) - 1)];
  }
  [[gnu::always_inline]] inline void run(const std::byte* codes, uint64_t first, uint64_t n,
                                         float* out) const {
    codes += first / 8 * bits;
    first %= 8;
    while (n > 0) {
      uint64_t group;
      std::memcpy(&group, codes, sizeof group);
      if (first == 0 && n >= 8) {
        for (size_t i = 0; i < 8; ++i) out[i] = at(group, i);
        out += 8;
        n -= 8;
      } else {
        for (; first < 8 && n > 0; ++first, --n) *out++ = at(group, first);
        first = 0;
      }
      codes += bits;
    }
  }
};

XD_FAST void run_fast(const Groups& groups, const std::byte* codes, uint64_t first, uint64_t n,
                      float* out) {
  groups.run(codes, first, n, out);
}

template <class Change>
[[gnu::always_inline]] inline void each(float* values, const float* by, size_t n, Change change) {
  for (size_t i = 0; i < n; ++i) values[i] = change(values[i], by[i]);
}
constexpr auto kSubtract = [](float a, float b) { return a - b; };
constexpr auto kMultiply = [](float a, float b) { return a * b; };
constexpr auto kDivide = [](float a, float b) { return a / b; };

template <auto Change>
XD_FAST void each_fast(float* values, const float* by, size_t n) {
  each(values, by, n, Change);
}
template <auto Change>
void either(float* values, const float* by, size_t n) {
  is_fast() ? each_fast<Change>(values, by, n) : each(values, by, n, Change);
}

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
}

std::optional<uint64_t> Decoder::row_bits(uint64_t codes) const {
  if (order_ != CodeOrder::kInterleaved) return checked_mul(codes, bits_);
  return checked_mul(codes / 8 + (codes % 8 != 0), 8 * bits_);
}

void Decoder::decode(const std::byte* codes, uint64_t first, uint64_t n, float* out) const {
  const Groups groups{values_.data(), shifts_.data(), bits_};
  is_fast() ? run_fast(groups, codes, first, n, out) : groups.run(codes, first, n, out);
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

void subtract(float* values, const float* zeros, size_t n) { either<kSubtract>(values, zeros, n); }
void multiply(float* values, const float* scales, size_t n) {
  either<kMultiply>(values, scales, n);
}
void divide(float* values, const float* by, size_t n) { either<kDivide>(values, by, n); }

void multiply(float* values, float factor, size_t n) {
  for (size_t i = 0; i < n; ++i) values[i] *= factor;
}

void repeat(const float* scales, uint64_t left, uint64_t block, float* out, size_t n) {
  for (size_t done = 0; done < n; left = block) {
    const auto some = static_cast<size_t>(std::min<uint64_t>(left, n - done));
    std::fill_n(out + done, some, *scales++);
    done += some;
  }
}

}  // namespace crossdock::transform
