// SPDX-License-Identifier: Apache-2.0

// Safetensors files and folders as short texts: the inputs of this folder's tests.
#pragma once

#include "tests/support/plugin_checks.h"

#include <string>

namespace crossdock::reader_safetensors {

// A file of this header and these bytes of data.
inline std::string file(const std::string& header, const std::string& data = {}) {
  std::string out;
  put_le(out, uint64_t{header.size()});
  return out + header + data;
}

// One entry of a header; `shape` as JSON.
inline std::string entry(const std::string& name, const std::string& dtype,
                         const std::string& shape, uint64_t begin, uint64_t end) {
  return cat("\"", name, R"(":{"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":[)",
             begin, ",", end, "]}");
}

// A file with one U8 tensor for each name, with one byte each: 'a', 'b', ...
inline std::string bytes_file(const std::vector<std::string>& names) {
  std::string header, data;
  for (uint64_t i = 0; i < names.size(); ++i) {
    header += (i == 0 ? "" : ",") + entry(names[i], "U8", "[1]", i, i + 1);
    data += static_cast<char>('a' + i);
  }
  return file("{" + header + "}", data);
}

using test::open;

// "accepted", or the message of the refusal.
inline std::string outcome(test::MemoryHost& host, const test::OptionValues& options = {}) {
  const auto reader = open(host, options);
  return reader ? "accepted" : reader.error().message;
}
inline std::string outcome(const std::string& bytes) {
  test::MemoryHost host;
  host.inputs["model.safetensors"] = bytes;
  return outcome(host);
}

}  // namespace crossdock::reader_safetensors
