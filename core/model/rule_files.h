// The rule for a class among the rule files: sdk/proto/crossdock/rules.proto has the schema.
#pragma once

#include "core/model/config.h"

#include <crossdock/rules.pb.h>
#include <crossdock/result.hpp>

#include <boost/filesystem/path.hpp>

#include <optional>
#include <vector>

namespace crossdock::model {

// The first one found; nothing when there is none.
Result<std::optional<rules::v1::Architecture>> find_rule(const std::vector<boost::filesystem::path>& folders,
                                                         const ModelClass& asked);

}  // namespace crossdock::model
