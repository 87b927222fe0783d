// SPDX-License-Identifier: Apache-2.0

// How two checkpoints differ: names, shapes, types, and how far apart the values are.
#pragma once

#include "core/verify/distance.h"
#include "core/verify/opened.h"
#include "core/verify/values.h"

#include <cstdint>
#include <string>
#include <vector>

namespace crossdock::verify {

struct TensorDifference : Distance {
  std::string name;
  manifest::DType dtype[2];  // of A, of B
  std::vector<uint64_t> shape[2];
  bool is_comparable = false;  // of one shape, and of types that have numbers or are the same
  uint64_t n_elems = 0;

  bool is_same(bool ignores_types) const {
    return is_comparable && n_differ == 0 && (ignores_types || dtype[0] == dtype[1]);
  }
};

struct Difference {
  std::vector<std::string> only_in_a, only_in_b;
  std::vector<TensorDifference> tensors;  // of both, in A's order
  std::string note;                       // what was left out; may be empty

  bool is_same(bool ignores_types) const;
};

struct Comparing {
  base::Memory& memory;
  unsigned threads = 1;
  const std::atomic<bool>& cancelled;
  Progress progress;
};

// Tensors are the same when their names are (as the options of open_checkpoint() gave them). Reads
// all values that both have. An optimizer's state is left out where only one of them has one.
Result<Difference> compare_checkpoints(const Comparing& how, const Opened& a, const Opened& b);

}  // namespace crossdock::verify
