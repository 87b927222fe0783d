// SPDX-License-Identifier: Apache-2.0

// What the names of checkpoint files say: an index, a part of a whole, the share of one rank.
#pragma once

#include <crossdock/file_name.hpp>

#include <crossdock/part_name.hpp>
#include <crossdock/result.hpp>

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace crossdock::common {

inline constexpr size_t kMaxListed = 8;  // names in one message

// "a, b and 3 more"
std::string listed(std::span<const std::string> names);

// Without its folders.
inline std::string_view base_name(std::string_view name) {
  return name.substr(name.rfind('/') + 1);
}

// Whether an index or a user may call a file so: a safe name (file_name.hpp) without control
// characters or a drive letter.
bool is_portable_name(std::string_view name);

// A file that holds one rank's share of a model, as training programs write them beside one
// another.
struct RankFile {
  std::string what, advice;  // "one part of ...", what to do
  // Of the first file, which may be all there is: the name of the second. Empty: this one is never
  // a whole model.
  std::string sibling;
};
std::optional<RankFile> rank_file(std::string_view name);

}  // namespace crossdock::common
