// The optimizer's groups of a module that rules describe.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <string>
#include <vector>

namespace crossdock::rules {

// Fills module.training.groups. `how`: "single" leaves them to make_groups (describe.h);
// "hf-trainer" makes the two of Hugging Face's Trainer, where `no_decay` are regular expressions
// for the names that it finds by their module's class; else it is a file of ParamGroups
// (rules.proto), one of whose groups every trained parameter must be in.
Result<void> add_param_groups(const std::string& how, const std::vector<std::string>& no_decay,
                              manifest::Manifest& module);

}  // namespace crossdock::rules
