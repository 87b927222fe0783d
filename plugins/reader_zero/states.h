// SPDX-License-Identifier: Apache-2.0

// The states of all files of a checkpoint, which belong together.
#pragma once

#include "plugins/deepspeed/model_states.h"
#include "plugins/deepspeed/opener.h"
#include "plugins/reader_zero/optimizer_states.h"
#include "plugins/reader_zero/universal_info.h"

#include <string>
#include <vector>

namespace crossdock::reader_zero {

// Of one model-parallel rank.
struct States {
  ModelStates model;                       // of rank 0
  std::vector<RankStates> ranks;           // stage 3: of each rank
  std::vector<OptimizerStates> optimizer;  // of each rank

  uint64_t stage() const { return optimizer[0].stage; }
  size_t n_ranks() const { return optimizer.size(); }
};

struct SavedJob {
  std::string tag;
  OpenFiles opened;
  // Model-parallel rank s * tensor_ranks + t has tensor-parallel rank t's shares of the layers of
  // pipeline stage s.
  std::vector<States> parts;
  uint64_t tensor_ranks = 1;
  std::optional<UniversalInfo> info;  // of the first rank; only with several parts

  uint64_t stage() const { return parts[0].stage(); }
};

// "mp_rank_01"
std::string part_name(uint64_t part);

// One file's pickle at a time is in memory. Errors: a rank's file is missing, or is of another
// save.
Result<SavedJob> read_states(const Host& host, const Input& input, const std::string& tag,
                             bool verify_crc);

}  // namespace crossdock::reader_zero
