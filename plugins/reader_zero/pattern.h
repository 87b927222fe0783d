// SPDX-License-Identifier: Apache-2.0

// Python's re.match for the patterns by which checkpoints choose names: whether one matches a
// name's beginning. A checkpoint may say anything, so matching takes time in proportion to name and
// pattern and never recurses.
#pragma once

#include <crossdock/result.hpp>

#include <bitset>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::reader_zero {

class Pattern {
 public:
  // Of texts of bytes: literals, escapes, classes, groups, | and * + ? {m,n}, ^ at the begin and $
  // at the end. An error names what else it has.
  static Result<Pattern> compile(std::string_view text);

  bool matches(std::string_view name) const;
  const std::string& text() const { return text_; }

 private:
  friend class PatternParser;
  using Bytes = std::bitset<256>;
  struct State {
    enum class Kind { kBytes, kSplit, kEnd, kMatch } kind;
    Bytes bytes = {};
    size_t next = 0, other = 0;  // states; `other` of kSplit
  };
  std::string text_, literal_;
  bool is_literal_ = false;  // matches `literal_` alone
  std::vector<State> states_;
  size_t start_ = 0;
};

}  // namespace crossdock::reader_zero
