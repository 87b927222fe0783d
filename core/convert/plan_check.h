// SPDX-License-Identifier: Apache-2.0

// The gate between a writer's plan and the disk: a plan that passes cannot escape the destination,
// overlap, or lose a tensor.
#pragma once

#include "core/plugin/plan.h"

#include <crossdock/manifest_wire.hpp>

#include <string>
#include <vector>

namespace crossdock::convert {

struct PlanLimits {
  uint64_t memory = 0;                 // what one item may hold
  uint64_t overhead = 0;               // what the host holds beside the item's own
  bool allow_case_collisions = false;  // paths may differ in the case of letters only
};
// Adds to `notes` what the user must know of a plan that passes.
Result<void> check_plan(const plugin::Plan& plan, const manifest::Manifest& m,
                        const PlanLimits& limits, std::vector<std::string>& notes);

// About what the objects take on disk: items say what they write; beside them an object holds
// headers and trailers, and the rest is holes.
uint64_t stored_bytes(const plugin::Plan& plan);

}  // namespace crossdock::convert
