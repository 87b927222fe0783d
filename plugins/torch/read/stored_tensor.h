// SPDX-License-Identifier: Apache-2.0

// A tensor of a file of torch.save: where its values lie, what a manifest says of it, and reading
// it in place.
#pragma once

#include "plugins/torch/read/torch_file.h"

namespace crossdock::torch_read {

// A view that repeats its elements may be no larger than this: a file of a few bytes can ask for
// any size.
inline constexpr uint64_t kMaxRepeatedBytes = 1 << 30;
// Values are picked from a deflated record by inflating it for every piece anew. torch itself never
// deflates.
inline constexpr uint64_t kMaxInflatedView = 64 << 20;

struct StoredTensor {
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> strides;  // in elements; empty when dense
  uint64_t offset = 0;            // of the first element, in elements from the start of the record
  uint32_t record = 0;

  // Of a tensor of the file's pickle. Errors: a storage that is not there, or a view that asks for
  // too much.
  static Result<StoredTensor> of(const TorchFile& file, const Tensor& t);

  uint64_t n_elems() const { return *checked_product(shape); }
  uint64_t elem_bytes() const { return manifest::info(dtype).bits / 8; }

  // All but the name and role; `index`: of the file among the manifest's.
  void describe(const TorchFile& file, uint32_t index, manifest::Tensor& out) const;
  // Elements as the manifest counts them: of a strided tensor those of its storage. [any]
  Result<void> read(const Host& host, TorchFile& file, const xd_range& range,
                    std::span<std::byte> out) const;
};

}  // namespace crossdock::torch_read
