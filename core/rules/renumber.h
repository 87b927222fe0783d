// SPDX-License-Identifier: Apache-2.0

// What refers to tensors by their indexes, after rules have made others of them.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <optional>
#include <span>
#include <vector>

namespace crossdock::rules {

// Puts `tensors` in the place of those of `m`, and gives these. `places` has the new index of each
// that stays as it is: what refers to tensors is renumbered, and an alias group keeps those of its
// tensors that are there. Errors, after which `m` is as it was: a training state or a module that
// speaks of one that is not there, a manifest that model::check refuses.
Result<std::vector<manifest::Tensor>> replace_tensors(
    std::span<const std::optional<uint64_t>> places, std::vector<manifest::Tensor> tensors,
    manifest::Manifest& m);

}  // namespace crossdock::rules
