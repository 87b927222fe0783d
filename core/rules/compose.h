// SPDX-License-Identifier: Apache-2.0

// From the tensors of Hugging Face's files to those of the running class, and back: experts are
// stored one by one and run stacked, a projection is stored in one piece and runs in three.
#pragma once

#include "core/rules/module_rule.h"
#include "core/transform/expression.h"

#include <span>
#include <vector>

namespace crossdock::rules {

// Whose names and shapes the tensors get.
enum class Names {
  kModule,  // named_parameters() of the class
  kFile     // what the class's own save_pretrained writes
};

struct Composed {
  // One for each tensor of the new manifest; empty, and then nothing else: all is as it was.
  std::vector<transform::Expression> expressions;
  size_t n_made = 0, n_used = 0;  // new tensors, and those that they were made of
};

// Makes of `m` the model with such tensors; after an error it is as it was. Each parameter by
// itself: what the file has of it decides, and one that the file has in the wanted way stays.
// `made` has an expression for each tensor, or none at all: then they are the `stored` ones. A new
// tensor's target name is that of the rule; its name tells what it is made of. Errors: a part that
// is missing or does not fit, a parameter that the file has in two ways.
Result<Composed> compose(const ModuleRule& rule, Names names,
                         const std::vector<transform::Expression>& made,
                         std::span<const manifest::Tensor> stored, manifest::Manifest& m);

}  // namespace crossdock::rules
