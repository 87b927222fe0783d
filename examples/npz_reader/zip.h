// SPDX-License-Identifier: Apache-2.0

// The directory of a zip archive, as far as numpy's .npz needs it: zip64 too, members stored or
// deflated, one file.
//
// Nothing in the archive is believed: what read_directory() gives has been held against the file's
// size, the members' own headers and each other.
//
// Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
#pragma once

#include <crossdock/plugin.hpp>

#include <string>
#include <vector>

namespace npz {

using namespace crossdock;

struct Entry {
  std::string name;
  uint64_t offset;  // of its own header
  uint64_t begin;   // of its bytes, `packed` of them
  uint64_t packed;
  uint64_t size;  // unpacked
  uint32_t crc;   // of the unpacked bytes
  bool is_deflated;
};

// In the directory's order.
Result<std::vector<Entry>> read_directory(const Host& host, const Source& source);

}  // namespace npz
