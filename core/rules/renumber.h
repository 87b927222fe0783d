// What refers to tensors by their indexes, after rules have made others of them.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <optional>
#include <span>

namespace crossdock::rules {

// `places` has the new index of each tensor of `m` that stays as it is. An alias group keeps those
// of its tensors that are there. Errors: a training state or a module that speaks of one that is
// not.
Result<void> renumber(std::span<const std::optional<uint64_t>> places, manifest::Manifest& m);

}  // namespace crossdock::rules
