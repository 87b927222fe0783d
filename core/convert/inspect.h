// SPDX-License-Identifier: Apache-2.0

// Digests of a source's tensors, over their dense, row-major, little-endian values: the same values
// give the same digest in every format, so people compare two checkpoints with them.
#pragma once

#include "core/convert/tensor_source.h"

#include <atomic>
#include <functional>
#include <string>
#include <vector>

namespace crossdock::convert {

// "tree:..." (io/tree_digest.h), which is also a conversion's report's; or "sha256:...".
enum class DigestKind { kTree, kSha256 };

// One digest per tensor, in order. `progress`: bytes done and in all, about five times a second;
// may be empty.
Result<std::vector<std::string>> digest_tensors(
    TensorSource& model, DigestKind kind, unsigned threads, const std::atomic<bool>& cancelled,
    const std::function<void(uint64_t done, uint64_t total)>& progress);

}  // namespace crossdock::convert
