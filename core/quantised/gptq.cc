// SPDX-License-Identifier: Apache-2.0

// GPTQ and AWQ: integers in words, whose matrix is the transpose of the weight.
#include "core/base/text.h"
#include "core/quantised/schemes.h"

#include <algorithm>

namespace crossdock::quantised {

using manifest::DType;
using manifest::Tensor;
using transform::CodeOrder;
using transform::Decoder;
using transform::Dequantisation;
using transform::Expression;

namespace {

struct Tensors {
  std::string module;  // with its dot
  uint64_t codes, scales, zeros;
  uint64_t inputs = 0, outputs = 0;  // columns and rows of the weight
  uint32_t bits = 0;
};

std::string shapes_text(const Parts& parts, const Tensors& all) {
  std::string out;
  for (const uint64_t i : {all.codes, all.scales, all.zeros})
    out += cat(out.empty() ? "" : ", ", base::printable(parts.tensor(i).name), " ",
               base::list_text(parts.tensor(i).shape));
  return out;
}

Error unfit(const Parts& parts, const Tensors& all) {
  return invalid(cat("expected codes, scales and zeros of GPTQ or AWQ that fit each other, found ",
                     shapes_text(parts, all)));
}

// As config.json tells, or as the scales divide the inputs. The last group may be short.
Result<uint64_t> group_size(const Parts& parts, const Tensors& all) {
  const uint64_t groups = parts.tensor(all.scales).shape[0];
  const auto& told = parts.config().group_sizes;
  for (const uint64_t size : told) {
    if (size > 0 && all.inputs / size + (all.inputs % size != 0) == groups) return size;
  }
  if (told.empty() && all.inputs > 0 && all.inputs % groups == 0) return all.inputs / groups;
  if (!told.empty())
    return invalid(cat("expected groups of ", told[0], ", as config.json says, for ", all.inputs,
                       " inputs, found ", groups, " groups: ", shapes_text(parts, all)));
  return unfit(parts, all);
}

// GPTQ's first format keeps each zero less one. GPTQModel subtracts from whole words, so that a
// zero of 0 borrows of its neighbour; but for 3 bits, which straddle words.
Result<Expression> zeros_of(const Parts& parts, const Tensors& all) {
  Expression words = parts.expression(all.zeros);
  auto values = transform::unsigned_values(all.bits);
  if (parts.config().checkpoint_format != "gptq_v2") {
    if (parts.config().is_of_gptqmodel && 32 % all.bits == 0) {
      uint32_t one = 0;  // of each zero
      for (uint32_t bit = 0; bit < 32; bit += all.bits) one |= 1u << bit;
      XD_TRY_SET(words, Expression::map(std::move(words), transform::Mapping::kAddWord, 0, one));
    } else {
      std::rotate(values.begin(), values.begin() + 1, values.end());
    }
  }
  Dequantisation how;
  how.decoder = std::make_shared<const Decoder>("zeros", all.bits, std::move(values));
  how.rows = parts.tensor(all.scales).shape[0];
  how.columns = all.outputs;
  XD_TRY_SET(Expression zeros, Expression::dequantise({std::move(words), {}, {}, {}}, how,
                                                      DType::F32, {how.rows, how.columns}));
  return transposed(std::move(zeros));
}

// The groups of columns, if they are not in order.
Result<std::optional<Expression>> groups_of(const Parts& parts, const Tensors& all, uint64_t size,
                                            std::vector<uint64_t>& of) {
  const auto index = parts.find(all.module + "g_idx");
  if (!index) return std::optional<Expression>();
  of.push_back(*index);
  XD_TRY_SET(const auto numbers, parts.integers(*index));
  XD_TRY(check_groups(parts, *index, numbers, all.inputs, parts.tensor(all.scales).shape[0]));
  bool is_in_order = true;
  for (uint64_t i = 0; i < numbers.size(); ++i)
    is_in_order = is_in_order && static_cast<uint64_t>(numbers[i]) == i / size;
  return is_in_order ? std::optional<Expression>() : std::optional(parts.expression(*index));
}

Found gptq(const Parts& parts, const Tensors& all) {
  Weight out{
      all.module + "weight", "", {all.codes, all.scales, all.zeros}, parts.expression(all.codes)};
  XD_TRY_SET(const uint64_t group, group_size(parts, all));
  XD_TRY_SET(auto groups, groups_of(parts, all, group, out.of));
  XD_TRY_SET(Expression zeros, zeros_of(parts, all));
  XD_TRY_SET(Expression scales, transposed(parts.expression(all.scales)));
  XD_TRY_SET(Expression codes, transposed(std::move(out.values)));
  Dequantisation how;
  how.decoder = packed_integers(all.bits, false);
  how.rows = all.outputs;
  how.columns = all.inputs;
  how.block_columns = group;
  how.product = parts.tensor(all.scales).dtype;
  XD_TRY_SET(out.values, Expression::dequantise({std::move(codes), std::move(zeros),
                                                 std::move(scales), std::move(groups)},
                                                how, parts.result(), {all.outputs, all.inputs}));
  out.scheme = cat("GPTQ ", all.bits, " bits in groups of ", group);
  return Maybe(std::move(out));
}

Found awq(const Parts& parts, const Tensors& all) {
  XD_TRY_SET(const uint64_t group, group_size(parts, all));
  const uint64_t n_groups = parts.tensor(all.scales).shape[0];
  static const auto decoder = std::make_shared<const Decoder>(
      "awq", 4, transform::unsigned_values(4), CodeOrder::kInterleaved);
  Dequantisation how;
  how.decoder = decoder;
  how.rows = n_groups;
  how.columns = all.outputs;
  XD_TRY_SET(Expression zeros, Expression::dequantise({parts.expression(all.zeros), {}, {}, {}},
                                                      how, DType::F32, {n_groups, all.outputs}));
  how.rows = all.inputs;
  how.block_rows = group;
  how.block_columns = 1;
  how.product = parts.tensor(all.scales).dtype;
  XD_TRY_SET(Expression values,
             Expression::dequantise(
                 {parts.expression(all.codes), std::move(zeros), parts.expression(all.scales), {}},
                 how, parts.result(), {all.inputs, all.outputs}));
  XD_TRY_SET(values, transposed(std::move(values)));
  return Maybe(Weight{all.module + "weight",
                      cat("AWQ in groups of ", group),
                      {all.codes, all.scales, all.zeros},
                      std::move(values)});
}

}  // namespace

Found find_gptq(const Parts& parts, uint64_t codes) {
  const Tensor& t = parts.tensor(codes);
  const auto module = without_suffix(t.target(), "qweight");
  if (!module || t.dtype != DType::I32) return Maybe();
  Tensors all{*module, codes, 0, 0};
  XD_TRY_SET(all.scales, parts.need(*module + "scales", codes));
  XD_TRY_SET(all.zeros, parts.need(*module + "qzeros", codes));
  const Tensor& s = parts.tensor(all.scales);
  const Tensor& z = parts.tensor(all.zeros);
  const bool is_float = s.dtype == DType::F16 || s.dtype == DType::BF16 || s.dtype == DType::F32;
  if (t.shape.size() != 2 || s.shape.size() != 2 || z.shape.size() != 2 || !is_float ||
      z.dtype != DType::I32 || s.shape[0] != z.shape[0] || s.shape[1] == 0 || s.shape[0] == 0)
    return unfit(parts, all);
  all.outputs = s.shape[1];
  const uint64_t bits = z.shape[1] * 32 / all.outputs;
  if (bits < 1 || bits > 8 || z.shape[1] * 32 != bits * all.outputs) return unfit(parts, all);
  all.bits = static_cast<uint32_t>(bits);
  const auto& told = parts.config().bits;
  if (!told.empty() && std::find(told.begin(), told.end(), bits) == told.end())
    return invalid(cat("expected codes of ", told[0], " bits, as config.json says, found ", bits,
                       ": ", shapes_text(parts, all)));
  if (bits > 4 && bits != 8)
    return unsupported(cat("expected GPTQ codes of 2, 3, 4 or 8 bits, found ", bits, ": ",
                           shapes_text(parts, all)));
  // The words of GPTQ hold inputs, those of AWQ outputs.
  if (t.shape[1] == all.outputs && parts.config().method != "awq") {
    if (!parts.has_config())
      return invalid(
          "expected config.json, which tells how GPTQ keeps zeros, found none: name the "
          "folder");
    all.inputs = t.shape[0] * 32 / bits;
    return gptq(parts, all);
  }
  all.inputs = t.shape[0];
  if (bits != 4 || t.shape[1] * 8 != all.outputs) return unfit(parts, all);
  return awq(parts, all);
}

}  // namespace crossdock::quantised
