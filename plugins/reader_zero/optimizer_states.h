// SPDX-License-Identifier: Apache-2.0

// What one rank's *_optim_states.pt says: its part of the fp32 weights and of the optimizer's
// state.
#pragma once

#include "plugins/deepspeed/optimizer.h"

#include <optional>
#include <string>
#include <vector>

namespace crossdock::reader_zero {

using namespace deepspeed;  // what it shares with the reader of universal checkpoints

// The rank's part of one flat group: of an optimizer's group, with stage 3 of a sub-group of one.
struct FlatGroup {
  struct State {
    std::string key;  // "exp_avg"
    Stored value;     // of one dimension
  };
  Stored master;
  std::vector<State> states;
  std::optional<uint64_t> step;
};

struct OptimizerStates {
  uint64_t stage = 0;
  std::vector<uint64_t> partition_counts;  // of each flat group; with stage 3 one for all
  std::vector<FlatGroup> flat_groups;
  // Elements of padding at the end of each part, and behind each parameter (stages 1 and 2).
  std::vector<uint64_t> paddings;
  std::vector<std::vector<uint64_t>> alignment_paddings;
  std::vector<OptimizerGroup> groups;
  std::string optimizer;        // its class; empty where the file does not tell
  manifest::Value loss_scaler;  // unset where there is none

  uint64_t n_ranks() const;
};

// `warns`: of what is left out; ranks have the same.
Result<OptimizerStates> read_optimizer_states(const FileInput& file, bool warns);

}  // namespace crossdock::reader_zero
