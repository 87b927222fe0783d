// SPDX-License-Identifier: Apache-2.0

// What a conversion will take, before its first byte: disk, inodes, memory, and time.
#pragma once

#include "core/convert/outputs.h"
#include "core/convert/session.h"

#include <cstdint>

namespace crossdock::convert {

struct Forecast {
  uint64_t files = 0, inodes = 0;  // that are still to be made; inodes: with their folders
  uint64_t stored_bytes = 0;       // about what is still to be written
  uint64_t read_bytes = 0;         // about what is still to be read
  uint64_t memory = 0;             // of buffers
  uint64_t free_bytes = 0, free_inodes = 0, free_memory = 0;  // UINT64_MAX: the system does not say
  double seconds = 0;  // 0: not looked for, the work is short
};

// Of the work that is left: `is_first` all of it, else what `tasks` are. Where it is long both
// disks are tried, with some MiB: a source file is read, and `probe` is written, synced and removed
// (empty: none is).
Forecast forecast(Session& session, const Prepared& prepared, const Planned& planned,
                  const std::vector<bool>& files, uint64_t bytes, const io::fs::path& probe);

// An error that says what cannot fit, and what to do.
Result<void> check_fits(const Forecast& forecast, const io::fs::path& destination);

}  // namespace crossdock::convert
