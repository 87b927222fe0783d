// SPDX-License-Identifier: Apache-2.0
#include "core/base/text.h"
#include "core/quantised/schemes.h"

namespace crossdock::quantised {

using manifest::DType;
using manifest::Tensor;
using transform::Dequantisation;
using transform::Expression;

Result<Expression> values_of_codes(const Parts& parts, uint64_t codes, DecoderPtr decoder) {
  const Tensor& t = parts.tensor(codes);
  Dequantisation how;
  how.decoder = std::move(decoder);
  how.columns = *checked_product(t.shape);
  return Expression::dequantise({parts.expression(codes), {}, {}, {}}, how, DType::F32, t.shape);
}

Result<Expression> scale_values(const Parts& parts, uint64_t scales) {
  const Tensor& t = parts.tensor(scales);
  if (t.dtype == DType::F32 || t.dtype == DType::BF16 || t.dtype == DType::F16)
    return parts.expression(scales);
  if (t.dtype == DType::U8) return values_of_codes(parts, scales, exponent_bytes());
  if (manifest::info(t.dtype).kind == manifest::Kind::kFloat8)
    return values_of_codes(parts, scales, decoder_of(t.dtype));
  return invalid(cat("expected scales of a floating type or of bytes, found ",
                     base::printable(t.name), " of type ", manifest::name(t.dtype)));
}

Result<Expression> byte_zeros(const Parts& parts, uint64_t zeros,
                              const std::vector<uint64_t>& scales) {
  const Tensor& z = parts.tensor(zeros);
  if (z.dtype == DType::I8 && z.shape == scales)
    return values_of_codes(parts, zeros, decoder_of(DType::I8));
  return invalid(cat("expected ", base::printable(z.name), " of type I8 and ",
                     base::list_text(scales), ", found ", manifest::name(z.dtype), " and ",
                     base::list_text(z.shape)));
}

Result<void> check_groups(const Parts& parts, uint64_t index, std::span<const int64_t> groups,
                          uint64_t columns, uint64_t limit) {
  const std::string name = base::printable(parts.tensor(index).name);
  if (groups.size() != columns)
    return invalid(cat("expected a group for each of ", columns, " columns in ", name, ", found ",
                       groups.size()));
  for (const int64_t group : groups) {
    if (group < 0 || static_cast<uint64_t>(group) >= limit)
      return corrupt(cat("expected groups below ", limit, " in ", name, ", found ", group));
  }
  return {};
}

Result<Expression> two_level_scales(const Parts& parts, uint64_t scales, uint64_t second,
                                    Second is) {
  const Tensor& t = parts.tensor(scales);
  const Tensor& s = parts.tensor(second);
  XD_TRY_SET(Dequantisation how, by_blocks(decoder_of(t.dtype), matrices_of(t.shape), s.shape));
  how.divides = is == Second::kDivisor;
  // A scalar does not widen torch's type of the quotient.
  const bool stays = how.divides && s.shape.empty();
  return Expression::dequantise({parts.expression(scales), {}, parts.expression(second), {}}, how,
                                stays ? DType::BF16 : DType::F32, t.shape);
}

Result<Expression> transposed(Expression of) {
  const auto shape = of.root().shape;
  if (shape.size() < 2)
    return invalid(cat("expected a matrix to transpose, found ", base::list_text(shape)));
  std::vector<uint64_t> order;
  for (uint64_t i = 0; i < shape.size(); ++i) order.push_back(i);
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  transform::View view = transform::View::of(shape);
  XD_TRY(view.permute(order));
  return Expression::view(std::move(of), view, {{"transpose", ""}});
}

std::vector<uint64_t> with_pairs(std::vector<uint64_t> shape) {
  if (!shape.empty()) shape.back() *= 2;
  return shape;
}

std::optional<std::string> without_suffix(const std::string& name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return std::nullopt;
  return name.substr(0, name.size() - suffix.size());
}

std::string scheme_text(std::string_view what, const Dequantisation& how) {
  if (how.block_rows == how.rows && how.block_columns == how.columns)
    return cat(what, ", one scale a tensor");
  if (how.block_rows == 1 && how.block_columns == how.columns)
    return cat(what, ", one scale a row");
  return cat(what, " in blocks of ", how.block_rows, "x", how.block_columns);
}

}  // namespace crossdock::quantised
