// The rule for a class among the rule files: sdk/proto/crossdock/rules.proto has the schema.
#pragma once

#include "core/base/regex.h"
#include "core/model/config.h"

#include <crossdock/rules.pb.h>
#include <crossdock/result.hpp>

#include <boost/filesystem/path.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace crossdock::model {

// The rule files of folders, in order of the folders and then of names.
std::vector<boost::filesystem::path> rule_files(
    const std::vector<boost::filesystem::path>& folders);

// The first one found; nothing when there is none. Of a class that config.json does not name, the
// only rule of its model_type.
Result<std::optional<rules::v1::Architecture>> find_rule(
    const std::vector<boost::filesystem::path>& folders, const ModelClass& asked);

// Names in files as the class spells them today: by the `renamed` of its rule, in their order.
class NamesOfToday {
 public:
  // `rule` outlives it.
  static Result<NamesOfToday> by(const rules::v1::Architecture& rule);
  Result<std::string> of(std::string name) const;

 private:
  NamesOfToday(const rules::v1::Architecture& rule, std::vector<base::Regex> from)
      : rule_(&rule), from_(std::move(from)) {}
  const rules::v1::Architecture* rule_;
  std::vector<base::Regex> from_;
};

}  // namespace crossdock::model
