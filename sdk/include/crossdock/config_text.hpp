// SPDX-License-Identifier: Apache-2.0

// Changes of a word in the text of config.json, in which all else stays, byte by byte. A text is
// JSON, as a reader has checked; of one that is not, what is understood is changed.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock {

// A member of the outermost object, by places in the text.
struct JsonMember {
  size_t key = 0, key_end = 0;      // with its quotes
  size_t value = 0, value_end = 0;  // without white space
};

inline std::vector<JsonMember> json_members(std::string_view text) {
  const auto string_end = [&](size_t begin) {  // behind the string whose first quote is there
    for (size_t at = begin + 1; at < text.size(); ++at) {
      if (text[at] == '\\') {
        ++at;
      } else if (text[at] == '"') {
        return at + 1;
      }
    }
    return text.size();
  };
  const auto skip_space = [&](size_t at) {
    return std::min(text.find_first_not_of(" \t\r\n", at), text.size());
  };
  std::vector<JsonMember> out;
  bool in_value = false;
  int depth = 0;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    const size_t begin = at;
    at = c == '"' ? string_end(at) : at + 1;
    if (in_value && (depth > 1 || (c != ',' && c != '}'))) {
      if (std::string_view(" \t\r\n").find(c) == std::string_view::npos) out.back().value_end = at;
    } else {
      in_value = false;
    }
    depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
    if (c != '"' || depth != 1 || in_value) continue;
    const size_t colon = skip_space(at);
    if (colon >= text.size() || text[colon] != ':') continue;
    const size_t value = skip_space(colon + 1);
    if (value >= text.size()) break;
    out.push_back({begin, at, value, value});
    in_value = true;
    at = value;
  }
  return out;
}

// With `name` ("bfloat16") as the value of the top level's "dtype" and "torch_dtype", where these
// are strings.
inline std::string with_dtype(std::string_view text, std::string_view name) {
  std::string out;
  size_t copied = 0;
  for (const JsonMember& m : json_members(text)) {
    const auto key = text.substr(m.key, m.key_end - m.key);
    const auto value = text.substr(m.value, m.value_end - m.value);
    const bool is_text = value.size() >= 2 && value.front() == '"' && value.back() == '"';
    if (!is_text || (key != R"("dtype")" && key != R"("torch_dtype")")) continue;
    out.append(text.substr(copied, m.value - copied)).append(1, '"').append(name).append(1, '"');
    copied = m.value_end;
  }
  return out.append(text.substr(copied));
}

// Without the members of these keys, of the top level and of its text_config.
inline std::string without_members(std::string_view text, const std::vector<std::string>& keys) {
  const auto members = json_members(text);
  const auto key_of = [&](const JsonMember& m) {
    return text.substr(m.key + 1, m.key_end - m.key - 2);
  };
  const auto goes = [&](const JsonMember& m) {
    return std::find(keys.begin(), keys.end(), key_of(m)) != keys.end();
  };
  size_t n = members.size();  // up to the last that stays
  while (n > 0 && goes(members[n - 1])) --n;
  std::string out;
  size_t copied = 0;
  const auto skip = [&](size_t from, size_t to) {
    out.append(text.substr(copied, from - copied));
    copied = to;
  };
  for (size_t i = 0; i < n; ++i) {
    const JsonMember& m = members[i];
    if (goes(m)) {
      skip(m.key, members[i + 1].key);  // with the comma behind it
    } else if (key_of(m) == "text_config") {
      skip(m.value, m.value_end);
      out.append(without_members(text.substr(m.value, m.value_end - m.value), keys));
    }
  }
  // Those at the end go with the comma before them.
  if (n < members.size())
    skip(n > 0 ? members[n - 1].value_end : members[0].key, members.back().value_end);
  return out.append(text.substr(copied));
}

}  // namespace crossdock
