// SPDX-License-Identifier: Apache-2.0

// Several files, or a file and names, as one input of a fuzzer.
#pragma once

#include <string_view>
#include <vector>

namespace crossdock::fuzz {

inline constexpr std::string_view kBetween = "\n====\n";

inline std::vector<std::string_view> cut(std::string_view text, std::string_view at = kBetween) {
  std::vector<std::string_view> out;
  for (size_t begin = 0;;) {
    const size_t end = text.find(at, begin);
    out.push_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos || out.size() == 9) return out;
    begin = end + at.size();
  }
}

}  // namespace crossdock::fuzz
