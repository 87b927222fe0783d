// SPDX-License-Identifier: Apache-2.0

// Where a tensor of a pickle lies in its file.
#pragma once

#include "plugins/torch/read/torch_file.h"

#include <string>
#include <vector>

namespace crossdock::deepspeed {

struct Stored {
  uint32_t file = 0;
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  std::vector<uint64_t> shape;
  uint64_t offset = 0;  // in bytes: of its first element; with strides of its storage
  // Empty where it is dense. Else as the manifest's Tensor has them.
  std::vector<uint64_t> strides;
  uint64_t storage_offset = 0, storage_elems = 0;

  uint64_t n_elems() const { return *checked_product(shape); }  // checked by the pickle's reader
  uint64_t elem_bytes() const { return manifest::info(dtype).bits / 8; }
};

// Its bytes are there, plain and little-endian, or that is the error.
Result<Stored> locate(const torch_read::TorchFile& torch, uint32_t file,
                      const torch_read::Tensor& tensor);

}  // namespace crossdock::deepspeed
