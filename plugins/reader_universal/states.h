// SPDX-License-Identifier: Apache-2.0

// What a universal checkpoint says beside its parameters' values: the model states, and the
// optimizer's state.
#pragma once

#include "plugins/deepspeed/opener.h"
#include "plugins/deepspeed/tensors.h"
#include "plugins/reader_universal/files.h"

#include <optional>
#include <string>
#include <vector>

namespace crossdock::reader_universal {

using namespace deepspeed;  // what it shares with the reader of ZeRO's own checkpoints

struct OptimizerState {
  uint64_t stage = 0;
  TorchGroups torch;
  // What crossdock's own files tell: of each group its parameters, and the names of the module in
  // their order.
  std::vector<std::vector<std::string>> names;
  std::vector<std::string> module_names;
  std::vector<uint64_t> steps;  // of its flat groups, where it counts them
  std::string optimizer;        // its class; empty where the file does not tell
  manifest::Value loss_scaler;  // unset where there is none
};

struct States {
  ModelStates model;              // of all model-parallel ranks
  std::vector<RankStates> ranks;  // stage 3, where parameters are frozen: of each rank
  OptimizerState optimizer;

  // Whether the model states are those of stage 3, without parameters' values.
  bool has_rank_models = false;
  uint64_t stage() const { return optimizer.stage; }
};

Result<States> read_states(const CheckpointFiles& files, Opener& opener);

}  // namespace crossdock::reader_universal
