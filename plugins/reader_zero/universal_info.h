// SPDX-License-Identifier: Apache-2.0

// universal_checkpoint_info: what a job says of how its tensor-parallel ranks share its parameters,
// by patterns of names. DeepSpeed's ds_to_universal.py merges by it, and so do we.
#pragma once

#include "plugins/deepspeed/values.h"
#include "plugins/reader_zero/pattern.h"

#include <map>
#include <optional>

namespace crossdock::reader_zero {

// A box of elements, in the whole parameter (source) and in a rank's share (dest): offset and
// strides as torch.as_strided takes them.
struct AffinePiece {
  std::vector<uint64_t> shape;
  uint64_t source_offset = 0, dest_offset = 0;
  std::vector<uint64_t> source_strides, dest_strides;
  bool is_scaled = false;  // the share holds the values times a factor
};
struct AffineMap {
  struct Rank {
    std::vector<uint64_t> shard_shape;
    std::vector<AffinePiece> pieces;
  };
  std::vector<uint64_t> logical_shape;
  std::map<uint64_t, Rank> ranks;
};

// Parameters that are several along one dimension, each shared out by itself.
struct SubParameters {
  std::vector<int64_t> shape;   // as it is viewed; one may be -1; at partition_dim a count, or 0
  std::vector<uint64_t> sizes;  // along partition_dim, where the file tells them: else empty
  uint64_t partition_dim = 0;
  // widths[i][rank]: of sub-parameter i; empty before version 0.4 of the info.
  std::vector<std::vector<uint64_t>> widths;
};

struct UniversalInfo {
  template <class T>
  using ByPattern = std::vector<std::pair<Pattern, T>>;
  using Patterns = std::vector<Pattern>;

  double version = 0;
  Patterns replicated, averaged, row_parallel, vocabulary, two_sub_parameters, pipeline_replicated;
  ByPattern<SubParameters> sub_parameters;
  ByPattern<AffineMap> affine;
  std::optional<uint64_t> original_vocab_size;
};

// Of a file of model states; nothing where it has none. An error where it is of a newer version, or
// names parameters that cannot be merged.
Result<std::optional<UniversalInfo>> read_universal_info(const deepspeed::Dict& root);

}  // namespace crossdock::reader_zero
