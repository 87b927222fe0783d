// SPDX-License-Identifier: Apache-2.0

// A model in one GGUF file, or in several: NAME-00001-of-00003.gguf and its neighbours, found from
// any of them.
#pragma once

#include <crossdock/plugin.hpp>

#include <string>
#include <vector>

#include "plugins/reader_gguf/container.h"

namespace crossdock::reader_gguf {

struct CheckpointFile {
  std::string name;
  uint64_t size = 0;
  Source source;
};

struct GgufTensor {
  uint32_t file = 0;
  TensorInfo info;
};

struct Checkpoint {
  uint32_t version = 0;
  bool big_endian = false;
  std::vector<CheckpointFile> files;
  std::vector<manifest::KeyValue> metadata;  // of the first file
  std::vector<GgufTensor> tensors;
};

// How sure we are that the input is ours, from the names in a folder, or the first bytes of a file:
// 0 to 100.
int score(const Host& host, const Input& input);

// The file that opens the model among those of a folder.
Result<std::string> choose_file(std::span<const std::string> names);

// The names of all parts of a model of which this is one; the name alone when it is whole.
std::vector<std::string> part_names(const std::string& name);

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input);

}  // namespace crossdock::reader_gguf
