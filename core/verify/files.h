// SPDX-License-Identifier: Apache-2.0

// Files held against the sizes and digests that they should have.
//
// Each file is read once, in large pieces and by all threads: one that has a tree digest is cut, so
// that a single file of many gigabytes is read by all of them too; other digests take a file from
// its beginning to its end.
#pragma once

#include "core/base/memory.h"
#include "core/io/os.h"
#include "core/verify/verdict.h"

#include <boost/filesystem/path.hpp>

#include <atomic>
#include <functional>
#include <optional>
#include <span>
#include <string>

namespace crossdock::verify {

namespace fs = boost::filesystem;

// What all checks read with. The referred ones outlive them.
struct Reading {
  io::Os& os;
  base::Memory& memory;
  unsigned threads = 1;
  const std::atomic<bool>& cancelled;
  // Bytes, about five times a second, on the calling thread; may be empty.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

struct ExpectedFile {
  std::string name;  // in messages
  fs::path path;
  std::optional<uint64_t> size;  // nothing: any
  std::string digest;  // "tree:...", "sha256:...", "git:..."; empty: its size alone counts
};

// Each file that is missing, of another size, damaged or not readable is a problem. Errors: only
// what keeps it from looking, such as a cancel.
Result<void> check_files(const Reading& reading, std::span<const ExpectedFile> files,
                         Findings& findings);

// All of a regular file of at most `most` bytes, through `os`. Errors begin with its path.
Result<std::string> read_file(io::Os& os, const fs::path& path, uint64_t most);

}  // namespace crossdock::verify
