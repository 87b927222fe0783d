// What a rule says of the module of one class, ready to be asked: which names it has, and which of
// them a tensor of a file is.
#pragma once

#include "core/base/regex.h"
#include "core/rules/rule_set.h"

#include <crossdock/manifest_wire.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace crossdock::rules {

namespace v1 {
class Parameter;
class Tied;
}  // namespace v1

// Of one RuleSet, which outlives it. Never changes. [any]
class ModuleRule {
 public:
  // The rule for the class that the model's config.json names; nothing when there is none.
  static Result<std::optional<ModuleRule>> find(const RuleSet& rules, const manifest::Manifest& m);

  const v1::Architecture& rule() const { return *rule_; }
  // "LlamaForCausalLM", for messages.
  const std::string& class_name() const { return class_name_; }

  // The parameter of this name, where '#' and '##' stand for any numbers; nullptr: the class has
  // none.
  const v1::Parameter* find_parameter(const std::string& name) const;
  // Whether it is a name of the class: a parameter's, or one that is tied to it.
  bool knows(const std::string& name) const;
  // The class's name for a tensor that a file calls `name`: the name itself, or the same with the
  // base class's prefix added or taken off, or one of these renamed as transformers renames old
  // names. Nothing: the class has no such tensor.
  Result<std::optional<std::string>> own_name(const std::string& name) const;
  // Why the class has no tensor of such a name, where the rule knows that; nullptr: it does not.
  Result<const std::string*> reason_without(const std::string& name) const;
  // The tied names that are one parameter by the model's config.json.
  std::vector<const v1::Tied*> tied_names(const manifest::Manifest& m) const;
  // Of names of the base class's files: "transformer."; empty: the rule does not tell.
  const std::string& base_prefix() const;
  // Regular expressions, see add_param_groups().
  std::vector<std::string> no_decay() const;

 private:
  ModuleRule(const v1::Architecture& rule, std::string class_name);
  Result<void> compile();
  Result<std::vector<std::string>> spellings_of(const std::string& name) const;

  const v1::Architecture* rule_;
  std::string class_name_;
  std::unordered_map<std::string_view, const v1::Parameter*> by_name_;  // spelled as in the rule
  std::vector<base::Regex> renamed_, excluded_;                         // in the rule's order
};

}  // namespace crossdock::rules
