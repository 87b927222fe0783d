// SPDX-License-Identifier: Apache-2.0

// A string as JSON text has it, spelled as the libraries that write such files do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace crossdock::writer_safetensors {

enum class Escapes {
  kNeeded,      // what JSON demands: serde_json, which writes the headers of safetensors
  kBeyondAscii  // all but printable ASCII too: Python's json.dumps, which writes the index
};

// `text` is UTF-8, as the host has checked.
std::string json_string(std::string_view text, Escapes escapes);

}  // namespace crossdock::writer_safetensors
