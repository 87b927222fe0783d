// SPDX-License-Identifier: Apache-2.0

// Names of files that say which part of a whole they are, "model-00001-of-00003.safetensors",
// "weights_1-of-2.bin", and of indexes of such files.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace crossdock {

struct PartName {
  std::string_view before;  // "model-"
  size_t digits = 0;        // of the number: 5
  std::string_view behind;  // "-of-00003.safetensors"
  uint64_t number = 0, total = 0;

  bool is_sibling(const PartName& other) const {
    return before == other.before && behind == other.behind;
  }
  // The name of another part of the same whole.
  std::string sibling(uint64_t other) const {
    const std::string text = std::to_string(other);
    const std::string zeros(digits > text.size() ? digits - text.size() : 0, '0');
    return std::string(before) + zeros + text + std::string(behind);
  }
};

// Any number of digits, "-of-", "_of_" or "of" between them, in any case, and '-', '_' or '.' in
// front. Borrows the name.
inline std::optional<PartName> part_name(std::string_view name) {
  constexpr size_t kMaxDigits = 9;
  constexpr std::string_view kDigits = "0123456789";
  const auto value = [](std::string_view text) {
    uint64_t out = 0;
    std::from_chars(text.data(), text.data() + text.size(), out);
    return out;
  };
  for (const std::string_view of : {"-of-", "-OF-", "_of_", "_OF_", "of"}) {
    const size_t at = name.rfind(of);
    if (at == std::string_view::npos || at == 0) continue;
    const size_t last = name.find_last_not_of(kDigits, at - 1);
    const size_t begin = last == std::string_view::npos ? 0 : last + 1;
    const size_t total = at + of.size();
    const size_t end = std::min(name.find_first_not_of(kDigits, total), name.size());
    const bool fits = begin > 0 && begin < at && at - begin <= kMaxDigits && end > total &&
                      end - total <= kMaxDigits;
    if (!fits || std::string_view("-_.").find(name[begin - 1]) == std::string_view::npos) continue;
    if (end < name.size() && name[end] != '.') continue;
    return PartName{name.substr(0, begin), at - begin, name.substr(at),
                    value(name.substr(begin, at - begin)), value(name.substr(total, end - total))};
  }
  return std::nullopt;
}

// "model.safetensors.index.json", "model.safetensors.index.fp16.json".
inline bool is_index_name(std::string_view name) {
  return name.ends_with(".json") && name.find(".index.") != std::string_view::npos;
}

}  // namespace crossdock
