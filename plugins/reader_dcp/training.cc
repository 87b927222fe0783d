// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_dcp/training.h"

#include <algorithm>
#include <map>
#include <set>

#include "plugins/common/file_names.h"
#include "plugins/reader_dcp/choose.h"

namespace crossdock::reader_dcp {
namespace {

constexpr size_t kMaxSettings = 10'000;  // of groups, each an archive of its own

class Training {
 public:
  Training(const Reach& reach, Checkpoint& out) : reach_(reach), out_(out) {
    for (uint64_t i = 0; i < out.tensors.size(); ++i) parameters_.emplace(out.tensors[i].name, i);
  }

  Result<void> run(const Host& host, const Metadata& metadata) {
    for (const TensorEntry& entry : metadata.tensors) {
      if (!is_of_optimizer(entry)) continue;
      const auto state = optimizer_state(entry);
      const auto of = state ? parameters_.find(state->parameter) : parameters_.end();
      if (of == parameters_.end()) {
        not_used_.push_back(entry.name);
      } else if (state->kind == "step") {
        XD_TRY(add_step(entry));
      } else {
        XD_TRY(add_moment(entry, *state, of->second));
      }
    }
    XD_TRY(read_groups(metadata));
    if (!not_used_.empty())
      host.log(XD_LOG_WARN,
               cat(not_used_.size(),
                   " tensors of the optimizer are of no parameter of the model and are "
                   "left out: ",
                   common::listed(not_used_)));
    if (steps_.size() > 1)
      host.log(XD_LOG_WARN, cat("the optimizer's parameters are at different steps, from ",
                                *steps_.begin(), " to ", *steps_.rbegin(), ": the last is taken"));
    if (!steps_.empty()) out_.training.step = *steps_.rbegin();
    return {};
  }

 private:
  Result<void> add_step(const TensorEntry& entry) {
    XD_TRY_SET(const double step, reach_.scalar(entry));
    if (step >= 0 && step < 0x1p53) steps_.insert(static_cast<uint64_t>(step));
    return {};
  }

  Result<void> add_moment(const TensorEntry& entry, const State& state, uint64_t parameter) {
    if (entry.shape != out_.tensors[parameter].shape) {
      not_used_.push_back(entry.name);
      return {};
    }
    XD_TRY(reach_.add(entry, cat(state.kind, '/', state.parameter)));
    out_.tensors.back().is_moment = true;
    out_.training.moments.push_back({state.kind, parameter, out_.tensors.size() - 1});
    return {};
  }

  Result<void> read_groups(const Metadata& metadata) {
    std::map<uint64_t, std::vector<manifest::KeyValue>> groups;
    size_t n_settings = 0;
    for (const ObjectEntry& entry : metadata.objects) {
      const auto setting = group_setting(entry);
      if (!setting || ++n_settings > kMaxSettings) continue;
      XD_TRY_SET(manifest::Value value, reach_.object(entry));
      groups[setting->group].push_back({setting->key, std::move(value)});
    }
    for (auto& [index, settings] : groups) add_group(std::move(settings));
    return {};
  }

  // A group of parameters by their names; of others nothing is known.
  void add_group(std::vector<manifest::KeyValue> settings) {
    manifest::ParameterGroup group;
    for (manifest::KeyValue& setting : settings) {
      if (setting.key != "params") {
        if (setting.value.kind.index() != 0) group.hyper_parameters.push_back(std::move(setting));
        continue;
      }
      const auto* names = setting.value.get<manifest::ValueList>();
      if (!names) return;
      for (const manifest::Value& value : names->values) {
        const auto* name = value.get<std::string>();
        const auto it = name ? parameters_.find(*name) : parameters_.end();
        if (it == parameters_.end()) return;
        group.tensors.push_back(it->second);
      }
    }
    if (group.tensors.empty()) return;
    // AdamW is Adam with this setting since torch 2.8.
    for (const auto& [key, value] : group.hyper_parameters) {
      const auto* is_decoupled = key == "decoupled_weight_decay" ? value.get<bool>() : nullptr;
      if (is_decoupled)
        out_.training.optimizer = *is_decoupled ? "torch.optim.AdamW" : "torch.optim.Adam";
    }
    out_.training.groups.push_back(std::move(group));
  }

  const Reach& reach_;
  Checkpoint& out_;
  std::map<std::string, uint64_t, std::less<>> parameters_;  // by name
  std::set<uint64_t> steps_;
  std::vector<std::string> not_used_;
};

}  // namespace

Result<void> add_training(const Host& host, const Metadata& metadata, const Reach& reach,
                          Checkpoint& out) {
  return Training(reach, out).run(host, metadata);
}

}  // namespace crossdock::reader_dcp
