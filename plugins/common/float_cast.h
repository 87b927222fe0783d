// SPDX-License-Identifier: Apache-2.0

// What --dtype does in each writer that has it: which tensors are cast, what config.json then says,
// and what becomes of values that the new type cannot hold.
#pragma once

#include <crossdock/plugin.hpp>

#include <span>
#include <string>
#include <string_view>

namespace crossdock::common {

inline constexpr xd_option_desc kDtypeOption = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "dtype",
    "enum:bf16|fp16|fp32|source",
    "source",
    "element type of all F64, F32, F16 and BF16 tensors; others stay as they are"};
inline constexpr xd_option_desc kAllowOverflowOption = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "allow-overflow",
    "bool",
    "false",
    "let values beyond --dtype become infinite; they are counted in a note"};

// What the user asked for.
struct FloatCast {
  // What floating-point tensors are cast to; UNSPECIFIED: nothing is cast.
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  bool allow_overflow = false;

  static FloatCast from(const Options& options);
};

// A tensor as it is written.
struct CastTensor {
  uint64_t tensor = 0;  // in the manifest
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  bool is_cast = false;
  bool may_overflow = false;  // the cast can make an infinity of a finite value
  uint64_t n_elems = 0, n_bytes = 0;
};

// An error for a size that is none in whole bytes below 2^64.
Result<CastTensor> cast_tensor(const manifest::Tensor& tensor, uint64_t index, FloatCast cast);

// Elements to ask the host for.
xd_range range_of(const CastTensor& tensor, uint64_t begin, uint64_t count);

// config.json's text with the element type that was asked for; empty where it can be copied.
std::string changed_config(const manifest::Manifest& model, FloatCast cast);
// config.json among the auxiliary files; nullptr: there is none.
const manifest::AuxFile* find_config(const manifest::Manifest& model);

// The finite values that an item, or all of a file's, made infinite.
struct Overflow {
  uint64_t n_values = 0;
  uint64_t first = 0;  // the first tensor that has some, in the manifest

  void add(const Overflow& later);
};

// Of what was written of elements from `begin` on: the infinities, less those that the source had,
// which is looked at again, through a buffer of at most `memory` bytes, only where there are some.
Result<Overflow> count_overflow(const Host& host, const manifest::Manifest& model,
                                const CastTensor& tensor, uint64_t begin,
                                std::span<const std::byte> written, uint64_t memory);

// A note where the user allows it, else a refusal. `file`: what has them.
Result<void> report_overflow(const Host& host, const manifest::Manifest& model, FloatCast cast,
                             std::string_view file, const Overflow& overflow);

}  // namespace crossdock::common
