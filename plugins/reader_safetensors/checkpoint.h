// SPDX-License-Identifier: Apache-2.0

// What the files of a model hold together: one file, or shards (plugins/common/hf_weights.h).
#pragma once

#include "plugins/reader_safetensors/header.h"

namespace crossdock::reader_safetensors {

struct CheckpointFile {
  std::string name;
  uint64_t size;
  Source source;
};

struct Checkpoint {
  std::vector<CheckpointFile> files;                          // sorted by name
  std::vector<HeaderTensor> tensors;                          // by file, then by offset
  std::vector<std::pair<std::string, std::string>> metadata;  // of all files, each pair once
};

// `config`: config.json, or unset.
Result<Checkpoint> open_checkpoint(const Host& host, const Input& input,
                                   const manifest::Value& config, const std::string& variant);

// How sure we are that the input is ours, from the names in a folder, or the first bytes of a file:
// 0 to 100.
int score(const Host& host, const Input& input);

}  // namespace crossdock::reader_safetensors
