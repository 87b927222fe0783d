// SPDX-License-Identifier: Apache-2.0

// Which files of an input are the model: one file, or shards. The same rules for safetensors and
// .bin.
//
// The choice is transformers' where it has one: STEM.SUFFIX, else STEM.SUFFIX.index.json
// (modeling_utils.py, 5.23). A standard name wins over every other. Without one: the index or files
// of another stem, a complete set of numbered parts, the only file there is. A part is never taken
// for the whole.
#pragma once

#include "plugins/common/hf_folder.h"

namespace crossdock::common {

// How a format's files are named.
struct WeightNames {
  std::span<const std::string_view> stems;   // "model" of model.safetensors: the standard one first
  std::string_view suffix;                   // ".safetensors"
  std::span<const std::string_view> others;  // further suffixes of single files
  std::string_view adapter;                  // holds a part of a model
  int standard_score, other_score;           // see score()
};

struct WeightFiles {
  std::vector<std::string> files;   // sorted by name
  std::optional<ShardIndex> index;  // what lists them
  std::string index_name;
  // The index lists files that are not there: what is read instead must hold its tensors.
  bool index_is_stale = false;
};

// `variant`: "fp16" for model.fp16.safetensors. `wanted`: a file that config.json names
// (transformers_weights); empty for none.
Result<WeightFiles> choose_files(const Host& host, const Input& input, const WeightNames& kind,
                                 const std::string& variant, const std::string& wanted = {});

// How sure we are that a folder is ours, from its names alone: 0, or up to standard_score where it
// has a standard name.
int score(std::span<const std::string> names, const WeightNames& kind);
// Whether a file's name says that it is of this kind, or an index of such files.
bool has_suffix(std::string_view name, const WeightNames& kind);

struct PlacedTensor {
  std::string_view name;
  uint32_t file;  // an index of WeightFiles.files
};

// No tensor lies in two files, and each that an index lists lies in one. transformers takes from
// the index only which files there are, so tensors that it does not list, or puts elsewhere, get a
// warning.
Result<void> check_placed(const Host& host, const WeightFiles& files,
                          std::span<const PlacedTensor> tensors);

// Warns when total_size is another one; that is nobody's rule: transformers does not read it, and
// merged, cast or stripped models keep an old one.
void compare_total_size(const Host& host, const WeightFiles& files, uint64_t n_bytes);

}  // namespace crossdock::common
