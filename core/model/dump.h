// SPDX-License-Identifier: Apache-2.0

// The manifest for other tools: protobuf's wire form, or its JSON mapping.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <string>

namespace crossdock::model {

Result<std::string> to_json(const manifest::Manifest& m);

}  // namespace crossdock::model
