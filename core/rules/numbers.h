// SPDX-License-Identifier: Apache-2.0

// Names of rules, with '#' for their first number, '##' for the second and so on, behind which "+1"
// or "-1" may stand. In rules of classes a number is all that stands between two dots.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::rules {

using Numbers = std::vector<uint64_t>;

// A part of a name between dots that stands for a number: "#", "##-1".
struct Placeholder {
  size_t depth = 0;    // 0 of '#', 1 of '##'
  int64_t offset = 0;  // to be added
  bool operator==(const Placeholder&) const = default;
};
std::optional<Placeholder> placeholder(std::string_view part);

// The parts of a name between its dots.
std::vector<std::string_view> parts_of(std::string_view name);
// The number that a part of a tensor's name is; nothing for all other text, "007" too.
std::optional<uint64_t> number_in(std::string_view part);

// How many numbers a rule's name has: one more than the depth of its deepest placeholder.
size_t count_numbers(std::string_view name);
// Whether it has a placeholder of this depth.
bool has_number(std::string_view name, size_t depth);

// The name with its numbers; a placeholder beyond them, or whose number would be negative, stays.
std::string with_numbers(std::string_view name, std::span<const uint64_t> numbers);

}  // namespace crossdock::rules
