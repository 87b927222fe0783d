// How two checkpoints differ: names, shapes, types, and how far apart the values are.
//
// Values are compared as numbers, in double. Two that are equal bit for bit in one type are the
// same, NaN too; -0 and 0 are equal numbers with other bits, and so they differ by 0. The distance
// in *ulp* is counted in the coarser of the two types, the one with fewer bits of mantissa: both
// values are rounded to it, and it is how many steps from one representable value to the next lie
// between them. It is told of BF16, F16, F32 and F64.
#pragma once

#include "core/verify/opened.h"
#include "core/verify/values.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace crossdock::verify {

struct TensorDifference {
  std::string name;
  manifest::DType dtype[2];  // of A, of B
  std::vector<uint64_t> shape[2];
  bool is_comparable = false;  // of one shape, and of types that have numbers or are the same
  uint64_t n_elems = 0;
  uint64_t n_differ = 0;  // elements
  uint64_t n_nan[2] = {0, 0};
  double max_abs = 0;  // of pairs that are both finite; infinity where one is not
  std::optional<uint64_t> max_ulp;
  uint64_t first = 0;      // the first element that differs
  std::string first_text;  // "A 1.5, B 1.25"

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

// The coarser of two types that ulps are counted in; nothing for others.
std::optional<manifest::DType> coarser(manifest::DType a, manifest::DType b);
// Steps between two numbers that are no NaN, in such a type.
uint64_t ulp_distance(manifest::DType dtype, double a, double b);

}  // namespace crossdock::verify
