// SPDX-License-Identifier: Apache-2.0

// The module of a class as its rule describes it, held against a model whose tensors have the
// class's names (class_names.h).
#pragma once

#include "core/rules/module_rule.h"

#include <crossdock/manifest_wire.hpp>

namespace crossdock::rules {

// An error when a parameter of the class is missing in the model.
Result<void> check_parameters(const ModuleRule& rule, const manifest::Manifest& m);

// The description of the module (core/model/describe.h), as far as the model's tensors show it:
// names, order, tied names. Errors: parameters that are missing, or that the rule does not know.
Result<manifest::Manifest> describe_module(const ModuleRule& rule, const manifest::Manifest& m);

// That there is no rule for the module of the class which config.json names, and why.
Error no_module_rule(const manifest::Manifest& m);

}  // namespace crossdock::rules
