// SPDX-License-Identifier: Apache-2.0

// The optimizer's state of a checkpoint: moments, steps and groups, as far as they are of the
// model's parameters.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "plugins/reader_dcp/checkpoint.h"
#include "plugins/reader_dcp/metadata.h"

namespace crossdock::reader_dcp {

// How the files of one .metadata are reached.
struct Reach {
  // Adds a tensor to the checkpoint under a name.
  std::function<Result<void>(const TensorEntry&, const std::string& name)> add;
  // The value of a scalar.
  std::function<Result<double>(const TensorEntry&)> scalar;
  std::function<Result<manifest::Value>(const ObjectEntry&)> object;
};

// Adds moments to the tensors of `out`, which are the model's until then, and fills its training
// state. What cannot be used is told in a warning.
Result<void> add_training(const Host& host, const Metadata& metadata, const Reach& reach,
                          Checkpoint& out);

}  // namespace crossdock::reader_dcp
