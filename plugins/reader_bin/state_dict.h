// SPDX-License-Identifier: Apache-2.0

// Which tensors of a pickle are the model, and what they are called.
//
// The model is the dict that --state-dict-path names, or else the one that choose.h finds. Dicts
// inside it join their names with dots.
#pragma once

#include "plugins/torch/read/pickle.h"

#include <crossdock/plugin.hpp>

#include <string>
#include <vector>

namespace crossdock::reader_bin {

using torch_read::Pickle;

inline constexpr int kMaxNesting = 32;              // of dicts
inline constexpr size_t kMaxNameBytes = 256 << 20;  // of all names; one text may be a million keys

struct ModelTensor {
  std::string name;
  const torch_read::Tensor* tensor;  // of the pickle
};

// In the order of the file. Entries that are no tensors are left out with a warning; tensors that
// have no name of their own (in lists, in objects of unknown classes, under keys that are no
// strings) are refused, since leaving them out would lose them.
Result<std::vector<ModelTensor>> find_model(const Host& host, const Pickle& pickle,
                                            const std::string& path);

}  // namespace crossdock::reader_bin
