// SPDX-License-Identifier: Apache-2.0

// What is in each file of a universal checkpoint: its pickle, and where the bytes of its storages
// come from.
//
// FORMAT.md says what DeepSpeed reads of it. Pure functions of the model; any thread.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <span>
#include <string>
#include <vector>

#include "plugins/torch/write/content.h"
#include "plugins/torch/write/training.h"
#include "plugins/writer_universal/settings.h"

namespace crossdock::writer_universal {

using torch_write::Content;

// The manifest's tensors, by what becomes of them: indexes.
struct Parts {
  std::vector<uint64_t> parameters, frozen, buffers, optimizer_states;
};

Content weights(const manifest::Tensor& tensor, uint64_t index, bool keep_dtype);
// Of a run that has not begun: exp_avg and exp_avg_sq alike; not for kNone.
Content moment(const manifest::Tensor& tensor, Moments how);
// Of one that has: `state`, whose index it is, holds the values.
Content kept_moment(const manifest::Tensor& state, uint64_t index);
Content step(const torch_write::Training& training);
Content optimizer_state(const manifest::Manifest& model, const torch_write::Training& training);
Content model_states(const manifest::Manifest& model, const Parts& parts,
                     const torch_write::Training& training);
Content scheduler(const torch_write::Training& training);
std::string trainer_state_json(const torch_write::Training& training);

}  // namespace crossdock::writer_universal
