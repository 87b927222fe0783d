// SPDX-License-Identifier: Apache-2.0

// Names of files and folders that come from elsewhere: whether they may become paths.
#pragma once

#include <crossdock/result.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace crossdock {

inline constexpr size_t kMaxComponentBytes = 255;  // NAME_MAX of Linux file systems

// What keeps `part` from being one component of a path: "holds '/'". Empty: nothing does.
inline std::string name_fault(std::string_view part) {
  if (part.empty()) return "is empty";
  if (part == "." || part == "..") return "means another folder";
  if (part.find('/') != part.npos) return "holds '/'";
  if (part.find('\\') != part.npos) return "holds '\\'";
  if (part.find('\0') != part.npos) return "holds a NUL byte";
  if (part.size() > kMaxComponentBytes)
    return cat("has ", part.size(), " bytes, more than ", kMaxComponentBytes);
  return {};
}

// Whether the name is relative, '/'-separated, and leads to no place above where it starts.
inline bool is_safe_name(std::string_view name) {
  for (size_t begin = 0;;) {
    const size_t end = std::min(name.find('/', begin), name.size());
    if (!name_fault(name.substr(begin, end - begin)).empty()) return false;
    if (end == name.size()) return true;
    begin = end + 1;
  }
}

// ASCII letters in lower case; other bytes as they are.
inline std::string fold_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

}  // namespace crossdock
