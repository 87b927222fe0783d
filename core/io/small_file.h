// SPDX-License-Identifier: Apache-2.0

// A file that people give with a flag: rules, a description.
#pragma once

#include <crossdock/result.hpp>

#include <string>

namespace crossdock::io {

// All of a regular file of 1 to `most` bytes. Errors say "found ...", to follow what was expected.
Result<std::string> read_small_file(const std::string& path, uint64_t most);

}  // namespace crossdock::io
