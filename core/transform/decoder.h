// SPDX-License-Identifier: Apache-2.0

// Codes of quantised tensors become floats: how many bits a code takes, where it lies, and which
// value each stands for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace crossdock::transform {

// Where eight neighbouring codes lie in the little-endian number that their bytes make.
enum class CodeOrder : uint8_t {
  kLowFirst,    // one behind the other, from the lowest bit on
  kHighFirst,   // of 4 bits: the high half of each byte comes first, as in bitsandbytes
  kInterleaved  // of 4 bits: 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bit on, as in AWQ
};

// Never changes. [any]
class Decoder {
 public:
  // `values` has one for each code of `bits` (1 to 8) bits. `name` tells of it in texts: "e4m3".
  Decoder(std::string name, uint32_t bits, std::vector<float> values,
          CodeOrder order = CodeOrder::kLowFirst);

  // What may be read beyond the last code.
  static constexpr size_t kSlack = 8;

  // Values of codes [first, first + n) counted from `codes` on, which is the first byte of a group
  // of eight codes. Reads up to kSlack bytes more than they take.
  void decode(const std::byte* codes, uint64_t first, uint64_t n, float* out) const;

  // What a row of so many codes takes; nothing on overflow. Of interleaved ones, whole eights.
  std::optional<uint64_t> row_bits(uint64_t codes) const;

  const std::string& name() const { return name_; }
  uint32_t bits() const { return bits_; }
  bool operator==(const Decoder&) const = default;

 private:
  std::string name_;
  uint32_t bits_;
  CodeOrder order_;
  std::vector<float> values_;
  std::array<uint8_t, 8> shifts_{};  // of each of eight codes
  std::array<float, 16> few_{};      // of codes of 1 to 4 bits: values_, again and again
  // Of codes of 8 bits: what computes the same values faster than they are looked up.
  void (*arithmetic_)(const float* values, const std::byte* codes, uint64_t n,
                      float* out) = nullptr;
};

// Values of codes, for makers of decoders. Sources: the OCP specifications of 8-bit floating point
// and of microscaling (MX) formats; of the FNUZ types torch's casts.
std::vector<float> e4m3_values();
std::vector<float> e5m2_values();
std::vector<float> e4m3fnuz_values();
std::vector<float> e5m2fnuz_values();
std::vector<float> e2m1_values();  // of 4 bits
std::vector<float> e2m3_values();  // of 6 bits
// 2^(code - 127) of 8 bits. The last code is NaN in E8M0, and 2^128 where it is but an exponent.
std::vector<float> exponents(bool is_e8m0);
std::vector<float> unsigned_values(uint32_t bits);
std::vector<float> signed_values();  // of 8 bits

}  // namespace crossdock::transform
