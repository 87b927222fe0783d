// SPDX-License-Identifier: Apache-2.0

// The tensors of a layout: matches a source's names, and makes the expression of each tensor of the
// checkpoint.
#pragma once

#include "core/rules/variables.h"
#include "core/transform/expression.h"

namespace crossdock::rules {

struct NewTensors {
  std::vector<manifest::Tensor> tensors;
  std::vector<transform::Expression> expressions;  // one for each
};

// See lay_out. Errors: a rule that is no rule or does not fit, a tensor that is missing, or that no
// rule takes.
Result<NewTensors> apply_tensor_rules(const pb::Architecture& rule, const pb::Layout& layout,
                                      const Variables& variables, const Facts& facts,
                                      bool keep_unmatched, const manifest::Manifest& m);

}  // namespace crossdock::rules
