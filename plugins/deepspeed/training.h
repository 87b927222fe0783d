// SPDX-License-Identifier: Apache-2.0

// The state of a training as a manifest has it, of what DeepSpeed's files say.
#pragma once

#include "plugins/deepspeed/optimizer.h"
#include "plugins/deepspeed/tensors.h"

#include <optional>
#include <string>
#include <vector>

namespace crossdock::deepspeed {

// The steps that the job's optimizer has done as the model states count them, where they do:
// global_steps without those that were skipped.
std::optional<uint64_t> steps_of_job(const ModelStates& model);

// Steps of the optimizer, whose groups may have counted them: `counted`; where none did, the job's.
uint64_t steps_done(const Host& host, const std::vector<uint64_t>& counted,
                    const ModelStates& model);

// The parameters of each of the optimizer's groups, which have a group of param_shapes each, with
// stage 3 perhaps several. Without groups all are in one.
std::vector<manifest::ParameterGroup> parameter_groups(std::vector<OptimizerGroup> groups,
                                                       const ModelStates& model,
                                                       const TensorIndex& index);

struct JobFacts {
  std::string tag;  // empty where nothing tells it
  uint64_t stage = 0, n_ranks = 0;
  std::string optimizer;  // empty where nothing tells it
  manifest::Value loss_scaler;
};
std::vector<manifest::KeyValue> metadata_of(const JobFacts& job, const ModelStates& model);

}  // namespace crossdock::deepspeed
