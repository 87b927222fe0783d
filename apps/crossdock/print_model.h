// SPDX-License-Identifier: Apache-2.0

// What `crossdock inspect` prints of a model.
#pragma once

#include "apps/command/model_json.h"

namespace crossdock::app {

void print_summary(const convert::TensorSource& tensors);

// A line for each tensor; with statistics, one more on what is odd.
void print_tensors(const manifest::Manifest& m, const Values& values);

}  // namespace crossdock::app
