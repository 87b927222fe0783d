// SPDX-License-Identifier: Apache-2.0

// The digests of all of a source's tensors while they are taken, each over its dense, row-major,
// little-endian values: the same values give the same digest in every format.
//
// Every read of an item contributes what it sees (tensor_service.h); what none saw is read by
// read_missing().
#pragma once

#include "core/convert/tensor_source.h"
#include "core/io/tree_digest.h"

#include <atomic>
#include <deque>
#include <string>
#include <vector>

namespace crossdock::convert {

class TensorDigests {
 public:
  // `seam_bytes`: how much may be kept of leaves where the ranges of two items meet.
  TensorDigests(const manifest::Manifest& manifest, uint64_t seam_bytes);
  TensorDigests(const TensorDigests&) = delete;
  TensorDigests& operator=(const TensorDigests&) = delete;

  size_t size() const { return trees_.size(); }
  io::TreeDigest& operator[](uint64_t tensor) { return trees_[tensor]; }
  // By index, "tree:..."; empty ones where something is missing. [any]
  std::vector<std::string> texts() const;

 private:
  std::atomic<int64_t> seam_room_;
  std::deque<io::TreeDigest> trees_;
};

// Of the budget, while it runs and reads values that need no scratch.
inline constexpr uint64_t kDigestMemory = 1 << 20;

// Reads what `digest` of this tensor lacks. [any]
Result<void> read_missing(TensorSource& model, uint64_t tensor, io::TreeDigest& digest,
                          const std::atomic<bool>& cancelled);

}  // namespace crossdock::convert
