// SPDX-License-Identifier: Apache-2.0

// Which files of an input are a DeepSpeed checkpoint, and whose each is: from their names, and from
// the file `latest`. FORMAT.md has the names.
#pragma once

#include <crossdock/plugin.hpp>

#include <map>
#include <string>

namespace crossdock::reader_zero {

// Of one model-parallel rank: the shares of each layer, or the layers, that it has.
struct PartFiles {
  std::map<uint64_t, std::string> optimizer_states, model_states;  // by rank
  std::string whole_model;  // of stages 1 and 2: the one file; empty where there is none
};

// Of a pipeline: the state of one layer, on one tensor-parallel rank.
struct LayerFile {
  uint64_t layer = 0, tensor_rank = 0;
  std::string name;
};

struct CheckpointFiles {
  std::string folder;  // of the files, with a slash; empty where SRC is that folder
  std::string tag;     // empty where SRC is its folder
  std::map<uint64_t, PartFiles> parts;  // by model-parallel rank
  std::vector<LayerFile> layers;        // in order
};

// `tag`: which one, where SRC is not its folder; empty for what `latest` says. Refuses
// experts by name.
Result<CheckpointFiles> find_files(const Host& host, const Input& input, const std::string& tag);

// That the ranks are 0 to n - 1; `what`: of files.
Result<void> check_ranks(const std::map<uint64_t, std::string>& files, uint64_t n,
                         std::string_view what);

// How sure we are that a folder is ours, from its names: 0 to 80.
int score(const Host& host, const Input& input);

}  // namespace crossdock::reader_zero
