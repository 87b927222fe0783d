// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_universal/states.h"

#include <algorithm>
#include <set>

namespace crossdock::reader_universal {

namespace {

// ---- optimizer_state.pt
// Steps of the flat groups: stage 3 has no step.pt, and keeps the state of its first rank here.
Result<void> add_steps(const FileInput& in, const Dict& inner, std::vector<uint64_t>& out) {
  const Value* states = inner.find("state");
  if (!states || states->kind != Kind::kDict) return {};
  const auto items = in.torch.pickle().items(*states);
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (items[i + 1].kind != Kind::kDict) continue;
    const Value* v = in.torch.pickle().find(items[i + 1], "step");
    XD_TRY_SET(const auto step, step_of(in, v));
    if (step) out.push_back(*step);
  }
  return {};
}

Result<std::vector<std::string>> names_in(const Pickle& pickle, std::span<const Value> list,
                                          std::string_view place) {
  std::vector<std::string> out;
  for (const Value& name : list) {
    if (name.kind != Kind::kText)
      return corrupt(cat(place, ": expected names, found ", torch_read::name_of(name.kind)));
    out.emplace_back(pickle.text(name));
  }
  return out;
}

Result<void> add_names(const Dict& root, OptimizerState& out) {
  constexpr std::string_view kGroups = "param_names", kModule = "module_names";
  if (root.find(kModule)) {
    XD_TRY_SET(const auto list, root.list(kModule));
    XD_TRY_SET(out.module_names, names_in(root.pickle(), list, kModule));
  }
  if (!root.find(kGroups)) return {};
  XD_TRY_SET(const auto groups, root.list(kGroups));
  for (const Value& group : groups) {
    XD_TRY_SET(out.names.emplace_back(),
               names_in(root.pickle(), sequence(root.pickle(), group), kGroups));
  }
  return {};
}

Result<OptimizerState> read_optimizer(const FileInput& in) {
  const Pickle& pickle = in.torch.pickle();
  const auto root = Dict::of(pickle, pickle.root(), "");
  if (!root || !(root->find("param_groups") || root->find("partition_count")))
    return unsupported(
        "expected the optimizer's state of a universal checkpoint (a dict with param_groups), "
        "found another object: the file is of another program");
  OptimizerState out;
  XD_TRY_SET(const auto told, root->natural("zero_stage"));
  out.stage = told.value_or(1);  // BF16_Optimizer, in the place of stage 1, does not tell it
  if (out.stage < 1 || out.stage > 3)
    return unsupported(cat("expected a zero_stage of 1, 2 or 3, found ", out.stage));
  if (root->find("param_groups")) {  // which 0.14.0 does not keep
    XD_TRY_SET(const auto groups, root->list("param_groups"));
    XD_TRY_SET(out.torch, torch_groups(in, groups, "param_groups", true));
  }
  XD_TRY(add_names(*root, out));
  out.optimizer = out.torch.optimizer;
  if (const Value* inner = root->find("optimizer_state_dict");
      inner && inner->kind == Kind::kDict) {
    XD_TRY_SET(const Dict dict, Dict::of(pickle, *inner, "optimizer_state_dict"));
    XD_TRY(add_steps(in, dict, out.steps));
  }
  if (out.steps.empty() && out.torch.step) out.steps.push_back(*out.torch.step);
  out.loss_scaler = loss_scaler_of(*root);
  return out;
}

// ---- model states
// Adds what other ranks have besides: parameters of other pipeline stages.
void merge(ModelStates more, ModelStates& out) {
  std::set<std::string> known, in_module, tied;
  for (const auto& group : out.groups) {
    for (const NamedShape& p : group) known.insert(p.name);
  }
  for (const NamedTensor& t : out.module) in_module.insert(t.name);
  for (const auto& [other, kept] : out.tied) tied.insert(other);
  if (out.groups.size() < more.groups.size()) out.groups.resize(more.groups.size());
  for (size_t g = 0; g < more.groups.size(); ++g) {
    for (NamedShape& p : more.groups[g]) {
      if (!known.contains(p.name)) out.groups[g].push_back(std::move(p));
    }
  }
  for (NamedTensor& t : more.module) {
    if (!in_module.contains(t.name)) out.module.push_back(std::move(t));
  }
  for (auto& pair : more.tied) {
    if (!tied.contains(pair.first)) out.tied.push_back(std::move(pair));
  }
  for (std::string& name : more.buffer_names) {
    if (std::find(out.buffer_names.begin(), out.buffer_names.end(), name) == out.buffer_names.end())
      out.buffer_names.push_back(std::move(name));
  }
}

Result<ModelStates> read_model(const std::string& file, Opener& opener, std::string* optimizer) {
  return opener.read(file, [&](const FileInput& in) -> Result<ModelStates> {
    if (optimizer && optimizer->empty()) {
      const auto root = Dict::of(in.torch.pickle(), in.torch.pickle().root(), "");
      if (root) *optimizer = configured_optimizer(*root);
    }
    return read_model_states(in.host, in.torch, in.file, Layout::kUniversal);
  });
}

// Frozen parameters of stage 3, of which each rank has a part.
Result<void> read_ranks(const CheckpointFiles& files, Opener& opener, States& out) {
  const uint64_t n_ranks = out.model.rank.dp_world_size.value_or(0);
  if (files.rank_models.size() != n_ranks)
    return Error{XD_NOT_FOUND,
                 cat("expected the model states of ", n_ranks,
                     " ranks (dp_world_size), which have a part of each frozen parameter, found ",
                     files.rank_models.size(), ": copy the files of all ranks")};
  for (const auto& [rank, name] : files.rank_models) {
    if (rank == 0) {
      out.ranks.push_back(out.model.rank);
      continue;
    }
    XD_TRY_SET(out.ranks.emplace_back(), opener.read(name, [](const FileInput& in) {
      return read_rank_states(in.torch, in.file);
    }));
  }
  return {};
}

}  // namespace

Result<States> read_states(const CheckpointFiles& files, Opener& opener) {
  States out;
  XD_TRY_SET(out.optimizer, opener.read(files.optimizer_state, read_optimizer));
  out.has_rank_models = files.whole_models.empty();
  if (out.has_rank_models) {
    XD_TRY_SET(out.model, read_model(files.rank_models.at(0), opener, &out.optimizer.optimizer));
    if (out.model.frozen && !out.model.frozen->empty()) XD_TRY(read_ranks(files, opener, out));
    return out;
  }
  for (const auto& [rank, name] : files.whole_models) {
    XD_TRY_SET(ModelStates one, read_model(name, opener, &out.optimizer.optimizer));
    if (rank == 0) {
      out.model = std::move(one);
    } else {
      merge(std::move(one), out.model);
    }
  }
  return out;
}

}  // namespace crossdock::reader_universal
