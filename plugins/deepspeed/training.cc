// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/training.h"

#include <algorithm>

namespace crossdock::deepspeed {

namespace {

std::optional<int64_t> counter(const ModelStates& model, std::string_view key) {
  for (const manifest::KeyValue& entry : model.metadata) {
    const auto* n = entry.key == key ? entry.value.get<int64_t>() : nullptr;
    if (n) return *n;
  }
  return std::nullopt;
}

}  // namespace

std::optional<uint64_t> steps_of_job(const ModelStates& model) {
  const auto done = counter(model, "global_steps"), skipped = counter(model, "skipped_steps");
  if (!done || !skipped || *skipped < 0 || *done < *skipped) return std::nullopt;
  return static_cast<uint64_t>(*done - *skipped);
}

uint64_t steps_done(const Host& host, const std::vector<uint64_t>& counted,
                    const ModelStates& model) {
  if (counted.empty()) {
    const int64_t done = counter(model, "global_steps").value_or(0),
                  skipped = counter(model, "skipped_steps").value_or(0);
    return static_cast<uint64_t>(std::max<int64_t>(done - std::min(done, skipped), 0));
  }
  const auto [least, most] = std::minmax_element(counted.begin(), counted.end());
  if (*least != *most)
    host.log(XD_LOG_WARN, cat("the optimizer has done ", *least, " steps of one group and ", *most,
                              " of another: the larger number is kept"));
  return *most;
}

std::vector<manifest::ParameterGroup> parameter_groups(std::vector<OptimizerGroup> groups,
                                                       const ModelStates& model,
                                                       const TensorIndex& index) {
  const size_t n_flat = model.groups.size();
  if (groups.empty()) groups.push_back({n_flat, {}});  // the file does not tell
  std::vector<manifest::ParameterGroup> out;
  size_t flat = 0;
  for (OptimizerGroup& group : groups) {
    manifest::ParameterGroup& one = out.emplace_back();
    one.hyper_parameters = std::move(group.hyper_parameters);
    for (size_t i = 0; i < group.n_flat_groups && flat < n_flat; ++i, ++flat) {
      for (const NamedShape& p : model.groups[flat]) one.tensors.push_back(index.at(p.name));
    }
  }
  return out;
}

std::vector<manifest::KeyValue> metadata_of(const JobFacts& job, const ModelStates& model) {
  std::vector<manifest::KeyValue> out;
  if (!job.tag.empty()) out.push_back({"tag", {job.tag}});
  out.push_back({"zero_stage", {static_cast<int64_t>(job.stage)}});
  out.push_back({"dp_world_size", {static_cast<int64_t>(job.n_ranks)}});
  out.insert(out.end(), model.metadata.begin(), model.metadata.end());
  if (!job.optimizer.empty()) out.push_back({"optimizer", {job.optimizer}});
  if (job.loss_scaler.get<manifest::ValueMap>()) out.push_back({"loss_scaler", job.loss_scaler});
  return out;
}

}  // namespace crossdock::deepspeed
