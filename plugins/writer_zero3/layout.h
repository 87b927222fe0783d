// SPDX-License-Identifier: Apache-2.0

// How ZeRO-3 cuts a model: the same for every rank. FORMAT.md has the rules. Pure functions of the
// model and settings.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <vector>

#include "plugins/torch/write/content.h"
#include "plugins/writer_zero3/settings.h"

namespace crossdock::writer_zero3 {

// The elements of a parameter that each rank holds; the last ranks' are padded with zeros.
uint64_t elements_per_rank(const manifest::Tensor& tensor, uint64_t world_size);

// What rank `rank` holds of the tensor at `index`, of which all is `elements_per_rank` long.
torch_write::Segment piece(const manifest::Manifest& model, uint64_t index, uint64_t rank,
                           uint64_t world_size, manifest::DType dtype);

// A flat buffer of the optimizer: parameters of one optimizer group.
struct SubGroup {
  size_t group = 0;
  std::vector<uint64_t> parameters;  // indexes
  uint64_t n_elems = 0;              // of one rank
};

struct Layout {
  std::vector<SubGroup> sub_groups;
  std::vector<uint64_t> parameters, frozen, buffers;  // in the module's order
};

Result<Layout> make_layout(const manifest::Manifest& model, const Settings& settings);

}  // namespace crossdock::writer_zero3
