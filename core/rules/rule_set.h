// The rules of all files, read once at the start of a run. rules.proto has the schema;
// docs/rules.md tells how to write one.
#pragma once

#include "core/model/config.h"

#include <crossdock/result.hpp>

#include <boost/filesystem/path.hpp>

#include <memory>
#include <vector>

namespace crossdock::rules {

namespace v1 {
class Architecture;
}

// Where rules lie, in the order in which they are asked.
struct RuleFiles {
  std::vector<boost::filesystem::path> files;    // the user's own
  std::vector<boost::filesystem::path> folders;  // with *.textproto, taken in order of their names
};

// Copies share the rules. Never changes after load(). [any]
class RuleSet {
 public:
  RuleSet();  // without rules
  // Errors: a file that cannot be read or is no rule, by its name and line; a regular expression
  // that is none in one of `files` (in those of folders it is found when its class is asked for). A
  // folder that is not there has no rules.
  static Result<RuleSet> load(const RuleFiles& from);

  // The first rule that describes the module of this class. Of a model whose config.json names no
  // class: the only one of its model_type. nullptr: there is none. The set owns it.
  const v1::Architecture* module_of(const model::ModelClass& asked) const;

  // Those of the files, in their order.
  const std::vector<v1::Architecture>& all() const;

 private:
  struct Rules;
  std::shared_ptr<const Rules> rules_;
};

}  // namespace crossdock::rules
