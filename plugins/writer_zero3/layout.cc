// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_zero3/layout.h"

#include "plugins/common/quote.h"
#include "plugins/torch/write/pickle_writer.h"

namespace crossdock::writer_zero3 {

using manifest::Manifest;
using manifest::Tensor;

namespace {

// DeepSpeed 0.19.8, stage3.py, _create_fp16_sub_groups: one when all fits, else each is closed as
// soon as it is full.
void cut(const Manifest& model, size_t group, const Settings& settings,
         std::vector<SubGroup>& out) {
  const auto& members = model.training.groups[group].tensors;
  uint64_t total = 0;
  for (const uint64_t i : members)
    total += elements_per_rank(model.tensors[i], settings.world_size);
  SubGroup current{group, {}, 0};
  for (const uint64_t i : members) {
    current.parameters.push_back(i);
    current.n_elems += elements_per_rank(model.tensors[i], settings.world_size);
    const bool is_full =
        total > settings.sub_group_size && current.n_elems >= settings.sub_group_size;
    if (!is_full && i != members.back()) continue;
    out.push_back(std::move(current));
    current = {group, {}, 0};
  }
}

Result<void> check_types(const Manifest& model, const std::vector<uint64_t>& indexes,
                         bool must_cast) {
  for (const uint64_t i : indexes) {
    const Tensor& t = model.tensors[i];
    const auto kind = manifest::info(t.dtype).kind;
    const bool casts = kind == manifest::Kind::kFloat && manifest::info(t.dtype).bits >= 16;
    if (must_cast ? casts : torch_write::torch_has(t.dtype)) continue;
    return unsupported(cat("tensor ", common::in_quotes(t.name), ": expected ",
                           must_cast ? "a floating-point type" : "a type that torch has",
                           ", found ", manifest::name(t.dtype)));
  }
  return {};
}

}  // namespace

uint64_t elements_per_rank(const Tensor& tensor, uint64_t world_size) {
  const uint64_t n = torch_write::element_count(tensor);
  return n / world_size + (n % world_size != 0);
}

torch_write::Segment piece(const Manifest& model, uint64_t index, uint64_t rank,
                           uint64_t world_size, manifest::DType dtype) {
  const Tensor& tensor = model.tensors[index];
  const uint64_t n = torch_write::element_count(tensor),
                 per_rank = elements_per_rank(tensor, world_size);
  const uint64_t begin = std::min(n, rank * per_rank), count = std::min(n - begin, per_rank);
  return {index, begin, count, per_rank - count, dtype != tensor.dtype};
}

Result<Layout> make_layout(const Manifest& model, const Settings& settings) {
  if (model.module.empty())
    return invalid("expected a manifest that describes the job's module, found none");
  Layout out;
  for (const auto& [name, i] : model.module) {
    const Tensor& t = model.tensors[i];
    if (name != t.target()) continue;  // tied to it
    const bool is_buffer = t.role == manifest::Role::kBuffer;
    (is_buffer                                ? out.buffers
     : t.train == manifest::Training::kFrozen ? out.frozen
                                              : out.parameters)
        .push_back(i);
  }
  XD_TRY(check_types(model, out.parameters, true));
  XD_TRY(check_types(model, out.frozen, true));
  XD_TRY(check_types(model, out.buffers, false));
  for (size_t g = 0; g < model.training.groups.size(); ++g) {
    if (!model.training.groups[g].tensors.empty()) cut(model, g, settings, out.sub_groups);
  }
  if (out.sub_groups.empty())
    return invalid(cat("expected at least one parameter to train, found none (", out.frozen.size(),
                       " frozen, ", out.buffers.size(),
                       " buffers): look at --trainable and --frozen"));
  return out;
}

}  // namespace crossdock::writer_zero3
