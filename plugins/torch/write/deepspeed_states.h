// SPDX-License-Identifier: Apache-2.0

// Parts of DeepSpeed's model states that all of its checkpoints share; training.h has those of a
// run.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include "plugins/torch/write/pickle_writer.h"

namespace crossdock::torch_write {

// The release whose files ours are like.
inline constexpr std::string_view kDeepSpeedVersion = "0.19.8";

// The value of "shared_params": {name that was left out: name that stands for it}.
void put_shared_params(PickleWriter& p, const manifest::Manifest& model);
// The entry "checkpoint_parallel_dimensions".
void put_parallel_dimensions(PickleWriter& p);

}  // namespace crossdock::torch_write
