// SPDX-License-Identifier: Apache-2.0

// The job's own weights of ZeRO stage 3 and of universal checkpoints, which hold the fp32 ones
// alone: DeepSpeed rounds those to the job's type after each step (Tensor.copy_, to the nearest,
// halves to even), so that the job's own have the same bits.
#pragma once

#include "plugins/deepspeed/model_states.h"

#include <functional>
#include <span>

namespace crossdock::deepspeed {

// Makes fp32 weights the job's own: of its type. An error where the files do not tell the type.
Result<void> round_weight(const ModelStates& model, manifest::Tensor& weight);

// Fills `out` with the values [begin, ...) of a tensor, rounded to `dtype`, BF16 or F16. `read`
// gives the same values in F32.
using ReadFloats = std::function<Result<void>(uint64_t begin, std::span<std::byte> out)>;
Result<void> read_rounded(manifest::DType dtype, uint64_t begin, std::span<std::byte> out,
                          const ReadFloats& read);

}  // namespace crossdock::deepspeed
