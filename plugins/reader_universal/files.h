// SPDX-License-Identifier: Apache-2.0

// Which files of an input are a universal checkpoint, from their names, and from the files
// `latest_universal` and `latest`. FORMAT.md has the names.
#pragma once

#include <crossdock/plugin.hpp>

#include <map>
#include <string>
#include <vector>

namespace crossdock::reader_universal {

struct CheckpointFiles {
  std::string folder;           // of the files, with a slash; empty where SRC is that folder
  std::string tag;              // empty where SRC is its folder
  std::string optimizer_state;  // a file
  // Model states, by model-parallel rank; of stage 3 by rank, of the first model-parallel one.
  std::map<uint64_t, std::string> whole_models, rank_models;
  uint64_t n_model_parallel = 1;
  // zero/NAME/KEY.pt: keys by name.
  std::map<std::string, std::vector<std::string>, std::less<>> parameters;

  std::string file_of(std::string_view parameter, std::string_view key) const {
    return cat(folder, "zero/", parameter, '/', key, ".pt");
  }
};

// `tag`: which one, where SRC is not its folder; empty for what `latest_universal` says.
Result<CheckpointFiles> find_files(const Host& host, const Input& input, const std::string& tag);

// How sure we are that a folder is ours, from its names: 0 to 80.
int score(const Host& host, const Input& input);

}  // namespace crossdock::reader_universal
