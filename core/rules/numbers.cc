// SPDX-License-Identifier: Apache-2.0
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

namespace {

// Calls visit(depth, begin, end) for each run of '#' in the name.
template <class Visit>
void for_each_run(std::string_view name, const Visit& visit) {
  for (size_t begin = 0; (begin = name.find('#', begin)) != name.npos;) {
    const size_t end = std::min(name.find_first_not_of('#', begin), name.size());
    visit(end - begin - 1, begin, end);
    begin = end;
  }
}

}  // namespace

size_t count_numbers(std::string_view name) {
  size_t out = 0;
  for_each_run(name, [&](size_t depth, size_t, size_t) { out = std::max(out, depth + 1); });
  return out;
}

bool has_number(std::string_view name, size_t depth) {
  bool out = false;
  for_each_run(name, [&](size_t found, size_t, size_t) { out = out || found == depth; });
  return out;
}

std::string with_numbers(std::string_view name, std::span<const uint64_t> numbers) {
  std::string out;
  size_t done = 0;
  for_each_run(name, [&](size_t depth, size_t begin, size_t end) {
    if (depth >= numbers.size()) return;
    const std::string_view rest =
        name.substr(end, std::min(name.find('.', end), name.size()) - end);
    const bool is_before = rest == "-1", is_behind = rest == "+1";
    if (is_before && numbers[depth] == 0) return;
    out += name.substr(done, begin - done);
    out += std::to_string(numbers[depth] + (is_behind ? 1 : 0) - (is_before ? 1 : 0));
    done = is_before || is_behind ? end + 2 : end;
  });
  return out.append(name.substr(done));
}

}  // namespace crossdock::rules
