// What the files of a model hold together: one file, or shards with an index (plugins/common/hf_weights.h).
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
  std::vector<StoredTensor> tensors;                          // by file, then by offset
  std::vector<std::pair<std::string, std::string>> metadata;  // of all files, each pair once
};

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input, std::span<const std::string> names,
                                   const std::string& variant);

// How sure we are that the input is ours, from its names alone: 0 to 100.
int score(std::span<const std::string> names);

}  // namespace crossdock::reader_safetensors
