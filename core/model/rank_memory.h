// SPDX-License-Identifier: Apache-2.0

// What a job of DeepSpeed holds of its model in each rank's memory, told from its checkpoint.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <optional>

namespace crossdock::model {

struct RankMemory {
  uint64_t n_ranks = 0;     // data-parallel ones
  uint64_t zero_stage = 0;  // 0: of FSDP, which cuts all tensors among the ranks
  // Bytes. Activations, buffers of the communication and of the allocator come on top.
  uint64_t weights = 0, gradients = 0, optimizer = 0;

  uint64_t total() const { return weights + gradients + optimizer; }
};

// Of the job that saved the checkpoint: by the metadata zero_stage, dp_world_size, mp_world_size
// and dtype ("bf16", the job's own; without it the type of the weights counts). Nothing where the
// metadata have no stage and no ranks.
//
// Stage 1 cuts the optimizer's fp32 weights and its state among the ranks, 2 the gradients too, 3
// the weights too (Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion
// Parameter Models"). Gradients are of the weights' type.
std::optional<RankMemory> rank_memory(const manifest::Manifest& m);

}  // namespace crossdock::model
