// Progress of a long job on stderr: a bar on a terminal, a line now and then elsewhere, JSON lines
// for programs.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace crossdock::app {

class Progress {
 public:
  enum class Style { kNone, kBar, kPlain, kJson };

  explicit Progress(Style style) : style_(style) {}
  ~Progress() { clear(); }

  void update(uint64_t done, uint64_t total);
  void phase(const char* name);  // work whose length is not known: "sync"
  void clear();                  // takes the bar off the terminal

  // auto, bar, plain, json or none; auto is a bar on a terminal and plain elsewhere.
  static bool parse(const std::string& text, Style& out);

 private:
  using Clock = std::chrono::steady_clock;
  const Style style_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_line_ = start_;
  uint64_t last_done_ = UINT64_MAX;
  bool shown_ = false;
};

}  // namespace crossdock::app
