// SPDX-License-Identifier: Apache-2.0
#include "core/transform/expression.h"

#include "core/base/text.h"

#include <algorithm>
#include <charconv>

namespace crossdock::transform {

using manifest::DType;
using manifest::Tensor;

namespace {

// In which values are computed, and what they and their scales may be.
bool is_float(DType dtype) {
  return dtype == DType::F32 || dtype == DType::BF16 || dtype == DType::F16;
}

uint64_t blocks_of(uint64_t n, uint64_t block) { return n / block + (n % block != 0); }

// The elements of codes that each of `rows` takes, which are all that there are.
Result<uint64_t> row_codes_of(const Node& codes, const Dequantisation& how, uint64_t rows) {
  constexpr uint64_t kMaxRowBits = uint64_t{1} << 60;
  const uint64_t elem_bits = manifest::info(codes.dtype).bits;
  const auto n = checked_product(codes.shape);
  const auto bits = how.decoder->row_bits(how.columns);
  if (n && bits && *bits <= kMaxRowBits && elem_bits > 0 && elem_bits % 8 == 0) {
    const uint64_t needed = blocks_of(*bits, elem_bits);
    if (checked_mul(needed, rows) == n) return needed;
  }
  return invalid(cat("expected codes of ", how.decoder->bits(), " bits for ", how.rows, " x ",
                     how.columns, " values, found ", base::list_text(codes.shape), " of ",
                     manifest::name(codes.dtype)));
}

Result<void> check_scales(const Node& scales, uint64_t n, std::span<const uint64_t> shape) {
  if (!is_float(scales.dtype))
    return invalid(
        cat("expected scales or zeros of F32, BF16 or F16, found ", manifest::name(scales.dtype)));
  if (checked_product(scales.shape) == n) return {};
  return invalid(cat("expected ", n, " scales or zeros for ", base::list_text(shape), ", found ",
                     base::list_text(scales.shape)));
}

Result<void> check_groups(const Node& groups, uint64_t columns) {
  if (groups.dtype == DType::I32 && checked_product(groups.shape) == columns) return {};
  return invalid(cat("expected a group of type I32 for each of ", columns, " columns, found ",
                     base::list_text(groups.shape), " of ", manifest::name(groups.dtype)));
}

// How many matrices a tensor of `shape` is.
Result<uint64_t> count_matrices(const Dequantisation& how, DType dtype,
                                std::span<const uint64_t> shape) {
  for (const DType type : {how.scale, how.product, dtype}) {
    if (!is_float(type))
      return invalid(cat("expected to compute in F32, BF16 or F16, found ", manifest::name(type)));
  }
  const auto n = checked_product(shape), matrix = checked_mul(how.rows, how.columns);
  if (n == 0)
    return invalid(
        cat("expected codes of a weight, found ", base::list_text(shape), " without elements"));
  if (!n || !matrix || *matrix == 0 || *n % *matrix != 0)
    return invalid(cat("expected matrices of ", how.rows, " x ", how.columns, ", found ",
                       base::list_text(shape)));
  if (how.block_rows == 0 || how.block_columns == 0)
    return invalid(
        cat("expected blocks of 1 x 1 or more, found ", how.block_rows, " x ", how.block_columns));
  return *n / *matrix;
}

}  // namespace

uint32_t Expression::take_in(Expression other) {
  const auto shift = static_cast<uint32_t>(nodes_.size());
  for (Node& node : other.nodes_) {
    if (auto* viewed = std::get_if<Node::Viewed>(&node.what)) viewed->of += shift;
    if (auto* map = std::get_if<Node::Map>(&node.what)) map->of += shift;
    if (auto* dequantised = std::get_if<Node::Dequantised>(&node.what)) {
      dequantised->codes += shift;
      for (auto* child : {&dequantised->zeros, &dequantised->scales, &dequantised->groups}) {
        if (*child) **child += shift;
      }
    }
    if (auto* concat = std::get_if<Node::Concat>(&node.what)) {
      for (uint32_t& child : concat->of) child += shift;
    }
    nodes_.push_back(std::move(node));
  }
  return static_cast<uint32_t>(nodes_.size() - 1);
}

Expression Expression::stored(uint64_t tensor, DType dtype, std::vector<uint64_t> shape) {
  Expression out;
  out.nodes_.push_back({dtype, std::move(shape), Node::Stored{tensor}, 0});
  return out;
}

Expression Expression::view(Expression of, const View& view, std::vector<Step> steps) {
  if (view.is_all_of(of.root().shape)) return of;
  Node::Viewed viewed{static_cast<uint32_t>(of.nodes_.size() - 1), view.factors(), view.offset(),
                      std::move(steps)};
  // What lies in a row below is read through, whoever's it is.
  const bool is_run =
      viewed.factors.empty() || (viewed.factors.size() == 1 && viewed.factors[0].stride == 1);
  const uint32_t blocks = of.root().scratch_blocks + (is_run ? 0 : 1);
  of.nodes_.push_back({of.root().dtype, view.shape(), std::move(viewed), blocks});
  return of;
}

Result<Expression> Expression::concat(std::vector<Expression> of, uint64_t dim) {
  const DType dtype = of[0].root().dtype;
  std::vector<uint64_t> shape = of[0].root().shape;
  if (dim >= shape.size())
    return invalid(cat("expected a dimension below ", shape.size(), " to join, found ", dim));
  shape[dim] = 0;
  Node::Concat concat{{}, dim, {}, 0};
  uint32_t blocks = 0;
  for (const Expression& part : of) {
    const Node& node = part.root();
    for (size_t i = 0; i < shape.size(); ++i) {
      if (node.shape.size() == shape.size() && (i == dim || node.shape[i] == shape[i])) continue;
      return invalid(
          "expected tensors whose shapes differ along the joined dimension alone, found others");
    }
    if (node.dtype != dtype) return invalid("expected tensors of one type to join, found two");
    const auto inner = checked_product(std::span(node.shape).subspan(dim));
    const auto whole = inner ? checked_add(concat.whole, *inner) : std::nullopt;
    const auto size = checked_add(shape[dim], node.shape[dim]);
    if (!whole || !size) return invalid("expected fewer than 2^64 elements to join, found more");
    concat.whole = *whole;
    concat.inner.push_back(*inner);
    shape[dim] = *size;
    blocks = std::max(blocks, node.scratch_blocks);
  }
  Expression out;
  for (Expression& part : of) concat.of.push_back(out.take_in(std::move(part)));
  out.nodes_.push_back({dtype, std::move(shape), std::move(concat), blocks});
  return out;
}

Result<Expression> Expression::map(Expression of, Mapping mapping, float operand, uint32_t word) {
  const Node& node = of.root();
  const DType dtype = mapping == Mapping::kAddWord ? DType::I32 : DType::F32;
  if (node.dtype != dtype)
    return unsupported(cat("expected ", manifest::name(dtype), " values to compute on, found ",
                           manifest::name(node.dtype)));
  const auto below = static_cast<uint32_t>(of.nodes_.size() - 1);
  of.nodes_.push_back(
      {node.dtype, node.shape, Node::Map{below, mapping, operand, word}, node.scratch_blocks});
  return of;
}

Result<Expression> Expression::dequantise(Operands operands, const Dequantisation& how, DType dtype,
                                          std::vector<uint64_t> shape) {
  XD_TRY_SET(const uint64_t matrices, count_matrices(how, dtype, shape));
  Node::Dequantised out;
  out.decoder = how.decoder;
  out.rows = how.rows;
  out.columns = how.columns;
  out.block_rows = std::min(how.block_rows, how.rows);
  out.block_columns = std::min(how.block_columns, how.columns);
  out.scale_rows = blocks_of(out.rows, out.block_rows);
  out.scale_columns = blocks_of(out.columns, out.block_columns);
  out.divides = how.divides;
  out.factor = how.factor;
  out.scale = how.scale;
  out.product = how.product;
  const Node& codes = operands.codes.root();
  XD_TRY_SET(out.row_codes, row_codes_of(codes, how, matrices * how.rows));
  uint32_t below = codes.scratch_blocks;
  for (const auto* child : {&operands.zeros, &operands.scales}) {
    if (!*child) continue;
    XD_TRY(check_scales((*child)->root(), matrices * out.scale_rows * out.scale_columns, shape));
    below = std::max(below, (*child)->scratch_blocks());
  }
  if (operands.groups) {
    XD_TRY(check_groups(operands.groups->root(), how.columns));
    below = std::max(below, operands.groups->scratch_blocks());
  }
  Expression whole;
  out.codes = whole.take_in(std::move(operands.codes));
  if (operands.zeros) out.zeros = whole.take_in(*std::move(operands.zeros));
  if (operands.scales) out.scales = whole.take_in(*std::move(operands.scales));
  if (operands.groups) out.groups = whole.take_in(*std::move(operands.groups));
  whole.nodes_.push_back({dtype, std::move(shape), std::move(out), below + 1});
  return whole;
}

bool Expression::reorders_values() const {
  return std::any_of(nodes_.begin(), nodes_.end(), [this](const Node& node) {
    const auto* viewed = std::get_if<Node::Viewed>(&node.what);
    const uint32_t below = viewed ? nodes_[viewed->of].scratch_blocks : 0;
    return below > 0 && node.scratch_blocks > below;
  });
}

std::vector<uint64_t> Expression::tensors() const {
  std::vector<uint64_t> out;
  for (const Node& node : nodes_) {
    const auto* stored = std::get_if<Node::Stored>(&node.what);
    if (stored && std::find(out.begin(), out.end(), stored->tensor) == out.end())
      out.push_back(stored->tensor);
  }
  return out;
}

namespace {

std::string call_text(const Step& step, const std::string& operand) {
  return cat(step.name, "(", step.arguments, step.arguments.empty() ? "" : ", ", operand, ")");
}

// All, or of a long list the first and the last.
std::string joined_text(const std::vector<std::string>& operands) {
  constexpr size_t kMax = 4;
  if (operands.size() > kMax)
    return cat(operands[0], ", ", operands[1], ", ..., ", operands.back());
  std::string out;
  for (const std::string& operand : operands) out += cat(out.empty() ? "" : ", ", operand);
  return out;
}

// As short as says which float it is.
std::string number_text(float value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}  // namespace

std::string Expression::text(std::span<const Tensor> source) const {
  return text_of(static_cast<uint32_t>(nodes_.size() - 1), source);
}

std::string Expression::text_of(uint32_t index, std::span<const Tensor> source,
                                size_t but_steps) const {
  const auto& what = nodes_[index].what;
  if (const auto* stored = std::get_if<Node::Stored>(&what)) return source[stored->tensor].name;
  if (const auto* map = std::get_if<Node::Map>(&what)) {
    const Step step = map->mapping == Mapping::kAdd       ? Step{"add", number_text(map->operand)}
                      : map->mapping == Mapping::kAddWord ? Step{"add_word", cat(map->word)}
                                                          : Step{"log_of_negated", ""};
    return call_text(step, text_of(map->of, source));
  }
  if (const auto* dequantised = std::get_if<Node::Dequantised>(&what)) {
    std::vector<std::string> operands{text_of(dequantised->codes, source)};
    for (const auto& child : {dequantised->zeros, dequantised->scales, dequantised->groups}) {
      if (child) operands.push_back(text_of(*child, source));
    }
    return call_text({"dequantise", dequantised->decoder->name()}, joined_text(operands));
  }
  if (const auto* viewed = std::get_if<Node::Viewed>(&what)) {
    std::string out = text_of(viewed->of, source);
    for (size_t i = 0; i + but_steps < viewed->steps.size(); ++i)
      out = call_text(viewed->steps[i], out);
    return out;
  }
  const auto& concat = std::get<Node::Concat>(what);
  // A new dimension before each, along which they are joined, is a stack.
  const auto is_new = [&](uint32_t child) {
    const auto* viewed = std::get_if<Node::Viewed>(&nodes_[child].what);
    return viewed && !viewed->steps.empty() && viewed->steps.back().name == "unsqueeze" &&
           viewed->steps.back().arguments == std::to_string(concat.dim);
  };
  const bool is_stack = std::all_of(concat.of.begin(), concat.of.end(), is_new);
  std::vector<std::string> operands;
  for (const uint32_t child : concat.of)
    operands.push_back(text_of(child, source, is_stack ? 1 : 0));
  return call_text({is_stack ? "stack" : "concat", std::to_string(concat.dim)},
                   joined_text(operands));
}

Expression stored_elements(uint64_t index, const Tensor& t) {
  return Expression::stored(
      index, t.dtype, t.strides.empty() ? t.shape : std::vector<uint64_t>{t.storage_elements});
}

View stored_view(const Tensor& t) {
  return t.strides.empty() ? View::of(t.shape)
                           : View::strided(t.shape, t.strides, t.storage_offset);
}

std::vector<Step> stored_steps(const Tensor& t) {
  if (t.strides.empty()) return {};
  const std::string offset = t.storage_offset > 0 ? cat(", ", t.storage_offset) : "";
  return {{"strided", base::list_text(t.strides) + offset}};
}

Expression stored_tensor(uint64_t index, const Tensor& t) {
  return Expression::view(stored_elements(index, t), stored_view(t), stored_steps(t));
}

void describe(const Expression& expression, std::span<const Tensor> source, Tensor& t) {
  if (expression.as_stored()) return;
  t.expression = expression.text(source);
  t.strides.clear();
  t.storage_offset = t.storage_elements = 0;
}

}  // namespace crossdock::transform
