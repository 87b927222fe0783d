// SPDX-License-Identifier: Apache-2.0

// Files of torch.save from what a fuzzer gives: pickles, each with the storages that it names.
#pragma once

#include "plugins/torch/read/pickle.h"
#include "plugins/torch/read/recipes_for_test.h"

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::fuzz {

inline constexpr uint64_t kMaxStorageBytes = 4096;

inline std::string file_of(std::string_view pickle) {
  std::vector<torch_read::recipe::ZipRecord> records{{"a/data.pkl", std::string(pickle)}};
  if (const auto parsed = torch_read::read_pickle(pickle)) {
    std::map<std::string, uint64_t> sizes;
    for (size_t i = 0; i < parsed->n_storages(); ++i) {
      const auto& s = parsed->storage(i);
      if (s.n_bytes() <= kMaxStorageBytes) sizes.emplace(s.key, s.n_bytes());
    }
    for (const auto& [key, n_bytes] : sizes)
      records.push_back({"a/data/" + key, std::string(n_bytes, 'v')});
  }
  return torch_read::recipe::zip(records);
}

// Of each of the pickles that `between` separates, of at most `most`.
inline std::vector<std::string> files_of(std::string_view pickles, std::string_view between,
                                         size_t most) {
  std::vector<std::string> out;
  while (out.size() < most) {
    const size_t end = std::min(pickles.find(between), pickles.size());
    out.push_back(file_of(pickles.substr(0, end)));
    if (end == pickles.size()) break;
    pickles.remove_prefix(end + between.size());
  }
  return out;
}

}  // namespace crossdock::fuzz
