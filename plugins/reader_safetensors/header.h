// SPDX-License-Identifier: Apache-2.0

// The header of one safetensors file, checked: what it says about each tensor is true of the file's
// size. FORMAT.md has the rules, with the ones that go beyond the reference implementation.
#pragma once

#include "plugins/common/boxes.h"

#include <crossdock/plugin.hpp>

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace crossdock::reader_safetensors {

inline constexpr uint64_t kLengthBytes = 8;   // the header's length, little-endian, opens the file
inline constexpr size_t kMaxDimensions = 64;  // torch's own limit
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference's MAX_HEADER_SIZE

struct HeaderTensor {
  std::string name;
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  std::vector<uint64_t> shape;
  uint64_t n_elems = 0;
  uint64_t offset = 0;  // in the file
  uint64_t n_bytes = 0;
  uint32_t file = 0;  // which of the checkpoint's files
  // Of a rank's file (ranks.h): where in the whole tensor it begins.
  std::optional<std::vector<uint64_t>> begin;
  // Of a tensor that lies in several files: not empty.
  std::vector<common::Box> boxes;
};

struct Header {
  std::vector<HeaderTensor>
      tensors;  // in the order of their bytes; those without bytes as the header lists them
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Reads and parses the header; the file's name is the caller's to add.
// `beginning`: the file's first bytes, where somebody has read them already.
Result<Header> read_header(const Host& host, const Source& source,
                           std::span<const std::byte> beginning = {});

}  // namespace crossdock::reader_safetensors
