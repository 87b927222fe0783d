// Which files of an input are the model: one file, or shards with an index. The same rules for safetensors and .bin.
//
// The choice is transformers': STEM.SUFFIX, else STEM.SUFFIX.index.json (modeling_utils.py, 5.23). The index must agree
// with the shards both ways, so that no tensor is taken from a place that the checkpoint's author did not mean.
#pragma once

#include "plugins/common/hf_folder.h"

namespace crossdock::common {

// How a format's files are named.
struct WeightNames {
  std::string_view stem;                          // "model" of model.safetensors
  std::string_view suffix;                        // ".safetensors"
  std::span<const std::string_view> others;       // further suffixes of single files
  std::span<const std::string_view> not_weights;  // beginnings of names that hold something else
  std::string_view adapter;                       // holds a part of a model
};

// The file that opens the model: a file of weights, or an index of shards. `variant`: "fp16" for
// model.fp16.safetensors.
Result<std::string> choose_file(const Host& host, std::span<const std::string> names, const WeightNames& kind,
                                const std::string& variant);
inline bool is_index(std::string_view name) { return name.ends_with(".json"); }

// How sure we are that the input is ours, from its names alone: 0, or up to `best`.
int score(std::span<const std::string> names, const WeightNames& kind, int best);

// Every shard that the index lists is there.
Result<void> check_shards_exist(const ShardIndex& index, std::span<const std::string> names);

struct PlacedTensor {
  std::string_view name;
  uint32_t file;  // an index of `files`
};

// Both ways: each tensor of the index lies in the shard it names, and each tensor of a shard is in the index.
Result<void> check_against_index(const ShardIndex& index, std::span<const PlacedTensor> tensors,
                                 std::span<const std::string> files);

// Warns when total_size is another one; that is nobody's rule: transformers does not read it, and merged, cast or
// stripped models keep an old one.
void compare_total_size(const Host& host, const ShardIndex& index, uint64_t n_bytes, const std::string& index_name);

}  // namespace crossdock::common
