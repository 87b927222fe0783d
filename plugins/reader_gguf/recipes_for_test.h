// SPDX-License-Identifier: Apache-2.0

// GGUF files as short recipes: the inputs of this folder's tests and the seeds of its fuzzer.
#pragma once

#include <crossdock/bytes.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "plugins/reader_gguf/ggml_types.h"

namespace crossdock::reader_gguf::recipe {

inline std::string text(std::string_view s) {
  std::string out;
  put_le(out, static_cast<uint64_t>(s.size()));
  return out.append(s);
}
inline std::string u32_value(std::string_view key, uint32_t value) {
  std::string out = text(key);
  put_le(out, uint32_t{4});
  put_le(out, value);
  return out;
}
inline std::string text_value(std::string_view key, std::string_view value) {
  std::string out = text(key);
  put_le(out, uint32_t{8});
  return out + text(value);
}
inline std::string texts_value(std::string_view key, const std::vector<std::string>& values) {
  std::string out = text(key);
  put_le(out, uint32_t{9});
  put_le(out, uint32_t{8});
  put_le(out, static_cast<uint64_t>(values.size()));
  for (const std::string& value : values) out += text(value);
  return out;
}

struct Tensor {
  std::string name;
  std::vector<uint64_t> dims;  // innermost first, as in the file
  uint32_t type = 0;
  std::string bytes;
};

inline std::string file(const std::vector<std::string>& values,
                        const std::vector<Tensor>& tensors) {
  std::string out = "GGUF", data;
  put_le(out, uint32_t{3});
  put_le(out, static_cast<uint64_t>(tensors.size()));
  put_le(out, static_cast<uint64_t>(values.size()));
  for (const std::string& value : values) out += value;
  for (const Tensor& t : tensors) {
    out += text(t.name);
    put_le(out, static_cast<uint32_t>(t.dims.size()));
    for (const uint64_t dim : t.dims) put_le(out, dim);
    put_le(out, t.type);
    put_le(out, static_cast<uint64_t>(data.size()));
    data += t.bytes;
    data.resize(round_up(data.size(), 32));
  }
  out.resize(round_up(out.size(), 32));
  return out + data;
}

// Bytes that reach most codes, the same ones each time.
inline std::string some_bytes(uint64_t n, uint64_t seed = 1) {
  std::string out;
  for (uint64_t x = seed; out.size() < n; x = x * 6364136223846793005u + 1442695040888963407u)
    out += static_cast<char>(x >> 56);
  return out;
}
// n blocks of a type.
inline std::string some_blocks(const GgmlType& type, uint64_t n) {
  return some_bytes(n * type.block_bytes, type.id + 1);
}

}  // namespace crossdock::reader_gguf::recipe
