// SPDX-License-Identifier: Apache-2.0

// The order of named_parameters(): torch goes through the tree of modules, and gives the parameters
// of a module itself before those of its members, numbered members ascending.
#pragma once

#include "core/rules/module_rule.h"

#include <map>
#include <set>
#include <string>
#include <vector>

namespace crossdock::rules {

class ModuleOrder {
 public:
  // Of a rule that outlives it: its parameters show in which order members come.
  explicit ModuleOrder(const v1::Architecture& rule);

  // Greater ones come later. `found` is of the rule.
  using Key = std::vector<uint64_t>;
  Key key(const ModuleRule::Found& found) const;

 private:
  // The numbered members of a module are one row, "model.layers.#", those too that the rule names
  // by their number.
  std::string in_row(const std::string& module) const;

  std::set<std::string> rows_;
  std::map<std::string, uint64_t> places_;  // of the first parameter of each module
};

}  // namespace crossdock::rules
