// SPDX-License-Identifier: Apache-2.0

// What DeepSpeed's files say of the optimizer, the same in ZeRO's own checkpoints and in universal
// ones: groups with their hyper-parameters, steps, the class, the loss scaler.
#pragma once

#include "plugins/deepspeed/stored.h"
#include "plugins/deepspeed/values.h"

#include <optional>
#include <string>
#include <vector>

namespace crossdock::deepspeed {

// An optimizer keeps two or three values for each element.
inline constexpr size_t kMaxStates = 32;

// One file while it is read.
struct FileInput {
  const Host& host;
  const torch_read::TorchFile& torch;
  const Source& source;
  uint32_t file;
};

// A number, or a tensor of one element: torch's optimizers count steps in tensors. Nothing where
// it is no whole number of 0 or more.
Result<std::optional<uint64_t>> step_of(const FileInput& in, const Value* v);

struct OptimizerGroup {
  size_t n_flat_groups = 1;
  std::vector<manifest::KeyValue> hyper_parameters;
};

// torch's param_groups: [{..., params: [id, ...]}]
struct TorchGroups {
  std::vector<OptimizerGroup> groups;
  std::vector<int64_t> ids;  // of flat groups, in their order
  std::optional<uint64_t> step;
  std::string optimizer;  // its class, where the groups tell it
};
// `warns`: of what is left out.
Result<TorchGroups> torch_groups(const FileInput& in, std::span<const Value> param_groups,
                                 const std::string& place, bool warns);

// The class that DeepSpeed makes of its config, which `root` has as ds_config. Empty where it does
// not tell.
std::string configured_optimizer(const Dict& root);

// The attributes of the object "loss_scaler"; unset where there is none.
manifest::Value loss_scaler_of(const Dict& states);

}  // namespace crossdock::deepspeed
