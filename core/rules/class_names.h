// SPDX-License-Identifier: Apache-2.0

// The names of tensors as the class spells them today, whatever the file calls them: every writer
// gets these.
#pragma once

#include "core/rules/module_rule.h"

#include <crossdock/manifest_wire.hpp>

#include <string>
#include <vector>

namespace crossdock::rules {

// Gives each tensor the class's name for it (target_name). Those that the rule says the class does
// not have (masks, heads of other tasks) become `excluded`. A note tells of both. A name that the
// rule does not know stays. If the file has a tied parameter only under its other name, it gets its
// own. Errors: two tensors that are one parameter.
Result<void> give_class_names(const ModuleRule& rule, manifest::Manifest& m,
                              std::vector<std::string>& notes);

// Tells the class's buffers from its parameters, under the names of files too; give_class_names()
// does so itself.
Result<void> give_roles(const ModuleRule& rule, manifest::Manifest& m);

// The parameters that the file has under several names which the class ties: the index of the one
// under its own name first. After give_class_names().
std::vector<manifest::AliasGroup> find_tied(const ModuleRule& rule, const manifest::Manifest& m);

// Parameters that the class does not have, by index.
std::vector<uint64_t> find_unknown(const ModuleRule& rule, const manifest::Manifest& m);

// For a class that no rule describes: how the names that transformers spells otherwise today can be
// renamed. Empty: there are none.
std::string old_names_hint(const manifest::Manifest& m);

}  // namespace crossdock::rules
