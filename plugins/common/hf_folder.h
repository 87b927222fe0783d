// SPDX-License-Identifier: Apache-2.0

// What a Hugging Face model folder holds beside its tensors: config.json, the tokenizer's files,
// and the index that says which shard holds which tensor. The same for safetensors and .bin
// checkpoints.
//
// Sources: transformers 5.23 (utils/hub.py get_checkpoint_shard_files, modeling_utils.py,
// tokenization_utils_base.py).
#pragma once

#include "plugins/common/file_names.h"

#include <crossdock/plugin.hpp>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::common {

inline constexpr uint64_t kMaxConfigBytes = 64 << 20;
inline constexpr uint64_t kMaxIndexBytes = 256 << 20;

// The file's name in front of the message, unless the host, which names files itself, wrote it.
Error in_file(std::string_view name, Error error);

// The auxiliary files among an input's names, in their order.
std::vector<manifest::AuxFile> aux_files(std::span<const std::string> names);

// config.json; unset when the input has none.
Result<manifest::Value> read_config(const Host& host, const Input& input,
                                    std::span<const std::string> names);

// An index, model.safetensors.index.json say: {"metadata": {"total_size": N}, "weight_map":
// {tensor: shard}}.
struct ShardIndex {
  struct Entry {
    std::string tensor;
    uint32_t shard = 0;
  };
  std::vector<std::string> shards;  // file names, sorted, each once
  std::vector<Entry> weight_map;    // sorted by tensor
  std::optional<uint64_t> total_size;

  const Entry* find(std::string_view tensor) const;
};

Result<ShardIndex> parse_shard_index(std::string_view text);
Result<ShardIndex> read_shard_index(const Host& host, const Input& input, const std::string& name);

}  // namespace crossdock::common
