// Which files of an input are the model, and what they hold together: one file, or shards with an index.
//
// The choice is transformers': model.safetensors, else model.safetensors.index.json. The index must agree with the
// shards both ways, so that no tensor is taken from a place that the checkpoint's author did not mean.
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

// The file that opens the model: *.safetensors, or an index of shards. `variant`: "fp16" for model.fp16.safetensors.
Result<std::string> choose_file(const Host& host, std::span<const std::string> names, const std::string& variant);

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input, std::span<const std::string> names,
                                   const std::string& variant);

// How sure we are that the input is ours, from its names alone: 0 to 100.
int score(std::span<const std::string> names);

}  // namespace crossdock::reader_safetensors
