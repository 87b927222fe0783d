// SPDX-License-Identifier: Apache-2.0
#include "core/rules/operations.h"

#include "core/base/text.h"

#include <crossdock/bytes.hpp>

#include <optional>

namespace crossdock::rules {

using base::list_text;
using transform::Expression;
using transform::View;

Operand Operand::of(Expression whole) {
  View view = View::of(whole.root().shape);
  return {std::move(whole), std::move(view), {}, {}};
}

Operand Operand::stored(uint64_t index, const manifest::Tensor& t) {
  return {transform::stored_elements(index, t),
          transform::stored_view(t),
          transform::stored_steps(t),
          {}};
}

Result<Expression> Operand::finish() && {
  Expression out = Expression::view(std::move(base), view, std::move(steps));
  for (const Map& map : maps) {
    XD_TRY_SET(out, Expression::map(std::move(out), map.mapping, map.operand));
  }
  return out;
}

Result<void> Operations::check_bound(
    const google::protobuf::RepeatedPtrField<pb::Operation>& ops) const {
  for (const pb::Operation& op : ops) {
    std::vector<std::string> texts(op.split().size().begin(), op.split().size().end());
    texts.insert(texts.end(), op.reshape().size().begin(), op.reshape().size().end());
    if (op.has_slice()) texts.insert(texts.end(), {op.slice().begin(), op.slice().size()});
    if (op.has_unpermute_rows()) texts.push_back(op.unpermute_rows());
    if (op.has_permute_rows()) texts.push_back(op.permute_rows());
    for (const std::string& text : texts) {
      auto n = text == "?" ? Result<uint64_t>(0) : variables_.number(text);
      if (!n && n.error().code == XD_NOT_FOUND) return std::move(n).error();
    }
  }
  return {};
}

Result<std::vector<uint64_t>> Operations::sizes(
    const google::protobuf::RepeatedPtrField<std::string>& texts, uint64_t whole,
    uint64_t layer) const {
  std::vector<uint64_t> out;
  std::optional<size_t> open;
  uint64_t product = 1;
  for (const std::string& text : texts) {
    if (text == "?" && open) return invalid("expected at most one size \"?\", found two");
    if (text == "?") open = out.size();
    out.push_back(1);
    if (text == "?") continue;
    XD_TRY_SET(out.back(), variables_.number(text, layer));
    if (__builtin_mul_overflow(product, out.back(), &product))
      return invalid("expected sizes below 2^64");
  }
  if (open && (product == 0 || whole % product != 0))
    return invalid(cat("expected sizes that divide ", whole, ", found a product of ", product));
  if (open) out[*open] = whole / product;
  return out;
}

// llama.cpp's pairs of neighbours, [head][pair][2], to Hugging Face's [head][2][pair], or back.
Result<std::string> Operations::unpermute(View& view, const std::string& heads, bool back,
                                          uint64_t layer) const {
  XD_TRY_SET(const uint64_t n_heads, variables_.number(heads, layer));
  const uint64_t rows = view.rank() > 0 ? view.size(0) : 1;
  if (n_heads == 0 || rows % n_heads != 0 || rows / n_heads % 2 != 0)
    return invalid(cat("expected rows for ", n_heads, " heads of an even size, found ", rows));
  const uint64_t pairs = rows / n_heads / 2;
  const uint64_t split[] = {n_heads, back ? 2 : pairs, back ? pairs : 2};
  XD_TRY(view.split(0, split));
  std::vector<uint64_t> order(view.rank());
  for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
  std::swap(order[1], order[2]);
  XD_TRY(view.permute(order));
  XD_TRY(view.merge(0, 3));
  return std::to_string(n_heads);
}

// Gives the arguments as the text of an expression has them.
Result<std::string> Operations::change(View& view, const pb::Operation& op, uint64_t layer) const {
  switch (op.kind_case()) {
    case pb::Operation::kSplit: {
      const uint64_t whole = op.split().dim() < view.rank() ? view.size(op.split().dim()) : 1;
      XD_TRY_SET(const auto parts, sizes(op.split().size(), whole, layer));
      XD_TRY(view.split(op.split().dim(), parts));
      return cat(op.split().dim(), ", ", list_text(parts));
    }
    case pb::Operation::kMerge:
      XD_TRY(view.merge(op.merge().dim(), op.merge().count()));
      return cat(op.merge().dim(), ", ", op.merge().count());
    case pb::Operation::kPermute: {
      const std::vector<uint64_t> order(op.permute().dim().begin(), op.permute().dim().end());
      XD_TRY(view.permute(order));
      return list_text(order);
    }
    case pb::Operation::kSlice: {
      XD_TRY_SET(const uint64_t begin, variables_.number(op.slice().begin(), layer));
      XD_TRY_SET(const uint64_t size, variables_.number(op.slice().size(), layer));
      XD_TRY(view.slice(op.slice().dim(), begin, size));
      return cat(op.slice().dim(), ", ", begin, ", ", size);
    }
    case pb::Operation::kChunk: {
      const pb::Chunk& chunk = op.chunk();
      const uint64_t whole = chunk.dim() < view.rank() ? view.size(chunk.dim()) : 0;
      if (chunk.of() == 0 || chunk.index() >= chunk.of() || whole % chunk.of() != 0)
        return invalid(cat("expected dimension ", chunk.dim(), " in ", chunk.of(),
                           " equal parts, found ", whole));
      const uint64_t size = whole / chunk.of();
      XD_TRY(view.slice(chunk.dim(), chunk.index() * size, size));
      return cat(chunk.dim(), ", ", chunk.index(), ", ", chunk.of());
    }
    case pb::Operation::kUnsqueeze:
      XD_TRY(view.unsqueeze(op.unsqueeze()));
      return cat(op.unsqueeze());
    case pb::Operation::kSqueeze:
      XD_TRY(view.squeeze(op.squeeze()));
      return cat(op.squeeze());
    case pb::Operation::kTranspose: {
      const uint64_t order[] = {1, 0};
      XD_TRY(view.permute(order));
      return std::string();
    }
    case pb::Operation::kUnpermuteRows:
      return unpermute(view, op.unpermute_rows(), false, layer);
    case pb::Operation::kPermuteRows:
      return unpermute(view, op.permute_rows(), true, layer);
    case pb::Operation::kReshape: {
      if (view.rank() > 1) XD_TRY(view.merge(0, view.rank()));
      XD_TRY_SET(const auto parts,
                 sizes(op.reshape().size(), view.rank() > 0 ? view.size(0) : 1, layer));
      XD_TRY(view.split(0, parts));
      return list_text(parts);
    }
    default:
      return invalid("expected an operation, found unstack in a part, or none that is known");
  }
}

Result<void> Operations::apply(Operand& operand, const pb::Operation& op, uint64_t layer) const {
  if (op.has_add()) {
    if (op.add() != 0) operand.maps.push_back({transform::Mapping::kAdd, op.add()});
    return {};
  }
  if (op.has_log_of_negated()) {
    if (op.log_of_negated()) operand.maps.push_back({transform::Mapping::kLogOfNegated, 0});
    return {};
  }
  XD_TRY_SET(std::string arguments, change(operand.view, op, layer));
  const auto* field = op.GetDescriptor()->FindFieldByNumber(op.kind_case());
  operand.steps.push_back({field->name(), std::move(arguments)});
  return {};
}

}  // namespace crossdock::rules
