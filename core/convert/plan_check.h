// The gate between a writer's plan and the disk: a plan that passes cannot escape the destination, overlap, or lose a
// tensor.
#pragma once

#include "core/plugin/plan.h"

#include <crossdock/manifest_wire.hpp>

namespace crossdock::convert {

// `memory_limit`: what one item may hold; `overhead`: what the host holds beside the item's own.
Result<void> check_plan(const plugin::Plan& plan, const manifest::Manifest& m, uint64_t memory_limit,
                        uint64_t overhead);

// About what the objects take on disk: items say what they write; beside them an object holds headers and trailers, and
// the rest is holes.
uint64_t stored_bytes(const plugin::Plan& plan);

}  // namespace crossdock::convert
