// SPDX-License-Identifier: Apache-2.0

// Where in a folder a checkpoint lies, by the names in it.
#pragma once

#include <crossdock/plugin.hpp>

#include <optional>
#include <string>
#include <vector>

namespace crossdock::reader_dcp {

struct Folders {
  std::string model;                     // in front of .metadata: empty, or ending in '/'
  std::optional<std::string> optimizer;  // another .metadata
};

// The folders to read. An error that tells what the input is instead.
Result<Folders> find_folders(const Host& host, const Input& input);

// How sure we are that the input is ours, from its names: 0 to 95.
int score(const Host& host, const Input& input);

}  // namespace crossdock::reader_dcp
