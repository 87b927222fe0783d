#include "plugins/reader_zero/part.h"

#include "plugins/common/file_names.h"
#include "plugins/common/quote.h"
#include "plugins/deepspeed/names.h"
#include "plugins/reader_zero/training.h"

#include <algorithm>

namespace crossdock::reader_zero {

namespace {

using common::in_quotes;
using common::Segments;
using manifest::Role;
using manifest::Training;

// Makes the manifest's tensors, name by name.
class Assembly {
 public:
  Assembly(const States& states, const Groups& groups, const Names& names, Weights weights)
      : states_(states), groups_(groups), names_(names), weights_(weights) {}

  Result<void> add_all() {
    for (const Name& name : names_.in_order()) {
      if (name.origin != Origin::kTied) XD_TRY(add(name));
    }
    for (const Name& name : names_.in_order()) {
      if (name.origin == Origin::kTied) add_tied(name);
    }
    for (const bool parameters : {true, false}) {
      for (const Name& name : names_.in_order()) {
        const auto it = index_.find(name.origin == Origin::kTied ? name.kept : name.name);
        if (name.is_parameter == parameters && it != index_.end())
          out_.manifest.module.push_back({std::string(name.name), it->second});
      }
    }
    return {};
  }

  const TensorIndex& index() const { return index_; }
  // Names whose values are in no file.
  const std::vector<std::string>& lost() const { return lost_; }
  Part& part() { return out_; }

 private:
  Result<void> add(const Name& name) {
    switch (name.origin) {
      case Origin::kTrained:
      case Origin::kFrozen:
        return add_parameter(name);
      case Origin::kStored:
        add_stored(name, *name.in_module);
        return {};
      case Origin::kLost:
        lost_.push_back(in_quotes(name.name));
        return {};
      case Origin::kTied:
        break;
    }
    return {};
  }

  // Its segments follow.
  manifest::Tensor& push(const Name& name, manifest::DType dtype,
                         const std::vector<uint64_t>& shape) {
    index_.emplace(name.name, out_.manifest.tensors.size());
    manifest::Tensor& t = out_.manifest.tensors.emplace_back();
    t.name = name.name;
    t.dtype = dtype;
    t.shape = shape;
    t.role = name.is_parameter ? Role::kParameter : Role::kBuffer;
    if (name.is_parameter)
      t.train = name.origin == Origin::kTrained ? Training::kTrainable : Training::kFrozen;
    return t;
  }

  void add_stored(const Name& name, const Stored& stored) {
    manifest::Tensor& t = push(name, stored.dtype, stored.shape);
    Segments segments(stored.elem_bytes());
    if (stored.strides.empty()) {
      segments.add(stored.file, stored.offset, stored.n_elems());
    } else {
      t.strides.assign(stored.strides.begin(), stored.strides.end());
      t.storage_offset = stored.storage_offset;
      t.storage_elements = stored.storage_elems;
      segments.add(stored.file, stored.offset, stored.storage_elems);
    }
    t.extents = segments.extents();
    out_.segments.push_back(std::move(segments));
  }

  void add_segments(const Name& name, manifest::DType dtype, Segments segments) {
    manifest::Tensor& t = push(name, dtype, name.shape->shape);
    t.extents = segments.extents();
    out_.segments.push_back(std::move(segments));
  }

  Result<void> add_parameter(const Name& name) {
    if (weights_ == Weights::kModel) {
      if (name.in_module && name.in_module->shape == name.shape->shape) {
        add_stored(name, *name.in_module);
        return {};
      }
      return corrupt(cat("expected ", in_quotes(name.name),
                         " in the module's state with the shape of param_shapes, found ",
                         name.in_module ? "another shape" : "none"));
    }
    if (name.origin == Origin::kTrained) {
      const manifest::DType dtype = states_.optimizer[0].flat_groups[name.group].master.dtype;
      add_segments(name, dtype, groups_.master(name.group, name.index));
      return {};
    }
    return states_.stage() == 3 ? add_fragments(name) : add_frozen(name);
  }

