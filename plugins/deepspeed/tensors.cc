// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/tensors.h"

#include "plugins/common/quote.h"
#include "plugins/deepspeed/partition.h"

namespace crossdock::deepspeed {

using common::in_quotes;
using common::Segments;
using manifest::Role;
using manifest::Training;

manifest::Tensor& Tensors::push(std::string name, manifest::DType dtype,
                                const std::vector<uint64_t>& shape) {
  manifest::Tensor& t = out_.manifest.tensors.emplace_back();
  t.name = std::move(name);
  t.dtype = dtype;
  t.shape = shape;
  return t;
}

void Tensors::place(const Stored& stored, manifest::Tensor& tensor) {
  Segments segments(stored.elem_bytes());
  if (stored.strides.empty()) {
    segments.add(stored.file, stored.offset, stored.n_elems());
  } else {
    tensor.strides.assign(stored.strides.begin(), stored.strides.end());
    tensor.storage_offset = stored.storage_offset;
    tensor.storage_elements = stored.storage_elems;
    segments.add(stored.file, stored.offset, stored.storage_elems);
  }
  tensor.extents = segments.extents();
  out_.segments.push_back(std::move(segments));
}

void Tensors::add(const Name& name, manifest::DType dtype, const std::vector<uint64_t>& shape,
                  Segments segments) {
  index_.emplace(name.name, out_.manifest.tensors.size());
  manifest::Tensor& t = push(std::string(name.name), dtype, shape);
  t.role = Role::kParameter;
  t.train = name.origin == Origin::kTrained ? Training::kTrainable : Training::kFrozen;
  t.extents = segments.extents();
  out_.segments.push_back(std::move(segments));
}

void Tensors::add_stored(const Name& name, const Stored& stored) {
  index_.emplace(name.name, out_.manifest.tensors.size());
  manifest::Tensor& t = push(std::string(name.name), stored.dtype, stored.shape);
  t.role = name.is_parameter ? Role::kParameter : Role::kBuffer;
  if (name.is_parameter)
    t.train = name.origin == Origin::kTrained ? Training::kTrainable : Training::kFrozen;
  place(stored, t);
}

Result<void> Tensors::add_copy(const Name& name) {
  if (name.in_module && name.in_module->shape == name.shape->shape) {
    add_stored(name, *name.in_module);
    return {};
  }
  return corrupt(cat("expected ", in_quotes(name.name),
                     " in the module's state with the shape of param_shapes, found ",
                     name.in_module ? "another shape" : "none"));
}

bool Tensors::add_tied(const Name& name) {
  const auto kept = index_.find(name.kept);
  if (kept == index_.end()) return false;
  const uint64_t i = kept->second;
  auto& groups = out_.manifest.alias_groups;
  const auto [group, is_new] = alias_groups_.emplace(i, groups.size());
  if (is_new) groups.push_back({{i}});
  groups[group->second].tensors.push_back(out_.manifest.tensors.size());
  manifest::Tensor t = out_.manifest.tensors[i];
  t.name = name.name;
  out_.manifest.tensors.push_back(std::move(t));
  out_.segments.push_back(Segments(out_.segments[i]));
  return true;
}

void Tensors::add_moment(const std::string& kind, std::string_view parameter,
                         const std::vector<uint64_t>& shape, const Stored& stored) {
  const uint64_t state = out_.manifest.tensors.size();
  manifest::Tensor& t = push(cat(kind, '/', parameter), stored.dtype, shape);
  t.role = Role::kOptimizerState;
  place(stored, t);
  out_.manifest.training.moments.push_back({kind, index_.at(parameter), state});
}

void Tensors::add_module(std::span<const Name> in_order) {
  for (const bool parameters : {true, false}) {
    for (const Name& name : in_order) {
      const auto it = index_.find(name.origin == Origin::kTied ? name.kept : name.name);
      if (name.is_parameter == parameters && it != index_.end())
        out_.manifest.module.push_back({std::string(name.name), it->second});
    }
  }
}

Result<void> add_frozen(const Name& name, const RankStates& first, Tensors& out) {
  const auto it = first.frozen_fragments.find(name.name);
  if (it != first.frozen_fragments.end() && it->second.shape == name.shape->shape) {
    out.add_stored(name, it->second);
    return {};
  }
  return corrupt(cat("expected ", in_quotes(name.name),
                     " in frozen_param_fragments with the shape of frozen_param_shapes, found ",
                     it == first.frozen_fragments.end() ? "none" : "another shape"));
}

Result<void> add_fragments(const Name& name, std::span<const RankStates> ranks, Tensors& out) {
  const uint64_t sizes[] = {name.shape->n_elems};
  XD_TRY(sum_of(sizes));
  const uint64_t n_part = elements_of_rank(sizes, ranks.size());
  const Pieces pieces = cut_each(sizes, ranks.size())[0];
  const auto& first = ranks[0].frozen_fragments;
  const auto of_first = first.find(name.name);
  const manifest::DType dtype =
      of_first == first.end() ? manifest::DType::F32 : of_first->second.dtype;
  Segments segments(manifest::info(dtype).bits / 8);
  for (const Piece& piece : pieces) {
    const auto& fragments = ranks[piece.rank].frozen_fragments;
    const auto it = fragments.find(name.name);
    const bool fits = it != fragments.end() && it->second.n_elems() == n_part &&
                      it->second.strides.empty() && it->second.dtype == dtype;
    if (!fits)
      return corrupt(cat("expected ", n_part, " elements of ", in_quotes(name.name),
                         " in the frozen_param_fragments of rank ", piece.rank,
                         ", found others: the files are of different saves"));
    segments.add(it->second.file, it->second.offset, piece.count);
  }
  out.add(name, dtype, name.shape->shape, std::move(segments));
  return {};
}

}  // namespace crossdock::deepspeed
