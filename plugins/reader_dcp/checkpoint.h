// SPDX-License-Identifier: Apache-2.0

// What the files of a checkpoint hold together: the model, and its optimizer's state.
#pragma once

#include <crossdock/plugin.hpp>

#include <string>
#include <vector>

#include "plugins/common/boxes.h"

namespace crossdock::reader_dcp {

struct DcpTensor {
  std::string name;
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  std::vector<uint64_t> shape;
  std::vector<common::Box> boxes;
  // Of one box whose values are not row-major: the tensor's storage, which begins at boxes[0].data.
  std::vector<uint64_t> strides;  // in elements; else empty
  uint64_t storage_offset = 0, storage_elements = 0;
  bool is_moment = false;

  uint64_t n_elems() const { return *checked_product(shape); }  // checked
  uint64_t elem_bytes() const { return manifest::info(dtype).bits / 8; }
};

struct CheckpointFile {
  std::string name;
  uint64_t size = 0;
  Source source;
};

struct Checkpoint {
  std::vector<CheckpointFile> files;
  std::vector<DcpTensor> tensors;  // the model's, then moments
  std::vector<manifest::AliasGroup> aliases;
  manifest::TrainingState training;
  int64_t n_ranks = 0;  // that saved the model; 0: not known
};

struct OpenOptions {
  std::string state_dict_path;
  bool verify_crc = false;
};

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input,
                                   const OpenOptions& options);

}  // namespace crossdock::reader_dcp
