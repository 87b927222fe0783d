// SPDX-License-Identifier: Apache-2.0

// The state of a training run that goes along with a model into DeepSpeed's checkpoints: moments,
// steps, hyper-parameters, scheduler, and what the job kept besides. In a model that has none, a
// run that has not begun.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/torch/write/pickle_writer.h"

namespace crossdock::torch_write {

// The manifest of a training checkpoint, ready to be asked. `model` outlives it. [any]
class Training {
 public:
  explicit Training(const manifest::Manifest& model);

  // Whether the run has begun: there are moments, or steps were done.
  bool has_begun() const { return has_moments_ || model_.training.step > 0; }
  bool has_moments() const { return has_moments_; }
  uint64_t step() const { return model_.training.step; }
  const std::vector<manifest::ParameterGroup>& groups() const { return model_.training.groups; }

  // {kind: index of the tensor that holds it} of a parameter; "exp_avg" is a kind.
  const std::map<std::string, uint64_t>& moments_of(uint64_t parameter) const;

  // What the source says of its run by this name (Source.metadata); nullptr: nothing.
  const manifest::Value* fact(std::string_view key) const;
  int64_t count(std::string_view key) const;  // 0: it says nothing

 private:
  const manifest::Manifest& model_;
  bool has_moments_ = false;
  std::map<uint64_t, std::map<std::string, uint64_t>> moments_;  // by parameter
};

// The type of the source's run: its own weights' (Source.metadata "dtype"); UNSPECIFIED: not known.
manifest::DType dtype_of_run(const manifest::Manifest& model);
// "global_step500", the tag that DeepSpeed gives a run after so many steps.
std::string tag_of_run(const manifest::Manifest& model);

// Plain data as Python has it. Lists are lists, but for betas, which are a tuple.
void put_value(PickleWriter& p, const manifest::Value& value, std::string_view key = {});

// Entries of model states: skipped_steps, global_steps, global_samples.
void put_counters(PickleWriter& p, const Training& training);
// Entries of model states that are the job's own (client_state).
void put_client_state(PickleWriter& p, const Training& training);
// The value of "lr_scheduler": the source's, or empty enough for every scheduler of a run that has
// not begun.
void put_scheduler_state(PickleWriter& p, const Training& training);
// What the source's loss scaler has under this name: a number, or whether something holds. nullptr:
// nothing, or the scaler is not dynamic.
const manifest::Value* loss_scaler_value(const Training& training, std::string_view name);
inline constexpr std::string_view kScalerModule = "deepspeed.runtime.fp16.loss_scaler";

// Entries of a group's hyper-parameters.
void put_hyper_parameters(PickleWriter& p, const manifest::ParameterGroup& group);

}  // namespace crossdock::torch_write
