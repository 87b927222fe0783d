// SPDX-License-Identifier: Apache-2.0
#include "core/base/regex.h"

#include <optional>
#include <regex>
#include <string_view>
#include <utility>

namespace crossdock::base {

struct Regex::Compiled {
  std::regex regex;
  // A pattern that is plain text but for its anchors, as most for names are: these are looked for
  // without the library, which takes microseconds for each of 100,000 names.
  std::optional<std::string> text;
  bool at_begin = false, at_end = false;

  bool plain_is_in(const std::string& name) const {
    if (at_begin && at_end) return name == *text;
    if (at_begin) return name.starts_with(*text);
    if (at_end) return name.ends_with(*text);
    return name.find(*text) != std::string::npos;
  }
};

namespace {

constexpr size_t kMaxName = 1000;  // std::regex recurses once for each character

// What std::regex does to a name, which throws when a pattern is too complex for it.
template <class Do>
auto guarded(const std::string& name, Do&& work) -> Result<decltype(work())> {
  if (name.size() > kMaxName)
    return invalid(cat("expected names of at most ", kMaxName,
                       " bytes for a regular expression, found one of ", name.size()));
  try {
    return work();
  } catch (const std::regex_error& e) {
    return invalid(cat("expected a simpler regular expression, found ", e.what()));
  }
}

// What `pattern` without its anchors stands for, if it is text; a dot is spelled "\\.".
std::optional<std::string> plain_text(std::string_view pattern) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const bool is_dot = pattern.substr(i, 2) == "\\.";
    if (is_dot) ++i;
    const char c = pattern[i];
    const bool is_word =
        c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!is_dot && !is_word) return std::nullopt;
    out += c;
  }
  return out.empty() ? std::nullopt : std::optional(std::move(out));
}

}  // namespace

Result<Regex> Regex::compile(const std::string& pattern) {
  try {
    Compiled compiled{std::regex(pattern, std::regex::optimize), {}};
    std::string_view inner = pattern;
    compiled.at_begin = inner.starts_with('^');
    if (compiled.at_begin) inner.remove_prefix(1);
    compiled.at_end = inner.ends_with('$');
    if (compiled.at_end) inner.remove_suffix(1);
    compiled.text = plain_text(inner);
    Regex out;
    out.compiled_ = std::make_shared<Compiled>(std::move(compiled));
    return out;
  } catch (const std::regex_error& e) {
    return invalid(cat("expected a regular expression, found ", pattern, ": ", e.what()));
  }
}

size_t Regex::groups() const { return compiled_->regex.mark_count(); }

Result<bool> Regex::is_in(const std::string& name) const {
  if (compiled_->text) return compiled_->plain_is_in(name);
  return guarded(name, [&] { return std::regex_search(name, compiled_->regex); });
}

Result<std::string> Regex::replace(const std::string& name, const std::string& by) const {
  if (compiled_->text && !compiled_->plain_is_in(name)) return name;
  return guarded(name, [&] { return std::regex_replace(name, compiled_->regex, by); });
}

Result<std::vector<Regex>> compile_all(const std::vector<std::string>& patterns) {
  std::vector<Regex> out;
  for (const std::string& pattern : patterns) {
    XD_TRY_SET(out.emplace_back(), Regex::compile(pattern));
  }
  return out;
}

Result<bool> any_is_in(const std::vector<Regex>& patterns, const std::string& name) {
  for (const Regex& pattern : patterns) {
    XD_TRY_SET(const bool found, pattern.is_in(name));
    if (found) return true;
  }
  return false;
}

}  // namespace crossdock::base
