// SPDX-License-Identifier: Apache-2.0

// Llama 3's RoPE scaling, found again from the factors that llama.cpp stores of it.
#pragma once

#include <optional>
#include <span>

namespace crossdock::rules {

// The fields of transformers' rope_scaling {"rope_type": "llama3"}.
struct Llama3Scaling {
  double factor = 0;
  double low_freq_factor = 0;
  double high_freq_factor = 0;
  double original_max_position_embeddings = 0;
};

// `factors`: one for each pair of a head's dimensions, by which its frequency is divided; `base`:
// rope_theta. Nothing when no llama3 scaling makes them, to float32's precision.
//
// Only the ratios of the last three fields matter, so low_freq_factor is 1, as in all models of
// Meta. Source: _compute_llama3_parameters of transformers 5.23 (modeling_rope_utils.py),
// generate_extra_tensors of llama.cpp's convert_hf_to_gguf.py.
std::optional<Llama3Scaling> find_llama3_scaling(std::span<const float> factors, double base);

}  // namespace crossdock::rules
