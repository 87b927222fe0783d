// SPDX-License-Identifier: Apache-2.0

// What a tensor's values are like, and which of them look broken.
#pragma once

#include "core/verify/difference.h"

#include <cstdint>
#include <string>
#include <vector>

namespace crossdock::verify {

struct Statistics {
  uint64_t n_elems = 0;
  uint64_t n_nan = 0, n_inf = 0, n_zero = 0;  // -0 is a zero
  // Of the finite ones; without any, 0 all.
  double min = 0, max = 0, mean = 0;
  bool is_constant = false;  // all elements one number, of at least two
  bool begins_so = false;    // a vector of zeros or ones, as norms and biases begin
  bool has_numbers = true;   // false: a complex type, of which nothing is told

  // "3 NaN, 1 Inf", "all zero", "constant 0.5"; empty where nothing is odd.
  std::string oddity() const;
};

// One for each tensor, in order. Reads all values.
Result<std::vector<Statistics>> take_statistics(const Comparing& how, convert::TensorSource& model);

}  // namespace crossdock::verify
