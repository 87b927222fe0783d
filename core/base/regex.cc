#include "core/base/regex.h"

#include <regex>

namespace crossdock::base {

struct Regex::Compiled {
  std::regex regex;
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

}  // namespace

Result<Regex> Regex::compile(const std::string& pattern) {
  try {
    Regex out;
    out.compiled_ = std::make_shared<Compiled>(Compiled{std::regex(pattern, std::regex::optimize)});
    return out;
  } catch (const std::regex_error& e) {
    return invalid(cat("expected a regular expression, found ", pattern, ": ", e.what()));
  }
}

size_t Regex::groups() const { return compiled_->regex.mark_count(); }

Result<bool> Regex::is_in(const std::string& name) const {
  return guarded(name, [&] { return std::regex_search(name, compiled_->regex); });
}

Result<std::string> Regex::replace(const std::string& name, const std::string& by) const {
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
