// SPDX-License-Identifier: Apache-2.0

// A torch file that a writer plans: its pickle, and where the bytes of its storages come from.
// stream.h writes it.
//
//   Content c(pickle, {of_tensor(tensor, 7, DType::F32), zeros(1000)});
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <string>
#include <vector>

#include "plugins/torch/write/file_layout.h"

namespace crossdock::torch_write {

// Elements [begin, begin + count) of the tensor at this index, and `pad` zeros behind them.
struct Segment {
  uint64_t tensor = 0;
  uint64_t begin = 0, count = 0;
  uint64_t pad = 0;
  bool is_cast = false;  // the storage's element type is not the tensor's
};

struct StorageSource {
  enum class From { kTensors, kWrittenZeros, kZeros };  // kZeros: a hole, where it is worth one
  From from = From::kZeros;
  uint64_t n_bytes = 0;
  manifest::DType dtype = manifest::DType::F32;
  std::vector<Segment> segments;    // of kTensors, one behind the other
  bool counts_beyond_fp16 = false;  // values that a job in fp16 cannot hold: finite ones that round
                                    // to infinity, and in what is written as fp16 infinities
  std::string bytes = {};           // of kZeros: a few that are written instead
};

inline StorageSource zeros(uint64_t n_elems,
                           StorageSource::From from = StorageSource::From::kZeros) {
  return {from, n_elems * sizeof(float), manifest::DType::F32, {}};
}

// One fp32 value that is known beforehand.
inline StorageSource number(float value) {
  StorageSource out = zeros(1);
  out.bytes.assign(reinterpret_cast<const char*>(&value), sizeof value);
  return out;
}

inline uint64_t element_count(const manifest::Tensor& tensor) {
  return checked_product(tensor.shape).value_or(0);
}

// All of a tensor, as this element type.
inline StorageSource of_tensor(const manifest::Tensor& tensor, uint64_t index,
                               manifest::DType dtype) {
  const uint64_t n = element_count(tensor);
  return {StorageSource::From::kTensors,
          manifest::dense_bytes(dtype, n).value_or(0),
          dtype,
          {{index, 0, n, 0, dtype != tensor.dtype}}};
}

struct Content {
  FileLayout file;
  std::vector<StorageSource> storages;

  Content(std::string pickle, std::vector<StorageSource> from)
      : file(std::move(pickle), sizes_of(from)), storages(std::move(from)) {}

  std::vector<uint64_t> sizes() const { return sizes_of(storages); }

 private:
  static std::vector<uint64_t> sizes_of(const std::vector<StorageSource>& storages) {
    std::vector<uint64_t> out;
    out.reserve(storages.size());
    for (const StorageSource& storage : storages) out.push_back(storage.n_bytes);
    return out;
  }
};

}  // namespace crossdock::torch_write
