// SPDX-License-Identifier: Apache-2.0

// What looks like a model's weights and is not: codes of a quantisation, adapters, parameters that
// were never gathered. Each is refused by name, with the way out; copying it would give a job that
// trains on nonsense.
#pragma once

#include <crossdock/manifest_wire.hpp>
#include <crossdock/result.hpp>

namespace crossdock::model {

// Refuses what is stored as quantised codes: by config.json's quantization_config, by element type,
// by integer "weights", by the names that the known methods give their parts. What counts is what
// layout rules leave: a tensor that they made has the name that they gave it, and one that is left
// out is none.
Result<void> refuse_quantised(const manifest::Manifest& m);

// Whether there are integers that are no mask, ids or counter: with a quantization_config, codes.
bool has_integer_values(const manifest::Manifest& m);

// Refuses LoRA's matrices and their kin, alone or unmerged in a model, by target names or the
// file's.
Result<void> refuse_adapters(const manifest::Manifest& m);

// Refuses the moments of an optimizer among the parameters, as flattened checkpoints of a whole job
// have them.
Result<void> refuse_moments(const manifest::Manifest& m);

// Refuses parameters without elements, and one-element placeholders in place of matrices: what is
// left of parameters that ZeRO-3 held in pieces when the model was saved.
Result<void> refuse_ungathered(const manifest::Manifest& m);

}  // namespace crossdock::model
