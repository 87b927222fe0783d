// SPDX-License-Identifier: Apache-2.0
#include "core/rules/name_tree.h"

#include <algorithm>

namespace crossdock::rules {

namespace {

constexpr uint64_t kUnset = UINT64_MAX;

}  // namespace

uint32_t NameTree::child(uint32_t node, std::string_view part) {
  const auto fresh = static_cast<uint32_t>(nodes_.size());
  if (const auto number = placeholder(part)) {
    for (const auto& [known, next] : nodes_[node].numbers) {
      if (known == *number) return next;
    }
    nodes_[node].numbers.emplace_back(*number, fresh);
  } else {
    const auto [it, is_new] = nodes_[node].texts.emplace(part, fresh);
    if (!is_new) return it->second;
  }
  nodes_.emplace_back();
  return fresh;
}

void NameTree::add(std::string_view name, uint32_t id) {
  uint32_t node = 0;
  for (const std::string_view part : parts_of(name)) node = child(node, part);
  nodes_[node].ids.push_back(id);
}

std::vector<NameTree::Match> NameTree::find(std::string_view name) const {
  std::vector<Match> out;
  Numbers numbers;
  find(0, parts_of(name), 0, numbers, out);
  return out;
}

bool NameTree::find(uint32_t node, const std::vector<std::string_view>& parts, size_t at,
                    Numbers& numbers, std::vector<Match>& out) const {
  if (at == parts.size()) {
    const bool is_whole = std::find(numbers.begin(), numbers.end(), kUnset) == numbers.end();
    if (!is_whole || nodes_[node].ids.empty()) return false;
    for (const uint32_t id : nodes_[node].ids) out.push_back({id, numbers});
    return true;
  }
  const auto text = nodes_[node].texts.find(std::string(parts[at]));
  if (text != nodes_[node].texts.end() && find(text->second, parts, at + 1, numbers, out))
    return true;
  const auto value = number_in(parts[at]);
  if (!value) return false;
  for (const auto& [place, next] : nodes_[node].numbers) {
    if (place.offset > 0 && *value < static_cast<uint64_t>(place.offset)) continue;
    const uint64_t number = *value - static_cast<uint64_t>(place.offset);
    const Numbers before = numbers;
    if (numbers.size() <= place.depth) numbers.resize(place.depth + 1, kUnset);
    const bool fits = numbers[place.depth] == kUnset || numbers[place.depth] == number;
    numbers[place.depth] = number;
    if (fits && find(next, parts, at + 1, numbers, out)) return true;
    numbers = before;
  }
  return false;
}

}  // namespace crossdock::rules
