// SPDX-License-Identifier: Apache-2.0

// Which files of a plan one of several processes makes.
#pragma once

#include "core/convert/part.h"
#include "core/plugin/plan.h"

#include <vector>

namespace crossdock::convert {

// By a file's number (outputs.h). Every process computes the same shares from the same plan: the
// largest files first, each to the part that has the least. Of one part: all.
std::vector<bool> share_of(const plugin::Plan& plan, const Part& part);

// How much more the largest part has to write than it would if all had the same: 1 is even.
double unevenness(const plugin::Plan& plan, uint32_t parts);

}  // namespace crossdock::convert
