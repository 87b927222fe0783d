// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_universal/checkpoint.h"

#include "plugins/common/file_names.h"
#include "plugins/common/quote.h"
#include "plugins/deepspeed/rounded.h"
#include "plugins/reader_universal/parameters.h"
#include "plugins/reader_universal/training.h"

#include <algorithm>

namespace crossdock::reader_universal {

namespace {

using common::in_quotes;

// Puts the tensors together, name by name.
class Assembly {
 public:
  Assembly(const CheckpointFiles& files, const States& states, const Names& names, Weights weights,
           Opener& opener, Checkpoint& out)
      : files_(files),
        states_(states),
        names_(names),
        weights_(weights),
        parameters_(files, states.model, opener),
        out_(out),
        tensors_(out) {}

  Result<void> add_all() {
    for (const Name& name : names_.in_order()) {
      if (name.origin != Origin::kTied) XD_TRY(add(name));
    }
    for (const Name& name : names_.in_order()) {
      if (name.origin == Origin::kTied && !tensors_.add_tied(name))
        lost_.push_back(in_quotes(name.name));
    }
    XD_TRY(add_unlisted());
    add_module();
    for (const std::string& kind : parameters_.kinds()) {
      for (const Kept& kept : kept_) {
        for (const auto& [key, state] : kept.moments) {
          if (key == kind) tensors_.add_moment(kind, kept.name, state.shape, state);
        }
      }
    }
    return {};
  }

  void warn(const Host& host) const {
    if (!lost_.empty())
      host.log(XD_LOG_WARN,
               cat("the checkpoint has no values of ", common::listed(lost_),
                   ", which are no buffers and which the optimizer does not own: left out"));
    if (!unlisted_.empty())
      host.log(XD_LOG_WARN,
               cat(unlisted_.size(), " folders of zero/ are no names of the model states: ",
                   common::listed(unlisted_),
                   ": they are read as parameters, and the order of parameters is unknown"));
    if (const size_t n = parameters_.n_without_moments(); n > 0)
      host.log(XD_LOG_WARN,
               cat(n, " parameters have no moments, as of a job that gave them no gradient"));
  }

  const ParameterReader& parameters() const { return parameters_; }
  const TensorIndex& index() const { return tensors_.index(); }
  manifest::ValueMap& layouts() { return layouts_; }

 private:
  struct Kept {
    std::string_view name;
    std::vector<std::pair<std::string, Stored>> moments;
  };

  Result<void> add(const Name& name) {
    if (name.origin == Origin::kTrained) return add_trained(name);
    const bool has_values = name.origin == Origin::kFrozen || name.origin == Origin::kStored;
    if (has_values && name.is_parameter && files_.n_model_parallel > 1)
      return unsupported(
          cat("expected parameters that train, whose tensor-parallel parts a "
              "universal checkpoint has joined, found ",
              in_quotes(name.name), ", of which it has the parts of ", files_.n_model_parallel,
              " ranks"));
    if (name.origin == Origin::kFrozen)
      return states_.has_rank_models ? add_fragments(name, states_.ranks, tensors_)
                                     : add_frozen(name, states_.model.rank, tensors_);
    if (name.origin == Origin::kStored) {
      tensors_.add_stored(name, *name.in_module);
    } else {
      lost_.push_back(in_quotes(name.name));
    }
    return {};
  }

  Result<void> add_trained(const Name& name) {
    XD_TRY_SET(Parameter parameter, parameters_.read(name.name, name.shape));
    const bool has_copy = !states_.has_rank_models && name.in_module;
    if (weights_ == Weights::kModel && has_copy) {
      XD_TRY(tensors_.add_copy(name));
    } else {
      tensors_.add_stored(name, parameter.master);
      if (weights_ == Weights::kModel)
        XD_TRY(deepspeed::round_weight(states_.model, out_.manifest.tensors.back()));
    }
    keep(name.name, parameter);
    return {};
  }

  // Folders of names that no model states have: DeepSpeed ignores them, but they are weights.
  Result<void> add_unlisted() {
    std::set<std::string_view> listed;
    for (const Name& name : names_.in_order()) listed.insert(name.name);
    for (const auto& [text, keys] : files_.parameters) {
      if (listed.contains(text)) continue;
      Name name;
      name.name = text;
      name.origin = Origin::kTrained;
      XD_TRY_SET(Parameter parameter, parameters_.read(text, nullptr));
      tensors_.add_stored(name, parameter.master);
      keep(name.name, parameter);
      unlisted_.push_back(in_quotes(text));
    }
    return {};
  }

  // Only in an order that is known to be named_parameters()': param_shapes has that of the
  // optimizer's groups, in crossdock's own folders perhaps that of a file.
  void add_module() {
    if (!unlisted_.empty()) return;
    if (names_.knows_order()) {
      tensors_.add_module(names_.in_order());
      return;
    }
    std::map<std::string_view, const Name*> left;
    for (const Name& name : names_.in_order()) left.emplace(name.name, &name);
    std::vector<Name> in_order;
    for (const std::string& text : states_.optimizer.module_names) {
      const auto it = left.find(text);
      if (it == left.end()) continue;
      in_order.push_back(*it->second);
      left.erase(it);
    }
    const bool lacks_none = std::all_of(left.begin(), left.end(), [](const auto& entry) {
      return !entry.second->is_parameter || entry.second->origin == Origin::kLost;
    });
    if (lacks_none) tensors_.add_module(in_order);
  }

  void keep(std::string_view name, Parameter& parameter) {
    if (!parameter.layout.entries.empty())
      layouts_.entries.push_back({std::string(name), {std::move(parameter.layout)}});
    kept_.push_back({name, std::move(parameter.moments)});
  }

  const CheckpointFiles& files_;
  const States& states_;
  const Names& names_;
  const Weights weights_;
  ParameterReader parameters_;
  Checkpoint& out_;
  Tensors tensors_;
  std::vector<Kept> kept_;
  manifest::ValueMap layouts_;  // by parameter
  std::vector<std::string> lost_, unlisted_;
};

JobFacts facts_of(const CheckpointFiles& files, const States& states) {
  JobFacts out;
  out.tag = files.tag;
  out.stage = states.stage();
  out.n_ranks = states.model.rank.dp_world_size.value_or(0);
  out.optimizer = states.optimizer.optimizer;
  out.loss_scaler = states.optimizer.loss_scaler;
  return out;
}

}  // namespace

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input, const std::string& tag,
                                   Weights weights, bool verify_crc) {
  XD_TRY_SET(const CheckpointFiles files, find_files(host, input, tag));
  OpenFiles opened;
  Opener opener(host, input, verify_crc, opened);
  XD_TRY_SET(const States states, read_states(files, opener));
  // The stage of the model states, which is another question than what the optimizer's say.
  XD_TRY_SET(const Names names, Names::make(states.model, states.has_rank_models ? 3 : 2));
  Checkpoint out;
  Assembly assembly(files, states, names, weights, opener, out);
  XD_TRY(assembly.add_all());
  assembly.warn(host);
  XD_TRY(add_training(host, states, assembly.parameters().step(), assembly.index(),
                      out.manifest.training));
  manifest::Source& source = out.manifest.source;
  source.format = "universal";
  source.metadata = metadata_of(facts_of(files, states), states.model);
  if (!assembly.layouts().entries.empty())
    source.metadata.push_back({"parameter_layout", {std::move(assembly.layouts())}});
  source.files = std::move(opened.files);
  out.sources = std::move(opened.sources);
  return out;
}

}  // namespace crossdock::reader_universal
