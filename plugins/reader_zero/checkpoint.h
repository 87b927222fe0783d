// A DeepSpeed checkpoint as a model and the state of its training: which tensors there are, and
// which segments of which files each is made of.
#pragma once

#include "plugins/deepspeed/tensors.h"

#include <string>

namespace crossdock::reader_zero {

using namespace deepspeed;  // what it shares with the reader of universal checkpoints

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input, const std::string& tag,
                                   Weights weights);

}  // namespace crossdock::reader_zero