  Result<void> add_frozen(const Name& name) {
    const auto& fragments = states_.model.rank.frozen_fragments;
    const auto it = fragments.find(name.name);
    if (it != fragments.end() && it->second.shape == name.shape->shape) {
      add_stored(name, it->second);
      return {};
    }
    return corrupt(cat("expected ", in_quotes(name.name),
                       " in frozen_param_fragments with the shape of frozen_param_shapes, found ",
                       it == fragments.end() ? "none" : "another shape"));
  }

  // Stage 3: each rank has a part, as of trained parameters.
  Result<void> add_fragments(const Name& name) {
    const uint64_t sizes[] = {name.shape->n_elems};
    XD_TRY(sum_of(sizes));
    const uint64_t n_part = elements_of_rank(sizes, states_.n_ranks());
    const Pieces pieces = cut_each(sizes, states_.n_ranks())[0];
    const auto& first = states_.model.rank.frozen_fragments;
    const auto of_first = first.find(name.name);
    const manifest::DType dtype =
        of_first == first.end() ? manifest::DType::F32 : of_first->second.dtype;
    Segments segments(manifest::info(dtype).bits / 8);
    for (const Piece& piece : pieces) {
      const auto& fragments = states_.ranks[piece.rank].frozen_fragments;
      const auto it = fragments.find(name.name);
      const bool fits = it != fragments.end() && it->second.n_elems() == n_part &&
                        it->second.strides.empty() && it->second.dtype == dtype;
      if (!fits)
        return corrupt(cat("expected ", n_part, " elements of ", in_quotes(name.name),
                           " in the frozen_param_fragments of rank ", piece.rank,
                           ", found others: the files are of different saves"));
      segments.add(it->second.file, it->second.offset, piece.count);
    }
    add_segments(name, dtype, std::move(segments));
    return {};
  }

  void add_tied(const Name& name) {
    const auto kept = index_.find(name.kept);
    if (kept == index_.end()) {
      lost_.push_back(in_quotes(name.name));
      return;
    }
    const uint64_t i = kept->second;
    auto& groups = out_.manifest.alias_groups;
    const auto [group, is_new] = alias_groups_.emplace(i, groups.size());
    if (is_new) groups.push_back({{i}});
    groups[group->second].tensors.push_back(out_.manifest.tensors.size());
    manifest::Tensor t = out_.manifest.tensors[i];
    t.name = name.name;
    out_.manifest.tensors.push_back(std::move(t));
    out_.segments.push_back(Segments(out_.segments[i]));
  }

  const States& states_;
  const Groups& groups_;
  const Names& names_;
  const Weights weights_;
  TensorIndex index_;
  std::map<uint64_t, size_t> alias_groups_;  // by the kept tensor
  std::vector<std::string> lost_;
  Part out_;
};

}  // namespace

Result<Part> open_part(const Host& host, const SavedJob& job, size_t number, Weights weights,
                       bool warns) {
  const States& states = job.parts[number];
  if (weights == Weights::kModel && states.stage() == 3)
    return invalid(
        "--weights model: expected the job's own copy of the weights in the checkpoint, found "
        "none: ZeRO stage 3 saves the fp32 weights alone, so leave the flag out");
  XD_TRY_SET(const Groups groups, Groups::make(states, job.files));
  XD_TRY_SET(const Names names, Names::make(states.model, states.stage()));
  Assembly assembly(states, groups, names, weights);
  XD_TRY(assembly.add_all());
  if (warns && !assembly.lost().empty())
    host.log(XD_LOG_WARN,
             cat("the checkpoint has no values of ", common::listed(assembly.lost()),
                 ", which are no buffers and which the optimizer does not own: left out"));
  Part out = std::move(assembly.part());
  XD_TRY(add_training(host, states, groups, assembly.index(), out, warns));
  return out;
}

}  // namespace crossdock::reader_zero
