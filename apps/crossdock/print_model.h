// What `crossdock inspect` prints of a model.
#pragma once

#include "core/convert/tensor_source.h"

#include <string>
#include <vector>

namespace crossdock::app {

void print_summary(const convert::TensorSource& tensors);

// A line for each tensor. `digests`: of each tensor, or empty.
void print_tensors(const manifest::Manifest& m, const std::vector<std::string>& digests);
void print_json(const convert::TensorSource& tensors, const std::vector<std::string>& digests);

}  // namespace crossdock::app
