// SPDX-License-Identifier: Apache-2.0

// The optimizer's groups of a module that rules describe.
#pragma once

#include "core/rules/module_rule.h"

#include <crossdock/manifest_wire.hpp>

#include <string>

namespace crossdock::rules {

// Fills module.training.groups. `how`: "single" leaves them to make_groups (describe.h);
// "hf-trainer" makes the two of Hugging Face's Trainer; else it is a file of ParamGroups
// (rules.proto), one of whose groups every trained parameter must be in.
Result<void> add_param_groups(const std::string& how, const ModuleRule& rule,
                              manifest::Manifest& module);

}  // namespace crossdock::rules
