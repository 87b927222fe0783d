// Digests of a source's tensors, over their dense, row-major, little-endian values: the same values
// give the same digest in every format, so people compare two checkpoints with them.
#pragma once

#include "core/convert/tensor_source.h"
#include "core/io/digest.h"

#include <atomic>
#include <functional>
#include <string>
#include <vector>

namespace crossdock::convert {

Result<std::string> digest_tensor(TensorSource& model, uint64_t index, io::DigestKind kind,
                                  const std::atomic<bool>& cancelled);

// One digest per tensor, in order. `progress`: bytes done and in all, about five times a second;
// may be empty.
Result<std::vector<std::string>> digest_tensors(
    TensorSource& model, io::DigestKind kind, unsigned threads, const std::atomic<bool>& cancelled,
    const std::function<void(uint64_t done, uint64_t total)>& progress);

}  // namespace crossdock::convert
