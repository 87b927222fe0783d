// SPDX-License-Identifier: Apache-2.0

// What a *_model_states.pt says: names, shapes, what is frozen or tied, buffers, counters.
#pragma once

#include "plugins/deepspeed/stored.h"
#include "plugins/deepspeed/values.h"

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace crossdock::deepspeed {

struct NamedShape {
  std::string name;
  std::vector<uint64_t> shape;
  uint64_t n_elems = 0;
};
struct NamedTensor {
  std::string name;
  Stored value;
};

// What the file of each rank has.
struct RankStates {
  std::optional<uint64_t> global_steps, dp_world_size;
  std::map<std::string, Stored, std::less<>> frozen_fragments;
};

struct ModelStates {
  std::vector<std::vector<NamedShape>> groups;  // trained parameters, in the order of flat groups
  // Parameters that the optimizer does not own. Nothing: the file does not tell (stage 1, or
  // exclude_frozen_parameters).
  std::optional<std::vector<NamedShape>> frozen;
  std::vector<NamedTensor>
      module;              // the module's state dict; of stage 3 without parameters' values
  bool has_module = true;  // of pipelines it lies in files of the layers
  std::vector<std::string> buffer_names;
  std::vector<std::pair<std::string, std::string>> tied;  // the other name, the kept one
  RankStates rank;
  manifest::DType dtype =
      manifest::DType::UNSPECIFIED;  // of the job's weights, where ds_config tells
  std::optional<uint64_t> mp_world_size, original_vocab_size;
  std::optional<uint64_t> pipeline_stages, tensor_ranks;  // checkpoint_parallel_dimensions
  std::vector<manifest::KeyValue> metadata;               // counters, scheduler, client_state

  // Of the job's weights, in the metadata too.
  void set_dtype(manifest::DType type);
};

// Where the parameters' values are: with `kRanks` in the files of ranks, with `kUniversal` in a
// universal checkpoint, which has those of all model-parallel ranks, pipeline stages and experts,
// so that the model states may be without a module.
enum class Layout { kRanks, kUniversal };

// A dict of a module's state: {name: tensor}. `warns`: of what is no tensor.
Result<std::vector<NamedTensor>> read_module(const Host& host, const Dict& dict,
                                             const torch_read::TorchFile& torch, uint32_t file,
                                             bool warns);
Result<RankStates> read_rank_states(const torch_read::TorchFile& torch, uint32_t file);
// `warns`: of what is left out.
Result<ModelStates> read_model_states(const Host& host, const torch_read::TorchFile& torch,
                                      uint32_t file, Layout layout = Layout::kRanks,
                                      bool warns = true);

}  // namespace crossdock::deepspeed
