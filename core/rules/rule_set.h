// SPDX-License-Identifier: Apache-2.0

// Where rules are found. rules.proto has the schema; docs/rules.md tells how to write one. There is
// one for each class of transformers, so a run reads only those that it asks for.
#pragma once

#include "core/model/config.h"

#include <crossdock/result.hpp>

#include <boost/filesystem/path.hpp>

#include <memory>
#include <string>
#include <vector>

namespace crossdock::rules {

namespace v1 {
class Architecture;
}

// In the order in which they are asked.
struct RuleFiles {
  std::vector<boost::filesystem::path> files;  // the user's own
  // With MODEL_TYPE/CLASS.textproto and MODEL_TYPE/FORMAT.textproto.
  std::vector<boost::filesystem::path> folders;
};

using Rules = std::vector<std::shared_ptr<const v1::Architecture>>;

// Copies share the user's rules. Never changes after load(). [any]
class RuleSet {
 public:
  RuleSet() = default;  // without rules
  // Reads the user's own. Errors: a file that cannot be read or is no rule, by its name and line; a
  // regular expression that is none.
  static Result<RuleSet> load(const RuleFiles& from);

  // The rule of this class, with what its base class's rule says; nullptr: there is none. Errors:
  // as of load(), and a base class without a rule.
  Result<std::shared_ptr<const v1::Architecture>> module_of(const model::ModelClass& asked) const;

  // The rules of all classes of a model type, in order of their files' names.
  Result<Rules> modules_of(const std::string& model_type) const;

  // The rules that may hold layouts of a format ("gguf"), in order of their files' names.
  Result<Rules> with_layouts_of(const std::string& format) const;

 private:
  Result<std::shared_ptr<const v1::Architecture>> find(const model::ModelClass& asked) const;
  Result<std::shared_ptr<const v1::Architecture>> with_base(
      std::shared_ptr<const v1::Architecture> rule) const;

  Rules of_files_;
  std::vector<boost::filesystem::path> folders_;
};

}  // namespace crossdock::rules
