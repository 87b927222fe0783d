// The states of all files of a checkpoint, which belong together.
#pragma once

#include "plugins/deepspeed/model_states.h"
#include "plugins/deepspeed/opener.h"
#include "plugins/reader_zero/optimizer_states.h"

#include <string>
#include <vector>

namespace crossdock::reader_zero {

struct States {
  std::string tag;
  OpenFiles opened;
  ModelStates model;                       // of rank 0
  std::vector<RankStates> ranks;           // stage 3: of each rank
  std::vector<OptimizerStates> optimizer;  // of each rank

  uint64_t stage() const { return optimizer[0].stage; }
  size_t n_ranks() const { return optimizer.size(); }
  const std::string& file_of(const Stored& stored) const { return opened.files[stored.file].name; }
};

// One file's pickle at a time is in memory. Errors: a rank's file is missing, or is of another
// save.
Result<States> read_states(const Host& host, const Input& input, const std::string& tag);

}  // namespace crossdock::reader_zero
