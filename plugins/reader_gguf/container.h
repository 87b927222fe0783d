// SPDX-License-Identifier: Apache-2.0

// A GGUF file's header: its metadata and where its tensors lie. FORMAT.md has the layout and the
// rules.
//
// The rules are those of ggml's own reader (ggml/src/gguf.cpp), which gguf-py does not all check:
// counts, sizes that overflow, rows that are no whole blocks, offsets that are not exactly one
// after the other.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "plugins/reader_gguf/ggml_types.h"

namespace crossdock::reader_gguf {

struct TensorInfo {
  std::string name;
  std::vector<uint64_t> shape;  // outermost dimension first: the reverse of the file's order
  const GgmlType* type = nullptr;
  uint64_t n_elems = 0;
  uint64_t offset = 0;  // in bytes from the beginning of the file
  uint64_t n_bytes = 0;
};

struct Container {
  uint32_t version = 0;
  bool big_endian = false;
  std::vector<manifest::KeyValue> metadata;  // in file order
  std::vector<TensorInfo> tensors;           // in file order, which is that of their bytes

  const manifest::Value* find(std::string_view key) const;
};

// Fills the span with the file's bytes from `offset` on, all of which lie inside the file.
using ReadAt = std::function<Result<void>(uint64_t offset, std::span<std::byte> out)>;

Result<Container> parse_container(const ReadAt& read, uint64_t file_size);

}  // namespace crossdock::reader_gguf
