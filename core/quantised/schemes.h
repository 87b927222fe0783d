// SPDX-License-Identifier: Apache-2.0

// The schemes of quantisation that are understood, each by the names of what it leaves in files.
//
// Each is asked for every tensor: nothing, if this is not its codes. Errors: what belongs to the
// codes is missing, or does not fit them. The formulas, with their roundings, are those of the
// library that each was compared with (tests/interop/quantised.py).
#pragma once

#include "core/quantised/parts.h"

namespace crossdock::quantised {

using Maybe = std::optional<Weight>;
using Found = Result<Maybe>;

// FP8 of DeepSeek and transformers: X, X_scale_inv; also X.weight, X.scale (or X.qscale_weight).
// Values are float(code) * float(scale). Bytes are pairs of E2M1 codes there (FP4 experts of
// DeepSeek-V4); scales of bytes are exponents (MXFP8).
Found find_block_scaled(const Parts& parts, uint64_t codes);

// compressed-tensors' codes of 8 bits, ModelOpt's and FBGEMM's: X, X_scale, perhaps X_zero_point;
// ModelOpt's NVFP4, of pairs of codes, has X_scale_2 too.
Found find_scaled(const Parts& parts, uint64_t codes);

// compressed-tensors' packed codes: X_packed, X_scale, and X_shape, X_zero_point, X_g_idx or
// X_global_scale.
Found find_packed(const Parts& parts, uint64_t codes);

// MXFP4 of gpt-oss: X_blocks, X_scales, which are transposed.
Found find_mxfp4(const Parts& parts, uint64_t codes);

// bitsandbytes: X.absmax and others of 4 bits; X.weight, X.SCB of 8.
Found find_bitsandbytes(const Parts& parts, uint64_t codes);

// GPTQ and AWQ: X.qweight, X.qzeros, X.scales, X.g_idx.
Found find_gptq(const Parts& parts, uint64_t codes);

// ---- for schemes

using DecoderPtr = std::shared_ptr<const transform::Decoder>;

// Of FP8 types, E8M0 and signed bytes; nullptr: the type is no code of 8 bits.
DecoderPtr decoder_of(manifest::DType dtype);
DecoderPtr e2m1_pairs();                        // of 4 bits, the low half of a byte first
DecoderPtr e2m1_pairs_without_negative_zero();  // as ModelOpt has them
DecoderPtr exponent_bytes();                    // 2^(byte - 127)
DecoderPtr packed_integers(uint32_t bits, bool is_signed);  // signed: 2^(bits-1) less

// Each code's value, without scales.
Result<transform::Expression> values_of_codes(const Parts& parts, uint64_t codes,
                                              DecoderPtr decoder);
// Scales as a factor of codes: floats as they are, codes as values. Errors: another type.
Result<transform::Expression> scale_values(const Parts& parts, uint64_t scales);
// Zeros of one signed byte for each scale. Errors: another type or shape.
Result<transform::Expression> byte_zeros(const Parts& parts, uint64_t zeros,
                                         const std::vector<uint64_t>& scales);
// Errors: `groups`, which tensor `index` holds, are not one below `limit` for each column.
Result<void> check_groups(const Parts& parts, uint64_t index, std::span<const int64_t> groups,
                          uint64_t columns, uint64_t limit);
// Scales that are codes with a scale of their own, one for all.
enum class Second { kFactor, kDivisor };
Result<transform::Expression> two_level_scales(const Parts& parts, uint64_t scales, uint64_t second,
                                               Second is);

// The last two dimensions change places. Errors: there are no two.
Result<transform::Expression> transposed(transform::Expression of);
// Of two codes for each byte.
std::vector<uint64_t> with_pairs(std::vector<uint64_t> shape);
// X of "X_scale" and the like.
std::optional<std::string> without_suffix(const std::string& name, std::string_view suffix);
// "FP8 in blocks of 128x128".
std::string scheme_text(std::string_view what, const transform::Dequantisation& how);

}  // namespace crossdock::quantised
