// SPDX-License-Identifier: Apache-2.0

// One run that works on a staging folder (staging.h), and whether what it left can be relied on and
// taken over.
#pragma once

#include "core/io/journal.h"

#include <boost/filesystem/path.hpp>

#include <string>
#include <vector>

namespace crossdock::io {

namespace fs = boost::filesystem;

// Where a run is: a process of one boot of one machine.
struct Runner {
  std::string host, boot;  // boot: the kernel's random id of it; empty where it tells none
  int64_t process = 0;
  std::string started;  // by the kernel's clock, so that a process id that is used again is seen

  static Runner self();
  // Whether the process still runs, as far as this machine knows.
  bool is_alive() const;
  bool is_of_this_boot() const;
};

// The first record of a journal.
std::string first_record(const Runner& runner, uint64_t tree_inode);

// A name that no other attempt has, of letters, digits and dashes.
std::string new_attempt_name(const Runner& runner);

struct Attempt {
  std::string name;
  Runner runner;
  uint64_t tree_inode = 0;  // of the tree that its records speak of
  // Those that count: all where the page cache they went through is still there, else those that
  // were on the disk.
  std::vector<std::string> records;
  // Whether no other machine, and no live process, can be writing its unfinished files.
  bool is_over = false;
};

// `journal`: PARTS/NAME.journal.
Result<Attempt> read_attempt(Os& os, const fs::path& journal);

// Whether the file system is this machine's alone.
bool is_local(const fs::path& folder);

}  // namespace crossdock::io
