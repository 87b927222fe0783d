// SPDX-License-Identifier: Apache-2.0

// The directory of a zip file that torch.save wrote, checked: each record's bytes lie where it
// says, and nowhere else. FORMAT.md has the rules. Only the directory and the local headers are
// read.
#pragma once

#include <crossdock/plugin.hpp>

#include <string>
#include <vector>

namespace crossdock::torch_read {

inline constexpr uint64_t kMaxDirectoryBytes = 128 << 20;
// What deflate can make of one byte at most is 1032.
inline constexpr uint64_t kMaxInflation = 1032;

struct Record {
  std::string name;
  uint64_t offset = 0;    // of its data in the file
  uint64_t n_stored = 0;  // bytes in the file
  uint64_t n_bytes = 0;   // bytes of data; other than n_stored only when deflated
  uint32_t crc = 0;       // as the directory says; torch may have left it wrong on purpose
  bool deflated = false;
};

// A file may end in a comment of any content. Of an archive whose end is known, none is looked for.
inline constexpr uint64_t kMaxCommentBytes = 0xffff;

// In the directory's order.
Result<std::vector<Record>> read_zip_directory(const Host& host, const Source& source,
                                               uint64_t max_comment_bytes = kMaxCommentBytes);

}  // namespace crossdock::torch_read
