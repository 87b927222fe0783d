// SPDX-License-Identifier: Apache-2.0

// The weights of a quantised model become plain ones: each of its codes with their scales and zeros
// is one tensor, an expression that is evaluated as it is read.
#pragma once

#include "core/rules/layout.h"

#include <optional>

namespace crossdock::quantised {

struct Dequantised {
  // One for each tensor of the new manifest; empty, and then nothing else: nothing is quantised.
  std::vector<transform::Expression> expressions;
  std::vector<manifest::Tensor> before;  // as they were
  std::vector<std::string> notes;
};

// Makes of `m` the model with plain weights of type `wanted`, or of that of config.json; after an
// error it is as it was. What belongs to activations, which a job in floats does not use, is
// excluded. `made` has an expression for each tensor, made of the `stored` ones, of which `read`
// reads small ones; if it is empty, the tensors are the stored ones themselves. Errors: codes
// without their scales, or with such that do not fit.
Result<Dequantised> dequantise(std::optional<manifest::DType> wanted, const rules::ReadTensor& read,
                               const std::vector<transform::Expression>& made,
                               std::span<const manifest::Tensor> stored, manifest::Manifest& m);

}  // namespace crossdock::quantised
