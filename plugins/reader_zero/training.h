// SPDX-License-Identifier: Apache-2.0

// The state of the training: groups, steps and moments.
#pragma once

#include "plugins/deepspeed/training.h"
#include "plugins/reader_zero/groups.h"
#include "plugins/reader_zero/part.h"

namespace crossdock::reader_zero {

// Adds the moments' tensors and the training state. `warns`: of what is left out; without it the
// steps are not told either, which all parts have done.
Result<void> add_training(const Host& host, const States& states, const Groups& groups,
                          const TensorIndex& index, Part& out, bool warns);

}  // namespace crossdock::reader_zero
