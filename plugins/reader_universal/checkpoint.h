// SPDX-License-Identifier: Apache-2.0

// A universal checkpoint as a model and the state of its training: which tensors there are, and
// where in which files each lies.
#pragma once

#include "plugins/reader_universal/states.h"

#include <string>

namespace crossdock::reader_universal {

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input, const std::string& tag,
                                   Weights weights, bool verify_crc);

}  // namespace crossdock::reader_universal
