// SPDX-License-Identifier: Apache-2.0

// safetensors files of tensors that are given with their bytes.
#pragma once

#include <crossdock/bytes.hpp>
#include <crossdock/result.hpp>

#include <string>
#include <vector>

namespace crossdock::test {

// `shape`: as the header has it, "[2,3]".
struct Stored {
  std::string name, dtype, shape, bytes;
};

// `padding`: of spaces behind the header, as safetensors writes them.
inline std::string safetensors(const std::vector<Stored>& tensors, size_t padding = 0) {
  std::string header = "{", data;
  for (const Stored& t : tensors) {
    header +=
        cat(header.size() > 1 ? "," : "", '"', t.name, R"(":{"dtype":")", t.dtype, R"(","shape":)",
            t.shape, R"(,"data_offsets":[)", data.size(), ",", data.size() + t.bytes.size(), "]}");
    data += t.bytes;
  }
  header += '}' + std::string(padding, ' ');
  std::string out;
  put_le(out, uint64_t{header.size()});
  return out + header + data;
}

}  // namespace crossdock::test
