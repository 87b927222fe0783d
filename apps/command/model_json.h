// SPDX-License-Identifier: Apache-2.0

// A checkpoint as JSON: `crossdock inspect --json`.
#pragma once

#include "core/convert/tensor_source.h"
#include "core/verify/statistics.h"

#include <string>
#include <vector>

namespace crossdock::app {

// What was read of each tensor's values; either may be empty.
struct Values {
  std::vector<std::string> digests;
  std::vector<verify::Statistics> statistics;
};

std::string model_json(const convert::TensorSource& tensors, const Values& values);

// Whether it has the state of a training run beside the parameters.
bool is_trained(const manifest::Manifest& m);

}  // namespace crossdock::app
