// SPDX-License-Identifier: Apache-2.0

// Progress of a long job on stderr: a bar on a terminal, a line now and then elsewhere, JSON lines
// for programs:
//
//   {"event": "plan", "files": 325, "stored_bytes": ..., "inodes": ..., "memory": ...,
//   "seconds": 9.1}
//   {"event": "phase", "phase": "write"}                       then "digest", "sync"
//   {"event": "progress", "done": ..., "total": ..., "bytes_per_second": ..., "seconds": 1.2}
//   {"event": "item", "file": "...", "item": 3, "of": 8, "bytes": ...}
//   {"event": "file", "file": "...", "bytes": ...}
//   {"event": "log", "level": "info", "text": "..."}           as --log-level allows
//   {"event": "note", "text": "..."}
//   {"event": "end", "status": "done", "seconds": 3.1}         or "failed", "cancelled", with
//   "text"
#pragma once

#include "core/convert/forecast.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace crossdock::app {

class Progress {
 public:
  enum class Style { kNone, kBar, kPlain, kJson };

  explicit Progress(Style style) : style_(style) {}
  ~Progress() { clear(); }

  // `before` of `done` were there when the job began.
  void update(uint64_t done, uint64_t total, uint64_t before = 0);
  void planned(const convert::Forecast& forecast);
  void phase(const char* name);                      // work whose length is not known: "sync"
  void written(const convert::Written& written);     // [any thread]
  void log(int32_t level, const std::string& text);  // [any thread]
  void end(const char* status, const std::string& text, const std::vector<std::string>& notes);
  void clear();  // takes the bar off the terminal

  // Of a word of --progress: auto is a bar on a terminal and plain elsewhere.
  static Style style_of(const std::string& word);

 private:
  using Clock = std::chrono::steady_clock;
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  const Style style_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_line_ = start_;
  uint64_t last_done_ = UINT64_MAX;
  bool shown_ = false;
};

}  // namespace crossdock::app
