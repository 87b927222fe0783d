// SPDX-License-Identifier: Apache-2.0

// A DeepSpeed checkpoint as a model and the state of its training: which tensors there are, and
// which bytes of which files each is made of.
#pragma once

#include "plugins/reader_zero/merge.h"

#include <string>

namespace crossdock::reader_zero {

Result<Merged> open_checkpoint(const Host& host, const Input& input, const std::string& tag,
                               Weights weights, bool verify_crc);

}  // namespace crossdock::reader_zero
