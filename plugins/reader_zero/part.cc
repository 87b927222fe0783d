// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/part.h"

#include "plugins/common/file_names.h"
#include "plugins/common/quote.h"
#include "plugins/reader_zero/training.h"

namespace crossdock::reader_zero {

namespace {

using common::in_quotes;

// Puts the tensors together, name by name.
class Assembly {
 public:
  Assembly(const States& states, const Groups& groups, const Names& names, Weights weights,
           Part& out)
      : states_(states), groups_(groups), names_(names), weights_(weights), tensors_(out) {}

  Result<void> add_all() {
    for (const Name& name : names_.in_order()) {
      if (name.origin != Origin::kTied) XD_TRY(add(name));
    }
    for (const Name& name : names_.in_order()) {
      if (name.origin == Origin::kTied && !tensors_.add_tied(name))
        lost_.push_back(in_quotes(name.name));
    }
    if (names_.knows_order()) tensors_.add_module(names_.in_order());
    return {};
  }

  const TensorIndex& index() const { return tensors_.index(); }
  // Names whose values are in no file.
  const std::vector<std::string>& lost() const { return lost_; }

 private:
  Result<void> add(const Name& name) {
    switch (name.origin) {
      case Origin::kTrained:
      case Origin::kFrozen:
        return add_parameter(name);
      case Origin::kStored:
        tensors_.add_stored(name, *name.in_module);
        return {};
      case Origin::kLost:
        lost_.push_back(in_quotes(name.name));
        return {};
      case Origin::kTied:
        break;
    }
    return {};
  }

  Result<void> add_parameter(const Name& name) {
    if (weights_ == Weights::kModel && states_.stage() < 3) return tensors_.add_copy(name);
    if (name.origin == Origin::kTrained) {
      const manifest::DType dtype = states_.optimizer[0].flat_groups[name.group].master.dtype;
      tensors_.add(name, dtype, name.shape->shape, groups_.master(name.group, name.index));
      return {};
    }
    return states_.stage() == 3 ? add_fragments(name, states_.ranks, tensors_)
                                : add_frozen(name, states_.model.rank, tensors_);
  }

  const States& states_;
  const Groups& groups_;
  const Names& names_;
  const Weights weights_;
  Tensors tensors_;
  std::vector<std::string> lost_;
};

}  // namespace

Result<Part> open_part(const Host& host, const SavedJob& job, size_t number, Weights weights,
                       bool warns) {
  const States& states = job.parts[number];
  XD_TRY_SET(const Groups groups, Groups::make(states, job.opened.files));
  XD_TRY_SET(const Names names, Names::make(states.model, states.stage()));
  Part out;
  Assembly assembly(states, groups, names, weights, out);
  XD_TRY(assembly.add_all());
  if (warns && !assembly.lost().empty())
    host.log(XD_LOG_WARN,
             cat("the checkpoint has no values of ", common::listed(assembly.lost()),
                 ", which are no buffers and which the optimizer does not own: left out"));
  XD_TRY(add_training(host, states, groups, assembly.index(), out, warns));
  return out;
}

}  // namespace crossdock::reader_zero
