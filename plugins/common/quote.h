// SPDX-License-Identifier: Apache-2.0

// Text from a file for a message: quoted, control characters escaped so that it cannot drive a
// terminal, cut off when long.
#pragma once

#include <crossdock/result.hpp>

#include <algorithm>
#include <string>
#include <string_view>

namespace crossdock::common {

inline constexpr size_t kMaxQuoted = 200;  // bytes of the text

inline std::string in_quotes(std::string_view text, size_t max_bytes = kMaxQuoted) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "\"";
  size_t end = std::min(text.size(), max_bytes);
  while (end < text.size() && end > 0 && (text[end] & 0xc0) == 0x80)
    --end;  // not inside a character
  for (const char c : text.substr(0, end)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += cat("\\u00", std::string(1, kHex[byte >> 4]), std::string(1, kHex[byte & 15]));
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + (end < text.size() ? "...\"" : "\"");
}

}  // namespace crossdock::common
