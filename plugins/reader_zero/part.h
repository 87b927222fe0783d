// SPDX-License-Identifier: Apache-2.0

// What one model-parallel rank has of a model and of the state of its training: which tensors, and
// which segments of which files each is made of. Without model parallelism that is all of them.
#pragma once

#include "plugins/deepspeed/tensors.h"
#include "plugins/reader_zero/states.h"

namespace crossdock::reader_zero {

using Part = Checkpoint;  // without sources, which all parts share

// Of job.parts[number]. `warns`: of what is left out.
Result<Part> open_part(const Host& host, const SavedJob& job, size_t number, Weights weights,
                       bool warns);

}  // namespace crossdock::reader_zero
