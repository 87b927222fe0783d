// SPDX-License-Identifier: Apache-2.0

// What a check found: problems, each a sentence that names the file or tensor, and notes. Nothing
// found means that all is as it should be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace crossdock::verify {

struct Verdict {
  std::vector<std::string> problems;  // the first few
  uint64_t n_problems = 0;            // all
  std::vector<std::string> notes;
  uint64_t n_files = 0, n_bytes = 0;  // that were read, or looked at
  uint64_t n_tensors = 0;             // that were compared

  bool is_good() const { return n_problems == 0; }
};

// Problems and notes while they come. [any]
class Findings {
 public:
  static constexpr size_t kMostListed = 20;

  void problem(std::string text);
  void note(std::string text);
  // Puts into order what threads have found since the last call, so that runs tell the same.
  void settle();
  // With the counts of what was checked still to be filled in.
  Verdict verdict() const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> problems_, notes_;
  size_t n_settled_ = 0;  // of problems_
  uint64_t n_problems_ = 0;
};

}  // namespace crossdock::verify
