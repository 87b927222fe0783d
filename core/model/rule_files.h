// The rule for a class among the rule files: sdk/proto/crossdock/rules.proto has the schema.
#pragma once

#include "core/model/config.h"

#include <crossdock/rules.pb.h>
#include <crossdock/result.hpp>

#include <boost/filesystem/path.hpp>

#include <optional>
#include <vector>

namespace crossdock::model {

// The rule files of folders, in order of the folders and then of names.
std::vector<boost::filesystem::path> rule_files(const std::vector<boost::filesystem::path>& folders);

// The first one found; nothing when there is none. Of a class that config.json does not name, the only rule of its
// model_type.
Result<std::optional<rules::v1::Architecture>> find_rule(const std::vector<boost::filesystem::path>& folders,
                                                         const ModelClass& asked);

}  // namespace crossdock::model
