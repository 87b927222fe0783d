// SPDX-License-Identifier: Apache-2.0

// Element types: their names, sizes and kinds, in one table. The numbers are DType's of
// manifest.proto.
//
// Source of the names: safetensors 0.8 (`Dtype` in its tensor.rs); C32 and C128 exist only in
// torch.
#pragma once

#include <crossdock/bytes.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace crossdock::manifest {

enum class DType : uint32_t {
  UNSPECIFIED,
  BOOL,
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  U64,
  I64,
  F16,
  BF16,
  F32,
  F64,
  F8_E4M3,
  F8_E5M2,
  F8_E4M3FNUZ,
  F8_E5M2FNUZ,
  F8_E8M0,
  C32,
  C64,
  C128,
  F4,
  F6_E2M3,
  F6_E3M2
};

enum class Kind : uint8_t { kNone, kBool, kInteger, kFloat, kFloat8, kSubByte, kComplex };

struct DTypeInfo {
  std::string_view name;  // as safetensors spells it: "BF16"
  uint32_t bits;          // of one element
  Kind kind;
};

inline constexpr auto kDTypes = std::to_array<DTypeInfo>({
    {"unspecified", 0, Kind::kNone},   {"BOOL", 8, Kind::kBool},
    {"U8", 8, Kind::kInteger},         {"I8", 8, Kind::kInteger},
    {"U16", 16, Kind::kInteger},       {"I16", 16, Kind::kInteger},
    {"U32", 32, Kind::kInteger},       {"I32", 32, Kind::kInteger},
    {"U64", 64, Kind::kInteger},       {"I64", 64, Kind::kInteger},
    {"F16", 16, Kind::kFloat},         {"BF16", 16, Kind::kFloat},
    {"F32", 32, Kind::kFloat},         {"F64", 64, Kind::kFloat},
    {"F8_E4M3", 8, Kind::kFloat8},     {"F8_E5M2", 8, Kind::kFloat8},
    {"F8_E4M3FNUZ", 8, Kind::kFloat8}, {"F8_E5M2FNUZ", 8, Kind::kFloat8},
    {"F8_E8M0", 8, Kind::kFloat8},     {"C32", 32, Kind::kComplex},
    {"C64", 64, Kind::kComplex},       {"C128", 128, Kind::kComplex},
    {"F4", 4, Kind::kSubByte},         {"F6_E2M3", 6, Kind::kSubByte},
    {"F6_E3M2", 6, Kind::kSubByte},
});

// Any number is allowed in; one that we do not know gives the "unspecified" row.
constexpr const DTypeInfo& info(DType dtype) {
  const auto i = static_cast<uint32_t>(dtype);
  return kDTypes[i < kDTypes.size() ? i : 0];
}
constexpr std::string_view name(DType dtype) { return info(dtype).name; }

inline std::optional<DType> dtype_named(std::string_view name) {
  for (uint32_t i = 1; i < kDTypes.size(); ++i) {
    if (kDTypes[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

// Bytes of n dense elements; nothing on overflow or when sub-byte elements do not fill whole bytes.
inline std::optional<uint64_t> dense_bytes(DType dtype, uint64_t n_elems) {
  const auto bits = checked_mul(n_elems, info(dtype).bits);
  if (!bits || *bits % 8 != 0) return std::nullopt;
  return *bits / 8;
}

}  // namespace crossdock::manifest
