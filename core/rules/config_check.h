// SPDX-License-Identifier: Apache-2.0

// Whether a model's tensors are those that its config.json speaks of.
#pragma once

#include "core/rules/facts.h"
#include "core/rules/module_rule.h"

#include <crossdock/manifest_wire.hpp>

namespace crossdock::rules {

// By target names: the number of dimensions of each parameter, its sizes (vocab_size, hidden_size,
// ...) and the number of layers. Names that the rule does not know and keys that config.json lacks
// say nothing. `ignore_sizes`: only dimensions are counted, for those who changed the model and not
// its config.json.
Result<void> check_against_config(const ModuleRule& rule, const manifest::Manifest& m,
                                  bool ignore_sizes);

// What config.json says of a size (Parameter.dim); nothing where it does not.
std::optional<uint64_t> size_in_config(const Facts& facts, const std::string& dim);

}  // namespace crossdock::rules
