// SPDX-License-Identifier: Apache-2.0

// Codes packed into words or bytes along a row: compressed-tensors, and MXFP4 of gpt-oss.
#include "core/base/text.h"
#include "core/model/check.h"
#include "core/quantised/schemes.h"

#include <algorithm>
#include <cmath>

namespace crossdock::quantised {

using manifest::DType;
using manifest::Tensor;
using transform::Dequantisation;
using transform::Expression;

namespace {

// transformers multiplies by 2^128, which no float is: half of it is one, of twice the code.
DecoderPtr doubled_e2m1() {
  static const DecoderPtr out = [] {
    auto values = transform::e2m1_values();
    for (float& value : values) value *= 2;
    return std::make_shared<const transform::Decoder>("e2m1", 4, std::move(values));
  }();
  return out;
}
DecoderPtr halved_exponents() {
  static const DecoderPtr out = [] {
    std::vector<float> values;
    for (int code = 0; code < 256; ++code) values.push_back(std::ldexp(1.0f, code - 128));
    return std::make_shared<const transform::Decoder>("exponent", 8, std::move(values));
  }();
  return out;
}

// Words of 32 bits, and so as many for 32 codes as these have bits.
uint64_t words(uint64_t codes, uint64_t bits) {
  return codes / 32 * bits + (codes % 32 * bits + 31) / 32;
}

// The shape that compressed-tensors keeps of the weight.
Result<std::vector<uint64_t>> kept_shape(const Parts& parts, uint64_t codes, uint64_t kept) {
  const Tensor& t = parts.tensor(codes);
  const uint64_t count = model::element_count(parts.tensor(kept));
  const auto wrong = [&](const std::string& found) {
    return invalid(cat("expected ", base::printable(parts.tensor(kept).name),
                       " to tell the shape of the weight packed as ", base::list_text(t.shape),
                       ", found ", found));
  };
  if (count != t.shape.size()) return wrong(cat(count, " numbers"));
  XD_TRY_SET(const auto numbers, parts.integers(kept));
  std::vector<uint64_t> out(numbers.begin(), numbers.end());
  const bool is_one =
      std::all_of(numbers.begin(), numbers.end(), [](int64_t n) { return n > 0; }) &&
      std::equal(out.begin(), out.end() - 1, t.shape.begin());
  if (!is_one || out.back() > 32 * t.shape.back()) return wrong(base::list_text(numbers));
  return out;
}

// How many bits a code has: those that config.json tells and the sizes allow, else what the sizes
// allow.
Result<uint32_t> bits_of(const Parts& parts, const Tensor& t, uint64_t columns) {
  std::vector<uint64_t> fit, told;
  for (uint64_t bits = 1; bits <= 8; ++bits) {
    if (words(columns, bits) != t.shape.back()) continue;
    fit.push_back(bits);
    const auto& said = parts.config().bits;
    if (std::find(said.begin(), said.end(), bits) != said.end()) told.push_back(bits);
  }
  const auto& found = told.empty() && parts.config().bits.empty() ? fit : told;
  if (found.size() == 1) return static_cast<uint32_t>(found[0]);
  std::string said;
  for (const uint64_t bits : parts.config().bits) said += cat(said.empty() ? "" : " or ", bits);
  return invalid(cat("expected codes of ", said.empty() ? "a number of" : said, " bits in ",
                     base::printable(t.name), ", of which ", columns, " make a row, found ",
                     t.shape.back(), " words a row"));
}

// Zeros packed along the rows, as a value for each scale.
Result<Expression> packed_zeros(const Parts& parts, uint64_t zeros, uint32_t bits,
                                const std::vector<uint64_t>& scales) {
  const Tensor& z = parts.tensor(zeros);
  const Matrices grid = matrices_of(scales), packed = matrices_of(z.shape);
  if (scales.size() < 2 || z.shape.size() != scales.size() || packed.count != grid.count ||
      packed.columns != grid.columns || packed.rows != words(grid.rows, bits))
    return invalid(cat("expected zeros of ", bits, " bits for scales of ", base::list_text(scales),
                       ", found ", base::printable(z.name), " of ", base::list_text(z.shape)));
  XD_TRY_SET(Expression codes, transposed(parts.expression(zeros)));
  Dequantisation how;
  how.decoder = packed_integers(bits, false);
  how.rows = grid.columns;
  how.columns = grid.rows;
  std::vector<uint64_t> turned = scales;
  std::swap(turned[turned.size() - 1], turned[turned.size() - 2]);
  XD_TRY_SET(Expression values,
             Expression::dequantise({std::move(codes), {}, {}, {}}, how, DType::F32, turned));
  return transposed(std::move(values));
}

// Integers in words of 32 bits, each row a stream of codes from the lowest bit on.
Found find_integers(const Parts& parts, uint64_t codes, uint64_t scales, const std::string& base) {
  const Tensor& t = parts.tensor(codes);
  const Tensor& s = parts.tensor(scales);
  XD_TRY_SET(const uint64_t kept, parts.need(base + "_shape", codes));
  XD_TRY_SET(const auto shape, kept_shape(parts, codes, kept));
  XD_TRY_SET(const uint32_t bits, bits_of(parts, t, shape.back()));
  std::vector<uint64_t> of{codes, scales, kept};
  const auto zero = parts.find(base + "_zero_point");
  std::optional<Expression> zeros, groups;
  // Packed zeros are counted from the lowest code, as the codes themselves are.
  const bool is_packed = zero && parts.tensor(*zero).dtype == DType::I32;
  if (is_packed) {
    XD_TRY_SET(zeros, packed_zeros(parts, *zero, bits, s.shape));
  } else if (zero) {
    XD_TRY_SET(zeros, byte_zeros(parts, *zero, s.shape));
  }
  if (zero) of.push_back(*zero);
  const auto decoder = packed_integers(bits, !is_packed);
  XD_TRY_SET(Dequantisation how, by_blocks(decoder, matrices_of(shape), s.shape));
  const auto& told = parts.config().group_sizes;
  const bool has_groups = how.block_columns < how.columns;
  if (has_groups && !told.empty() &&
      std::find(told.begin(), told.end(), how.block_columns) == told.end())
    return invalid(cat("expected groups of ", told[0], ", as config.json says, found ",
                       base::printable(s.name), " of ", base::list_text(s.shape), " for ",
                       shape.back(), " columns"));
  if (const auto index = parts.find(base + "_g_idx")) {
    XD_TRY_SET(const auto numbers, parts.integers(*index));
    const bool is_unused = std::find(numbers.begin(), numbers.end(), -1) != numbers.end();
    if (!is_unused) {
      XD_TRY(check_groups(parts, *index, numbers, how.columns, matrices_of(s.shape).columns));
      groups = parts.expression(*index);
    }
    of.push_back(*index);
  }
  how.product = s.dtype;
  XD_TRY_SET(Expression factor, scale_values(parts, scales));
  std::string scheme = scheme_text(decoder->name(), how);
  XD_TRY_SET(Expression values, Expression::dequantise({parts.expression(codes), std::move(zeros),
                                                        std::move(factor), std::move(groups)},
                                                       how, parts.result(), shape));
  return Maybe(Weight{base, std::move(scheme), std::move(of), std::move(values)});
}

// Small floats in bytes: NVFP4, MXFP4 and MXFP6, whose values are bfloat16 first.
Found find_floats(const Parts& parts, uint64_t codes, uint64_t scales, const std::string& base) {
  const Tensor& t = parts.tensor(codes);
  const Tensor& s = parts.tensor(scales);
  Weight out{base, "", {codes, scales}, parts.expression(codes)};
  const auto global = parts.find(base + "_global_scale");
  const bool is_nvfp4 = s.dtype == DType::F8_E4M3;
  XD_TRY_SET(Expression factor, scale_values(parts, scales));
  if (is_nvfp4) {
    XD_TRY_SET(const uint64_t second, parts.need(base + "_global_scale", codes));
    XD_TRY_SET(factor, two_level_scales(parts, scales, second, Second::kDivisor));
  }
  if (global) out.of.push_back(*global);
  // Blocks of 32 codes take 16 bytes in MXFP4, and 24 in MXFP6.
  const bool is_fp6 =
      !is_nvfp4 && matrices_of(t.shape).columns == 24 * matrices_of(s.shape).columns;
  static const auto e2m3 =
      std::make_shared<const transform::Decoder>("e2m3", 6, transform::e2m3_values());
  std::vector<uint64_t> shape = with_pairs(t.shape);
  if (is_fp6) shape.back() = t.shape.back() / 3 * 4;
  XD_TRY_SET(Dequantisation how,
             by_blocks(is_fp6 ? e2m3 : e2m1_pairs(), matrices_of(shape), s.shape));
  how.product = DType::BF16;
  out.scheme =
      is_nvfp4 ? "NVFP4 of compressed-tensors" : scheme_text(is_fp6 ? "MXFP6" : "MXFP4", how);
  XD_TRY_SET(out.values, Expression::dequantise({std::move(out.values), {}, std::move(factor), {}},
                                                how, parts.result(), shape));
  return Maybe(std::move(out));
}

}  // namespace

Found find_packed(const Parts& parts, uint64_t codes) {
  const Tensor& t = parts.tensor(codes);
  const auto base = without_suffix(t.target(), "_packed");
  if (!base || (t.dtype != DType::I32 && t.dtype != DType::U8) || t.shape.size() < 2)
    return Maybe();
  XD_TRY_SET(const uint64_t scales, parts.need(*base + "_scale", codes));
  return t.dtype == DType::I32 ? find_integers(parts, codes, scales, *base)
                               : find_floats(parts, codes, scales, *base);
}

Found find_mxfp4(const Parts& parts, uint64_t codes) {
  const Tensor& t = parts.tensor(codes);
  const auto base = without_suffix(t.target(), "_blocks");
  if (!base || t.dtype != DType::U8 || t.shape.size() < 3) return Maybe();
  XD_TRY_SET(const uint64_t scales, parts.need(*base + "_scales", codes));
  const Tensor& s = parts.tensor(scales);
  const std::vector<uint64_t> blocks(t.shape.begin(), t.shape.end() - 1);
  if (t.shape.back() != 16 || s.shape != blocks || s.dtype != DType::U8)
    return invalid(cat("expected blocks of 16 bytes with a byte of scale each, found ",
                       base::printable(t.name), " of ", base::list_text(t.shape), " and ",
                       base::printable(s.name), " of type ", manifest::name(s.dtype), " and ",
                       base::list_text(s.shape)));
  std::vector<uint64_t> shape(blocks.begin(), blocks.end() - 1);
  shape.back() = blocks[blocks.size() - 2];
  shape.push_back(blocks.back() * 32);
  XD_TRY_SET(const Dequantisation how, by_blocks(doubled_e2m1(), matrices_of(shape), s.shape));
  XD_TRY_SET(Expression factor, values_of_codes(parts, scales, halved_exponents()));
  XD_TRY_SET(Expression values,
             Expression::dequantise({parts.expression(codes), {}, std::move(factor), {}}, how,
                                    parts.result(), shape));
  XD_TRY_SET(values, transposed(std::move(values)));
  return Maybe(Weight{*base, "MXFP4 of gpt-oss", {codes, scales}, std::move(values)});
}

}  // namespace crossdock::quantised
