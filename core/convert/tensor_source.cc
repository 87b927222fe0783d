// SPDX-License-Identifier: Apache-2.0
#include "core/convert/tensor_source.h"

#include <algorithm>
#include <utility>

namespace crossdock::convert {

using transform::Expression;

namespace {

constexpr uint64_t kMaxScratch = 4 << 20;

// Expressions for a source without rules: nothing when all its tensors are read as they are, which
// is the common case and costs no lookup.
std::vector<Expression> as_stored(manifest::Manifest& m) {
  std::vector<Expression> out;
  const auto is_strided = [](const manifest::Tensor& t) { return !t.strides.empty(); };
  if (std::none_of(m.tensors.begin(), m.tensors.end(), is_strided)) return out;
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    out.push_back(transform::stored_tensor(i, m.tensors[i]));
    transform::describe(out.back(), m.tensors, m.tensors[i]);
  }
  return out;
}

bool any_gathers(const std::vector<Expression>& expressions) {
  return std::any_of(expressions.begin(), expressions.end(),
                     [](const Expression& e) { return e.scratch_blocks() > 0; });
}

}  // namespace

TensorSource::TensorSource(OpenModel& model, manifest::Manifest m, std::vector<Expression> made,
                           std::vector<manifest::Tensor> stored)
    : model_(model), manifest_(std::move(m)), stored_(std::move(stored)) {
  expressions_ = made.empty() ? as_stored(manifest_) : std::move(made);
  gathers_ = any_gathers(expressions_);
}

Result<rules::Composed> TensorSource::compose(const rules::ModuleRule& rule, rules::Names names,
                                              manifest::Manifest& m) const {
  return rules::compose(rule, names, expressions_, stored_.empty() ? manifest_.tensors : stored_,
                        m);
}

void TensorSource::take(rules::Composed composed, const manifest::Manifest& m) {
  if (composed.expressions.empty()) return;
  if (stored_.empty()) stored_ = std::move(manifest_.tensors);
  manifest_ = m;
  expressions_ = std::move(composed.expressions);
  gathers_ = any_gathers(expressions_);
}

uint64_t TensorSource::gather_bytes() const {
  return std::min(kMaxScratch, 2 * model_.host().piece_bytes());
}

uint64_t TensorSource::scratch_bytes() const {
  return (gathers_ ? gather_bytes() : 0) + model_.scratch_bytes();
}

Result<void> TensorSource::read(uint64_t tensor, uint64_t begin, uint64_t count,
                                std::span<std::byte> out) {
  if (expressions_.empty()) return model_.read(tensor, begin, count, out);
  const Expression& expression = expressions_[tensor];
  if (const auto* stored = expression.as_stored())
    return model_.read(stored->tensor, begin, count, out);
  if (count == 0) return {};
  const uint64_t n_scratch = expression.scratch_blocks() > 0 ? gather_bytes() : 0;
  const base::Block scratch(model_.host().memory(), n_scratch);
  if (n_scratch > 0 && !scratch.data)
    return Error{XD_NO_MEMORY, "expected room to lay out a tensor: raise --memory"};
  return expression.evaluate(
      begin, out, {scratch.data, n_scratch},
      [this](uint64_t stored, uint64_t from, uint64_t n, std::span<std::byte> to) {
        return model_.read(stored, from, n, to);
      });
}

bool TensorSource::likes_large_reads(uint64_t tensor) const {
  if (manifest::info(manifest_.tensors[tensor].dtype).bits % 8 != 0) return false;
  if (!expressions_.empty() && expressions_[tensor].reorders_values()) return true;
  return sequential_of(tensor).has_value();
}

std::optional<uint64_t> TensorSource::sequential_of(uint64_t tensor) const {
  if (!model_.has_sequential()) return std::nullopt;
  if (expressions_.empty()) {
    return model_.hint(tensor).is_sequential ? std::optional(tensor) : std::nullopt;
  }
  for (const transform::Node& node : expressions_[tensor].nodes()) {
    const auto* stored = std::get_if<transform::Node::Stored>(&node.what);
    if (stored && model_.hint(stored->tensor).is_sequential) return stored->tensor;
  }
  return std::nullopt;
}

rules::ReadTensor reader_of(OpenModel& model) {
  return [&model](uint64_t tensor, uint64_t count, std::span<std::byte> out) {
    return model.read(tensor, 0, count, out);
  };
}

}  // namespace crossdock::convert
