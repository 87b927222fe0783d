// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/folders.h"

#include "plugins/common/file_names.h"
#include "plugins/common/quote.h"

#include <algorithm>

namespace crossdock::deepspeed {

std::set<std::string> universal_folders(std::span<const std::string> names) {
  constexpr std::string_view kZero = "zero/";
  std::set<std::string> out;
  for (const std::string_view name : names) {
    const size_t slash = name.find('/');
    for (const size_t begin : {size_t{0}, slash == name.npos ? slash : slash + 1}) {
      if (begin == name.npos || !name.substr(begin).starts_with(kZero)) continue;
      const std::string_view rest = name.substr(begin + kZero.size());
      if (rest == "optimizer_state.pt" || rest.ends_with("/fp32.pt"))
        out.emplace(name.substr(0, begin));
    }
  }
  return out;
}

bool has_optimizer_states(std::span<const std::string> names) {
  return std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name.ends_with("_optim_states.pt") && std::count(name.begin(), name.end(), '/') < 2;
  });
}

Error no_tags_in_src(std::string_view tag) {
  return invalid(cat("--from-tag: expected a folder that has the folder ", quoted_tag(tag),
                     ", found SRC to be one checkpoint's own folder: leave the flag out, or name "
                     "the folder around it"));
}

std::string quoted_tag(std::string_view tag) {
  constexpr size_t kMaxBytes = 80;
  return common::in_quotes(tag, kMaxBytes);
}

std::string listed_tags(const std::set<std::string>& folders) {
  std::vector<std::string> out;
  for (const std::string& folder : folders) out.push_back(folder.substr(0, folder.size() - 1));
  return common::listed(out);
}

Result<std::string> read_tag(const Host& host, const Input& input, const std::string& file) {
  constexpr uint64_t kMaxTagBytes = 4096;
  XD_TRY_SET(const Source source, input.open(host, file));
  std::string tag(std::min(source.size(host), kMaxTagBytes), '\0');
  XD_TRY(source.read(host, 0, std::as_writable_bytes(std::span(tag))));
  constexpr std::string_view kSpace = " \t\r\n";
  tag.erase(tag.find_last_not_of(kSpace) + 1);
  tag.erase(0, tag.find_first_not_of(kSpace));
  if (!common::is_portable_name(tag))
    return corrupt(cat(file, ": expected a folder's name, found ", quoted_tag(tag),
                       ": --from-tag TAG names the folder"));
  return tag;
}

}  // namespace crossdock::deepspeed
