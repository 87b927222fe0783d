// SPDX-License-Identifier: Apache-2.0

// Models that are made for a writer: what one may be given, in small.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <string>
#include <vector>

namespace crossdock::validate {

struct Model {
  std::string name;  // "tied names"
  manifest::Manifest manifest;
  std::vector<std::string> values;  // dense, of each tensor
};

// Those that a writer of these capabilities (XD_CAP_...) may be given.
std::vector<Model> models_for(uint64_t caps, uint64_t seed);

}  // namespace crossdock::validate
