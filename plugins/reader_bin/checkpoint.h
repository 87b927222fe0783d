// What the files of a model hold together: one file, or shards (plugins/common/hf_weights.h).
#pragma once

#include "plugins/torch/read/torch_file.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace crossdock::reader_bin {

// A view that repeats its elements may be no larger than this: a file of a few bytes can ask for
// any size.
inline constexpr uint64_t kMaxRepeatedBytes = 1 << 30;
// Values are picked from a deflated record by inflating it for every piece anew. torch itself never
// deflates.
inline constexpr uint64_t kMaxInflatedView = 64 << 20;

struct BinTensor {
  std::string name;
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> strides;  // in elements; empty when dense
  uint64_t offset = 0;            // of the first element, in elements from the start of the record
  uint32_t file = 0, record = 0;
  bool is_parameter = false, is_frozen = false;

  uint64_t n_elems() const { return *checked_product(shape); }
  uint64_t elem_bytes() const { return manifest::info(dtype).bits / 8; }
};

struct CheckpointFile {
  std::string name;
  uint64_t size = 0;
  std::unique_ptr<torch_read::TorchFile> torch;
};

struct Checkpoint {
  std::vector<CheckpointFile> files;  // sorted by name
  std::vector<BinTensor> tensors;     // in the order of the state dict, file by file
  std::vector<manifest::AliasGroup> aliases;
};

struct OpenOptions {
  std::string variant, state_dict_path;
  bool verify_crc = false;
};

// `config`: config.json, or unset.
Result<Checkpoint> open_checkpoint(const Host& host, const Input& input,
                                   const manifest::Value& config, const OpenOptions& options);

// How sure we are that the input is ours, from the names in a folder, or the first bytes of a file:
// 0 to 90. Where a folder has safetensors files under their standard name too, they go first.
int score(const Host& host, const Input& input);

}  // namespace crossdock::reader_bin
