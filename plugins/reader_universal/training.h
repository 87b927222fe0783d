// SPDX-License-Identifier: Apache-2.0

// The state of the training that a universal checkpoint tells: groups, steps, what else.
#pragma once

#include "plugins/deepspeed/training.h"
#include "plugins/reader_universal/states.h"

namespace crossdock::reader_universal {

// `step`: of step.pt, where there are such files.
Result<void> add_training(const Host& host, const States& states,
                          const std::optional<uint64_t>& step, const TensorIndex& index,
                          manifest::TrainingState& out);

}  // namespace crossdock::reader_universal
