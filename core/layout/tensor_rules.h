// The tensors of a layout: matches a source's names, and makes the program of each tensor of the
// checkpoint.
#pragma once

#include "core/layout/program.h"
#include "core/layout/variables.h"

namespace crossdock::layout {

struct NewTensors {
  std::vector<manifest::Tensor> tensors;
  std::vector<Program> programs;  // one for each
};

// See lay_out. Errors: a rule that is no rule or does not fit, a tensor that is missing, or that no
// rule takes.
Result<NewTensors> apply_tensor_rules(const pb::Architecture& rule, const pb::Layout& layout,
                                      const Variables& variables, bool keep_unmatched,
                                      const manifest::Manifest& m);

}  // namespace crossdock::layout
