// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/rounded.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace crossdock::deepspeed {

namespace {

using manifest::DType;

// NaN becomes torch's one NaN.
uint16_t to_bf16(uint32_t bits) {
  const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded);
}

uint16_t to_fp16(uint32_t bits) {
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  uint32_t out;
  if (magnitude > 0x7F800000) {
    out = 0x7E00;
  } else if (magnitude >= 0x477FF000) {  // 65520 and more are rounded to infinity
    out = 0x7C00;
  } else if (magnitude < 0x38800000) {  // below 2^-14: subnormal
    // Adding 0.5 leaves the value's multiples of 2^-24 in the low bits, rounded by the addition.
    out = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3F000000;
  } else {
    const uint32_t odd = magnitude >> 13 & 1;
    out = (magnitude - (112u << 23) + 0xFFF + odd) >> 13;
  }
  return static_cast<uint16_t>(sign | out);
}

template <class To>
void round_all(std::span<const uint32_t> from, std::span<std::byte> out, To&& to) {
  for (size_t i = 0; i < from.size(); ++i) {
    const uint16_t value = to(from[i]);
    std::memcpy(out.data() + 2 * i, &value, 2);
  }
}

}  // namespace

Result<void> round_weight(const ModelStates& model, manifest::Tensor& weight) {
  if (weight.dtype != DType::F32) return {};
  if (model.dtype == DType::UNSPECIFIED)
    return invalid(
        "--weights model: expected a ds_config in the checkpoint that says whether the job's own "
        "weights are bf16, fp16 or fp32, found none: leave the flag out, and let --dtype round "
        "the fp32 ones");
  weight.dtype = model.dtype;
  return {};
}

Result<void> read_rounded(DType dtype, uint64_t begin, std::span<std::byte> out,
                          const ReadFloats& read) {
  std::array<uint32_t, 16 << 10> floats;
  for (uint64_t at = 0, n = out.size() / 2; at < n; at += floats.size()) {
    const std::span some(floats.data(), std::min<uint64_t>(floats.size(), n - at));
    XD_TRY(read(begin + at, std::as_writable_bytes(some)));
    const std::span<std::byte> to = out.subspan(2 * at, 2 * some.size());
    if (dtype == DType::BF16) {
      round_all(some, to, to_bf16);
    } else {
      round_all(some, to, to_fp16);
    }
  }
  return {};
}

}  // namespace crossdock::deepspeed
