// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_safetensors/json_string.h"

namespace crossdock::writer_safetensors {
namespace {

void put_unit(std::string& out, uint32_t unit) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out += kHex[unit >> shift & 15];
}

// As one or two units of UTF-16.
void put_code_point(std::string& out, uint32_t code) {
  if (code < 0x10000) return put_unit(out, code);
  put_unit(out, 0xd800 + ((code - 0x10000) >> 10));
  put_unit(out, 0xdc00 + ((code - 0x10000) & 0x3ff));
}

// The code point that begins at text[at], and moves `at` behind it.
uint32_t next_code_point(std::string_view text, size_t& at) {
  const auto first = static_cast<unsigned char>(text[at++]);
  const int n_more = first < 0xc0 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
  uint32_t code = n_more == 0 ? first : first & (0x3fu >> n_more);
  for (int i = 0; i < n_more && at < text.size(); ++i)
    code = code << 6 | (static_cast<unsigned char>(text[at++]) & 0x3fu);
  return code;
}

// The letter of a character that has an escape of its own; 0 for others.
char short_escape(uint32_t code) {
  switch (code) {
    case '"':
    case '\\':
      return static_cast<char>(code);
    case '\b':
      return 'b';
    case '\f':
      return 'f';
    case '\n':
      return 'n';
    case '\r':
      return 'r';
    case '\t':
      return 't';
    default:
      return 0;
  }
}

}  // namespace

std::string json_string(std::string_view text, Escapes escapes) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const uint32_t code = next_code_point(text, at);
    if (const char letter = short_escape(code)) {
      out += '\\';
      out += letter;
    } else if (code < 0x20 || (escapes == Escapes::kBeyondAscii && code > 0x7e)) {
      put_code_point(out, code);
    } else {
      out += text.substr(begin, at - begin);
    }
  }
  return out + '"';
}

}  // namespace crossdock::writer_safetensors
