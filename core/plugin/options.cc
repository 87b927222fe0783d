// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/options.h"

#include "core/base/text.h"
#include "core/io/small_file.h"

#include <charconv>
#include <cmath>

namespace crossdock::plugin {

namespace {

template <class T>
bool parses_as(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() &&
         std::isfinite(static_cast<double>(value));
}

constexpr uint64_t kMaxFile = 16 << 20;

// A plugin never sees a path: what it gets is the text itself, which ends at the first NUL.
Result<std::string> text_of_file(const std::string& name, const std::string& path) {
  const auto refuse = [&](int32_t code, std::string_view found) {
    return Error{code,
                 cat("--", name, " ", base::printable(path), ": expected a text file of at most ",
                     base::human_memory(kMaxFile), ", ", found)};
  };
  auto text = io::read_small_file(path, kMaxFile);
  if (!text) return refuse(text.error().code, text.error().message);
  if (text->find('\0') != text->npos || !base::is_utf8(*text))
    return refuse(XD_INVALID_ARGUMENT, "found bytes that are not UTF-8 text");
  return text;
}

// The value in the one spelling that plugins get, or an error that says what was expected.
Result<std::string> normalise(const std::string& name, const std::string& type,
                              const std::string& value) {
  const auto refuse = [&](std::string_view expected) {
    return invalid(cat("--", name, ": expected ", expected, ", found \"", value, '"'));
  };
  if (type == "bool") {
    if (value == "true" || value == "false") return value;
    return refuse("true or false");
  }
  if (type == "int" && !parses_as<int64_t>(value)) return refuse("a whole number");
  if (type == "float" && !parses_as<double>(value)) return refuse("a number");
  if (type == "size") {
    const auto size = base::parse_size(value);
    if (!size) return refuse("a size such as 512MiB");
    return std::to_string(*size);
  }
  if (type == "file") return text_of_file(name, value);
  if (type.starts_with("enum:")) {
    const std::string choices = type.substr(5);
    if (value.empty() || value.find('|') != value.npos ||
        ("|" + choices + "|").find("|" + value + "|") == std::string::npos) {
      return refuse(cat("one of ", choices));
    }
  }
  return value;
}

}  // namespace

void CheckedOptions::add(const std::string& key, const std::string& value,
                         const std::string& told) {
  told_.emplace_back(key, told);
  const char* k = texts_.emplace_back(key).c_str();
  const char* v = texts_.emplace_back(value).c_str();
  pointers_.back() = &options_.emplace_back(xd_option{XD_INIT_SIZE(xd_option), 0, k, v});
  pointers_.push_back(nullptr);
}

bool CheckedOptions::check_value(const xd_option_desc& option, const std::string& value) {
  return normalise(option.name, option.type, value).has_value();
}

Result<CheckedOptions> CheckedOptions::check(const xd_option_desc* const* schema,
                                             const GivenOptions& given) {
  CheckedOptions out;
  for (; schema && *schema; ++schema) {
    const std::string name = (*schema)->name;
    const std::string type = (*schema)->type;
    const auto it = given.find(name);
    if (it == given.end() || it->second.empty()) {
      if (!(*schema)->fallback)
        return invalid(
            cat("expected --", name, ", found none: ", (*schema)->help ? (*schema)->help : ""));
      const std::string fallback = (*schema)->fallback;  // empty: not set
      XD_TRY_SET(const std::string checked, fallback.empty() ? Result<std::string>(fallback)
                                                             : normalise(name, type, fallback));
      if (type != "list") out.add(name, checked, checked);
      continue;
    }
    if (it->second.size() > 1 && type != "list")
      return invalid(cat("--", name, ": expected one value, found ", it->second.size()));
    for (const std::string& value : it->second) {
      XD_TRY_SET(const std::string checked, normalise(name, type, value));
      out.add(name, checked, type == "file" ? value : checked);
    }
  }
  return out;
}

}  // namespace crossdock::plugin
