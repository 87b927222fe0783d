// Descriptions of modules (describe.h) from rules per architecture: sdk/proto/crossdock/rules.proto
// has the schema, plugins/rules/*.textproto the rules.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <boost/filesystem/path.hpp>

#include <string>
#include <vector>

namespace crossdock::model {

struct RuleDescription {
  manifest::Manifest module;
  std::vector<std::string> renames;   // FROM=TO, as TargetOptions has them
  std::vector<std::string> no_decay;  // see param_groups.h
};

// The description of the module that the model's config.json names, as far as its tensors show it:
// names, order, tied names. Errors: no rule for it, names that the rule does not know, parameters
// that lack.
Result<RuleDescription> describe_by_rules(const std::vector<boost::filesystem::path>& folders,
                                          const manifest::Manifest& m);

// What is known of the module where a conversion can do without.
struct ClassNames {
  bool is_known = false;             // a rule has the class that config.json names
  std::vector<std::string> renames;  // as in RuleDescription
};

// An error when the model lacks a parameter that the class has by its rule.
Result<ClassNames> check_parameters(const std::vector<boost::filesystem::path>& folders,
                                    const manifest::Manifest& m);

}  // namespace crossdock::model
