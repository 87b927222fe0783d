// SPDX-License-Identifier: Apache-2.0

// Codes of 8 bits, or pairs of 4, in the shape of the weight, with scales beside them.
#include "core/base/text.h"
#include "core/quantised/schemes.h"

namespace crossdock::quantised {

using manifest::DType;
using manifest::Kind;
using manifest::Tensor;
using transform::Dequantisation;
using transform::Expression;

namespace {

bool is_float8(const Tensor& t) {
  return manifest::info(t.dtype).kind == Kind::kFloat8 && t.dtype != DType::F8_E8M0;
}
bool is_byte(const Tensor& t) { return t.dtype == DType::U8 || t.dtype == DType::I8; }

// The scale of FP8 weights as transformers renames it.
std::optional<uint64_t> block_scales(const Parts& parts, const Tensor& t) {
  if (const auto found = parts.find(t.target() + "_scale_inv")) return found;
  const auto module = without_suffix(t.target(), ".weight");
  if (!module) return std::nullopt;
  if (const auto found = parts.find(*module + ".scale")) return found;
  return parts.find(*module + ".qscale_weight");
}

// Of a file without config.json: that the last block cannot be a short one of 128, as DeepSeek has
// them, where the others divide the matrix evenly.
Result<void> check_certain(const Parts& parts, const Tensor& codes, const Dequantisation& how) {
  constexpr uint64_t kUsual = 128;
  const auto is_certain = [](uint64_t n, uint64_t block) {
    return block == kUsual || block == n || (n + kUsual - 1) / kUsual != n / block;
  };
  if (!parts.config().method.empty() || !parts.config().block.empty() || how.rows == 0 ||
      how.columns == 0 ||
      (is_certain(how.rows, how.block_rows) && is_certain(how.columns, how.block_columns)))
    return {};
  return invalid(cat("expected config.json's quantization_config to tell the blocks of ",
                     base::printable(codes.name), ", which may be of ", how.block_rows, "x",
                     how.block_columns, " or of 128x128, found none: name the folder"));
}

// ModelOpt's NVFP4, or MXFP4 in the same shape.
Found find_fp4(const Parts& parts, uint64_t codes, uint64_t scales) {
  const Tensor& t = parts.tensor(codes);
  const Tensor& s = parts.tensor(scales);
  Weight out{t.target(), "", {codes, scales}, parts.expression(codes)};
  XD_TRY_SET(Expression factor, scale_values(parts, scales));
  const bool is_nvfp4 = s.dtype == DType::F8_E4M3;
  if (is_nvfp4) {
    XD_TRY_SET(const uint64_t second, parts.need(t.target() + "_scale_2", codes));
    XD_TRY_SET(factor, two_level_scales(parts, scales, second, Second::kFactor));
    out.of.push_back(second);
  } else if (s.dtype != DType::U8 && s.dtype != DType::F8_E8M0) {
    return Maybe();  // bytes that are no pairs of E2M1
  }
  const auto shape = with_pairs(t.shape);
  XD_TRY_SET(const Dequantisation how,
             by_blocks(is_nvfp4 ? e2m1_pairs_without_negative_zero() : e2m1_pairs(),
                       matrices_of(shape), s.shape));
  out.scheme = is_nvfp4 ? "NVFP4 of ModelOpt" : scheme_text("MXFP4", how);
  XD_TRY_SET(out.values, Expression::dequantise({std::move(out.values), {}, std::move(factor), {}},
                                                how, parts.result(), shape));
  return Maybe(std::move(out));
}

}  // namespace

Found find_block_scaled(const Parts& parts, uint64_t codes) {
  const Tensor& t = parts.tensor(codes);
  const bool is_pair = is_byte(t);
  if (!is_float8(t) && !is_pair) return Maybe();
  const auto scales = block_scales(parts, t);
  if (!scales) return Maybe();
  const auto shape = is_pair ? with_pairs(t.shape) : t.shape;
  XD_TRY_SET(const Dequantisation how,
             by_blocks(is_pair ? e2m1_pairs() : decoder_of(t.dtype), matrices_of(shape),
                       parts.tensor(*scales).shape, parts.config().block));
  XD_TRY(check_certain(parts, t, how));
  XD_TRY_SET(Expression factor, scale_values(parts, *scales));
  XD_TRY_SET(Expression values,
             Expression::dequantise({parts.expression(codes), {}, std::move(factor), {}}, how,
                                    parts.result(), shape));
  return Maybe(Weight{
      t.target(), scheme_text(is_pair ? "FP4" : "FP8", how), {codes, *scales}, std::move(values)});
}

Found find_scaled(const Parts& parts, uint64_t codes) {
  const Tensor& t = parts.tensor(codes);
  const auto scales = parts.find(t.target() + "_scale");
  if (!scales || (!is_float8(t) && !is_byte(t))) return Maybe();
  if (t.dtype == DType::U8) return find_fp4(parts, codes, *scales);
  if (parts.config().method == "fbgemm_fp8" && t.shape.size() > 2)
    return unsupported(cat("expected matrices of FBGEMM's FP8, found experts in ",
                           base::printable(t.name), " of ", base::list_text(t.shape),
                           ": convert from the model's bf16 release"));
  const Tensor& s = parts.tensor(*scales);
  Weight out{t.target(), "", {codes, *scales}, parts.expression(codes)};
  XD_TRY_SET(Dequantisation how,
             by_blocks(decoder_of(t.dtype), matrices_of(t.shape), s.shape, parts.config().block));
  XD_TRY_SET(Expression factor, scale_values(parts, *scales));
  std::optional<Expression> zeros;
  if (const auto zero = parts.find(t.target() + "_zero_point")) {
    XD_TRY_SET(zeros, byte_zeros(parts, *zero, s.shape));
    out.of.push_back(*zero);
  }
  // compressed-tensors computes in the type of the scales (of bytes: in bfloat16); ModelOpt in that
  // of the result, but of bytes in float.
  const bool is_exponent = manifest::info(s.dtype).bits == 8;
  const bool is_modelopt = parts.config().method == "modelopt";
  how.product = !is_exponent ? s.dtype : is_modelopt ? DType::F32 : DType::BF16;
  if (is_modelopt && !is_exponent) how.scale = how.product = parts.result();
  out.scheme = scheme_text(t.dtype == DType::I8 ? "int8" : "FP8", how);
  XD_TRY_SET(out.values, Expression::dequantise(
                             {std::move(out.values), std::move(zeros), std::move(factor), {}}, how,
                             parts.result(), t.shape));
  return Maybe(std::move(out));
}

}  // namespace crossdock::quantised
