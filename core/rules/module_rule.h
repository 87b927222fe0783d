// SPDX-License-Identifier: Apache-2.0

// What a rule says of the module of one class, ready to be asked: which names it has, and which of
// them a tensor of a file is, or is a part of.
#pragma once

#include "core/base/regex.h"
#include "core/rules/name_tree.h"
#include "core/rules/rule_set.h"

#include <crossdock/manifest_wire.hpp>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace crossdock::rules {

namespace v1 {
class Parameter;
class Part;
class Tied;
}  // namespace v1

// Never changes. [any]
class ModuleRule {
 public:
  // The rule for the class that the model's config.json names; nothing when there is none.
  static Result<std::optional<ModuleRule>> find(const RuleSet& rules, const manifest::Manifest& m);

  // Of a model whose config.json names no class: one of its model type that has all its tensors,
  // the first in the alphabet. Its sizes are those of any other; which parameters there are it
  // cannot tell.
  static Result<std::optional<ModuleRule>> find_like(const RuleSet& rules,
                                                     const manifest::Manifest& m);

  const v1::Architecture& rule() const { return *rule_; }
  // "LlamaForCausalLM", for messages.
  const std::string& class_name() const { return class_name_; }

  // A parameter or a buffer, and the numbers of one of its names.
  struct Found {
    const v1::Parameter* parameter = nullptr;
    uint32_t place = 0;  // in the rule, buffers behind parameters
    bool is_buffer = false;
    Numbers numbers;
  };
  // What the class calls so.
  std::optional<Found> find(const std::string& name) const;
  // Whether it is a name of the class: a parameter's, a buffer's, or one that is tied to it.
  bool knows(const std::string& name) const;

  // What a tensor of a file is.
  struct Stored {
    std::string name;  // as the rule spells it
    struct Use {
      Found of;                        // whose numbers may be followed by that of a stack's part
      const v1::Part* from = nullptr;  // the alternative of it that has a part of this name
    };
    std::vector<Use> uses;  // none: it has the class's own name
  };
  // By its name itself, or the same with the base class's prefix added or taken off, or one of
  // these renamed as transformers renames old names. Nothing: the class has no such tensor.
  Result<std::optional<Stored>> find_stored(const std::string& name) const;
  // Why the class has no tensor of such a name, where the rule knows that; nullptr: it does not.
  Result<const std::string*> reason_without(const std::string& name) const;
  // Names that are one parameter by the model's config.json: `to` is that of named_parameters(). Of
  // numbered ones those of which the model has one.
  struct TiedNames {
    std::string name, to;
    bool operator==(const TiedNames&) const = default;
  };
  std::vector<TiedNames> tied_names(const manifest::Manifest& m) const;
  // Of names of the base class's files: "transformer."; empty: the rule does not tell.
  const std::string& base_prefix() const;

 private:
  ModuleRule(std::shared_ptr<const v1::Architecture> rule, std::string class_name);
  static Result<ModuleRule> compiled(std::shared_ptr<const v1::Architecture> rule,
                                     std::string class_name);
  Result<void> compile();
  Result<std::vector<std::string>> spellings_of(const std::string& name) const;
  void add(const v1::Parameter& parameter, bool is_buffer);

  std::shared_ptr<const v1::Architecture> rule_;
  std::string class_name_;
  std::vector<Found> own_;           // without numbers
  std::vector<Stored::Use> stored_;  // the same
  NameTree own_names_, stored_names_, tied_names_;
  std::vector<base::Regex> renamed_, excluded_;  // in the rule's order
};

}  // namespace crossdock::rules
