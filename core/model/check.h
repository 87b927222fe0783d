// SPDX-License-Identifier: Apache-2.0

// The gate between a reader plugin and everything else: a manifest that passes holds what
// manifest.proto promises.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <set>

namespace crossdock::model {

// Named limits: far above real models, and low enough that a broken plugin cannot make the host use
// much memory or time. Of a whole model: sums and products by the size of any element stay far
// below 2^64.
inline constexpr uint64_t kMaxElements = uint64_t{1} << 56;
inline constexpr size_t kMaxTensors = 20'000'000;
inline constexpr size_t kMaxRank = 64;
inline constexpr size_t kMaxNameBytes = 64 << 10;

// Versions, indexes, names (unique, UTF-8), shapes (no overflow), strides and extents (inside their
// files).
Result<void> check(const manifest::Manifest& m);

// Whether tensors that share their storage have one type and shape, as a reader's own have.
Result<void> check_aliases(const manifest::Manifest& m);

// Elements of a checked tensor.
uint64_t element_count(const manifest::Tensor& t);
// Bytes of its values, dense and row-major.
uint64_t value_bytes(const manifest::Tensor& t);
// Tensors of a checked manifest that are other names of one before them: all of each alias group
// but the first.
std::set<uint64_t> other_names(const manifest::Manifest& m);

}  // namespace crossdock::model
