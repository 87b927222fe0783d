// The state of the training: groups, steps and moments.
#pragma once

#include "plugins/deepspeed/training.h"
#include "plugins/reader_zero/checkpoint.h"
#include "plugins/reader_zero/groups.h"

namespace crossdock::reader_zero {

// Adds the moments' tensors and the training state.
Result<void> add_training(const Host& host, const States& states, const Groups& groups,
                          const TensorIndex& index, Checkpoint& out);

}  // namespace crossdock::reader_zero
