#include "core/rules/numbers.h"

#include <algorithm>
#include <charconv>

namespace crossdock::rules {

std::optional<Placeholder> placeholder(std::string_view part) {
  const size_t hashes = std::min(part.find_first_not_of('#'), part.size());
  if (hashes == 0) return std::nullopt;
  Placeholder out{hashes - 1, 0};
  const std::string_view rest = part.substr(hashes);
  if (rest.empty()) return out;
  if (rest != "+1" && rest != "-1") return std::nullopt;
  out.offset = rest == "+1" ? 1 : -1;
  return out;
}

std::vector<std::string_view> parts_of(std::string_view name) {
  std::vector<std::string_view> out;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    out.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

std::optional<uint64_t> number_in(std::string_view part) {
  constexpr size_t kMaxDigits = 18;
  if (part.empty() || part.size() > kMaxDigits || (part[0] == '0' && part.size() > 1))
    return std::nullopt;
  uint64_t out = 0;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), out);
  if (error != std::errc() || end != part.data() + part.size()) return std::nullopt;
  return out;
}

size_t count_numbers(std::string_view name) {
  size_t out = 0;
  for (const std::string_view part : parts_of(name)) {
    if (const auto number = placeholder(part)) out = std::max(out, number->depth + 1);
  }
  return out;
}

bool has_number(std::string_view name, size_t depth) {
  for (const std::string_view part : parts_of(name)) {
    if (const auto number = placeholder(part); number && number->depth == depth) return true;
  }
  return false;
}

std::string with_numbers(std::string_view name, std::span<const uint64_t> numbers) {
  std::string out;
  for (const std::string_view part : parts_of(name)) {
    if (!out.empty() || part.data() != name.data()) out += '.';
    const auto number = placeholder(part);
    const bool is_known =
        number && number->depth < numbers.size() &&
        (number->offset >= 0 || numbers[number->depth] >= static_cast<uint64_t>(-number->offset));
    if (!is_known) {
      out += part;
    } else {
      out += std::to_string(numbers[number->depth] + static_cast<uint64_t>(number->offset));
    }
  }
  return out;
}

}  // namespace crossdock::rules
