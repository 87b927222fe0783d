#include "plugins/writer_safetensors/config_text.h"

#include <algorithm>

namespace crossdock::writer_safetensors {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

// Behind the string whose first quote is at `begin`.
size_t string_end(std::string_view text, size_t begin) {
  for (size_t at = begin + 1; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++at;
    } else if (text[at] == '"') {
      return at + 1;
    }
  }
  return text.size();
}

// The first place from `at` on that is no white space.
size_t skip_space(std::string_view text, size_t at) {
  return std::min(text.find_first_not_of(kSpace, at), text.size());
}

bool is_dtype_key(std::string_view quoted) {
  return quoted == R"("dtype")" || quoted == R"("torch_dtype")";
}

}  // namespace

std::string with_dtype(std::string_view text, std::string_view name) {
  std::string out;
  size_t copied = 0;
  int depth = 0;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c != '"') {
      depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
      ++at;
      continue;
    }
    const size_t end = string_end(text, at);
    const size_t colon = skip_space(text, end);
    const bool is_key = colon < text.size() && text[colon] == ':';
    const bool is_ours = is_key && depth == 1 && is_dtype_key(text.substr(at, end - at));
    at = end;
    if (!is_ours) continue;
    const size_t value = skip_space(text, colon + 1);
    if (value >= text.size() || text[value] != '"') continue;
    out.append(text.substr(copied, value - copied)).append(1, '"').append(name).append(1, '"');
    at = copied = string_end(text, value);
  }
  return out.append(text.substr(copied));
}

}  // namespace crossdock::writer_safetensors
