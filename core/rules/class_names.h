// The names of tensors as the class spells them today, whatever the file calls them: every writer
// gets these.
#pragma once

#include "core/rules/module_rule.h"

#include <crossdock/manifest_wire.hpp>

#include <string>
#include <vector>

namespace crossdock::rules {

// Sets target_name of each tensor to the name that the class has for it, and `excluded` of those
// that the rule says the class has not (masks, heads of other tasks), with a note for both. What
// the rule does not know keeps its name. A parameter that the file has under a tied name only gets
// its own. Errors: two tensors that are the same parameter.
Result<void> give_class_names(const ModuleRule& rule, manifest::Manifest& m,
                              std::vector<std::string>& notes);

// The parameters that the file has under several names which the class ties: the index of the one
// under its own name first. After give_class_names().
std::vector<manifest::AliasGroup> find_tied(const ModuleRule& rule, const manifest::Manifest& m);

// Parameters that the class does not have, by their target names.
std::vector<std::string> find_unknown(const ModuleRule& rule, const manifest::Manifest& m);

// For a class that no rule describes: how the names that transformers spells otherwise today can be
// renamed. Empty: there are none.
std::string old_names_hint(const manifest::Manifest& m);

}  // namespace crossdock::rules
