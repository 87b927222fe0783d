// SPDX-License-Identifier: Apache-2.0
#include "core/verify/verdict.h"

#include <algorithm>

namespace crossdock::verify {

void Findings::problem(std::string text) {
  const std::lock_guard lock(mutex_);
  ++n_problems_;
  if (problems_.size() < kMostListed) problems_.push_back(std::move(text));
}

void Findings::note(std::string text) {
  const std::lock_guard lock(mutex_);
  if (std::find(notes_.begin(), notes_.end(), text) == notes_.end())
    notes_.push_back(std::move(text));
}

void Findings::settle() {
  const std::lock_guard lock(mutex_);
  std::sort(problems_.begin() + static_cast<std::ptrdiff_t>(n_settled_), problems_.end());
  n_settled_ = problems_.size();
}

Verdict Findings::verdict() const {
  const std::lock_guard lock(mutex_);
  Verdict out;
  out.problems = problems_;
  out.n_problems = n_problems_;
  out.notes = notes_;
  return out;
}

}  // namespace crossdock::verify
