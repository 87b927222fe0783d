// SPDX-License-Identifier: Apache-2.0
#include "core/convert/training_state.h"

#include <algorithm>
#include <map>

namespace crossdock::convert {

using manifest::Manifest;
using manifest::Role;
using manifest::Tensor;

namespace {

constexpr char kHidden[] = "optimizer state of a parameter that the job does not train";

// The Trainer's own files speak of a run that does not go on.
void leave_trainer_out(Manifest& m) {
  std::erase_if(m.aux_files, [](const manifest::AuxFile& file) {
    return file.kind == manifest::AuxKind::kTrainer;
  });
}

bool is_hidden(const Tensor& t) { return t.role == Role::kOptimizerState && t.excluded == kHidden; }

}  // namespace

void hide_optimizer_state(Manifest& m) {
  for (Tensor& t : m.tensors) {
    if (t.role == Role::kOptimizerState && t.excluded.empty()) t.excluded = kHidden;
  }
}

void show_optimizer_state(Manifest& m) {
  bool any = false;
  for (const manifest::Moment& moment : m.training.moments) {
    Tensor& state = m.tensors[moment.state];
    const Tensor& parameter = m.tensors[moment.parameter];
    if (!is_hidden(state)) continue;
    const bool is_trained = parameter.excluded.empty() && parameter.role == Role::kParameter &&
                            parameter.train != manifest::Training::kFrozen &&
                            parameter.shape == state.shape;
    if (!is_trained) continue;
    state.excluded.clear();
    state.set_target(cat(moment.kind, "/", parameter.target()));
    any = true;
  }
  if (any) return;
  m.training.moments.clear();
  m.training.step = 0;
  leave_trainer_out(m);
}

void leave_training_out(Manifest& m, std::vector<std::string>& notes) {
  size_t n = 0;
  for (Tensor& t : m.tensors) {
    if (t.role != Role::kOptimizerState || !t.excluded.empty()) continue;
    t.excluded = "optimizer state, which the format does not have";
    ++n;
  }
  if (n > 0)
    notes.push_back(cat("The state of the training run (", n, " moments, step ", m.training.step,
                        ") is left out: the format has no place for it."));
  m.training = {};
  m.module.clear();
  leave_trainer_out(m);
}

std::optional<Manifest> module_of_source(const Manifest& m) {
  if (m.module.empty()) return std::nullopt;
  Manifest out;
  std::map<uint64_t, std::vector<uint64_t>> names;  // of each tensor, by place in `out`
  for (const manifest::ModuleName& entry : m.module) {
    const Tensor& t = m.tensors[entry.tensor];
    auto& there = names[entry.tensor];
    Tensor& named = out.tensors.emplace_back();
    named.name = there.empty() ? t.target() : entry.name;
    named.dtype = t.dtype;
    named.shape = t.shape;
    named.role = t.role;
    named.train = t.train;
    there.push_back(out.tensors.size() - 1);
  }
  for (const auto& [tensor, places] : names) {
    if (places.size() > 1) out.alias_groups.push_back({places});
  }
  out.training.optimizer = m.training.optimizer;
  for (const manifest::ParameterGroup& group : m.training.groups) {
    manifest::ParameterGroup& copy = out.training.groups.emplace_back();
    copy.hyper_parameters = group.hyper_parameters;
    for (const uint64_t i : group.tensors) {
      if (const auto it = names.find(i); it != names.end()) copy.tensors.push_back(it->second[0]);
    }
  }
  return out;
}

}  // namespace crossdock::convert
