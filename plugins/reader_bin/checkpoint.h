// SPDX-License-Identifier: Apache-2.0

// What the files of a model hold together: one file, or shards (plugins/common/hf_weights.h).
#pragma once

#include "plugins/torch/read/stored_tensor.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace crossdock::reader_bin {

struct BinTensor {
  std::string name;
  torch_read::StoredTensor stored;
  uint32_t file = 0;
  bool is_parameter = false, is_frozen = false;
};

struct CheckpointFile {
  std::string name;
  uint64_t size = 0;
  std::unique_ptr<torch_read::TorchFile> torch;
};

struct Checkpoint {
  std::vector<CheckpointFile> files;  // sorted by name
  std::vector<BinTensor> tensors;     // in the order of the state dict, file by file
  std::vector<manifest::AliasGroup> aliases;
};

struct OpenOptions {
  std::string variant, state_dict_path;
  bool verify_crc = false;
};

// `config`: config.json, or unset.
Result<Checkpoint> open_checkpoint(const Host& host, const Input& input,
                                   const manifest::Value& config, const OpenOptions& options);

// How sure we are that the input is ours, from the names in a folder, or the first bytes of a file:
// 0 to 90. Where a folder has safetensors files under their standard name too, they go first.
int score(const Host& host, const Input& input);

}  // namespace crossdock::reader_bin
