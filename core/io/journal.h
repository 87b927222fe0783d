// SPDX-License-Identifier: Apache-2.0

// A file of records that only grows, by one writer: what a run has done, for the run that goes on
// with it.
//
//   "crossdock journal 1\n", then frames:
//   kind (1 byte) | size of the bytes (u32) | XXH3-64 of kind, size and bytes (u64) | bytes
//   'R': a record
//   'M': a mark, the u64 offset before which all frames, and what they speak of, are on the disk
//   'W': nothing in this journal counts
//
// A process that is killed leaves all that it appended. A machine that goes down leaves what is
// before the last mark, and behind it anything: reading ends at the first frame that is not whole.
// Integers are little endian.
#pragma once

#include "core/io/os.h"

#include <boost/filesystem/path.hpp>

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::io {

namespace fs = boost::filesystem;

class Journal {
 public:
  // A new file; `os` outlives the journal.
  static Result<std::unique_ptr<Journal>> create(Os& os, const fs::path& path);

  Result<void> append(std::string_view record);  // [any]
  Result<void> withdraw();                       // [any]
  // Where the next frame will begin. [any]
  uint64_t end() const;
  // What was appended before `offset` is on the disk but for this file, which is synced now. [any]
  Result<void> mark(uint64_t offset);

 private:
  Journal(Os& os, fs::path path, Fd fd) : os_(os), path_(std::move(path)), fd_(std::move(fd)) {}
  Result<void> write(char kind, std::string_view bytes);

  Os& os_;
  const fs::path path_;
  const Fd fd_;
  mutable std::mutex mutex_;
  uint64_t end_ = 0;
};

struct JournalRecords {
  std::vector<std::string> all;
  size_t n_durable = 0;  // the first of them: before the last mark
};

// Of any bytes; a text that is no journal has no records. Errors: of reading only.
Result<JournalRecords> read_journal(Os& os, const fs::path& path);
JournalRecords parse_journal(std::string_view text);

}  // namespace crossdock::io
