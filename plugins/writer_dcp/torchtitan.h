// SPDX-License-Identifier: Apache-2.0

// The names and layouts of torchtitan's own models, for its trainer to load.
//
// As of commit b5bcd76c (2026-08-21) of https://github.com/pytorch/torchtitan: the tables of
// torchtitan/models/{llama3,qwen3}/state_dict_adapter.py. They move from release to release.
#pragma once

#include <crossdock/manifest_wire.hpp>
#include <crossdock/result.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace crossdock::writer_dcp {

struct TitanTensor {
  std::string name;
  // Rows of a head, of projections to queries and keys: each half of a head's rows is one part of
  // RoPE's pairs in Hugging Face's models, and here row 2i of a head pairs with row 2i + 1. 0: rows
  // stay.
  uint64_t head_rows = 0;
};

class Torchtitan {
 public:
  // An error for a model that torchtitan spells otherwise, or that no table is there for.
  static Result<Torchtitan> of(const manifest::Value& config);

  Result<TitanTensor> find(std::string_view name, const std::vector<uint64_t>& shape) const;

 private:
  bool interleaves_ = false;  // of Llama 3, not of Qwen 3
  std::string_view model_;
  uint64_t n_heads_ = 0, n_kv_heads_ = 0;
};

}  // namespace crossdock::writer_dcp
