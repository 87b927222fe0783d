// What is in each file of a universal checkpoint: its pickle, and where the bytes of its storages come from.
//
// FORMAT.md says what DeepSpeed reads of it. Pure functions of the model; any thread.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <span>
#include <string>
#include <vector>

#include "plugins/common/torch_zip.h"
#include "plugins/writer_universal/settings.h"

namespace crossdock::writer_universal {

struct Storage {
  enum class From { kTensor, kWrittenZeros, kZeros };  // kZeros: a hole, where it is worth one
  From from = From::kZeros;
  uint64_t n_bytes = 0;
  // kTensor: all of the tensor at this index, as this element type.
  uint64_t tensor = 0;
  uint64_t n_elems = 0;
  manifest::DType dtype = manifest::DType::F32;
  bool is_cast = false;
};

struct Content {
  common::TorchFile file;
  std::vector<Storage> storages;

  Content(std::string pickle, std::vector<Storage> from);
};

// The manifest's tensors, by what becomes of them: indexes.
struct Parts {
  std::vector<uint64_t> parameters, frozen, buffers, optimizer_states;
};

Content weights(const manifest::Tensor& tensor, uint64_t index, bool keep_dtype);
Content moment(const manifest::Tensor& tensor, Moments how);  // exp_avg and exp_avg_sq alike; not for kNone
Content step();
Content optimizer_state();
Content model_states(const manifest::Manifest& model, const Parts& parts);
Content scheduler();
std::string trainer_state_json();

}  // namespace crossdock::writer_universal
