// What `crossdock inspect` prints of a model.
#pragma once

#include "core/convert/tensor_source.h"
#include "core/verify/statistics.h"

#include <string>
#include <vector>

namespace crossdock::app {

void print_summary(const convert::TensorSource& tensors);

// What was read of each tensor's values; either may be empty.
struct Values {
  std::vector<std::string> digests;
  std::vector<verify::Statistics> statistics;
};

// A line for each tensor; with statistics, one more on what is odd.
void print_tensors(const manifest::Manifest& m, const Values& values);
void print_json(const convert::TensorSource& tensors, const Values& values);

}  // namespace crossdock::app
