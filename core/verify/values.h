// SPDX-License-Identifier: Apache-2.0

// The tensors of what a conversion wrote, as its own reader gives them, against those of the
// source: every element, cast to the destination's type, must have the same bits.
#pragma once

#include "core/verify/made.h"
#include "core/verify/opened.h"
#include "core/verify/verdict.h"

#include <cstdint>
#include <vector>

namespace crossdock::verify {

// Reads all of both, once. The source's tensors are held against the report's too, by their
// digests, so that a change is seen that the cast rounds away, or of a tensor that was left out.
// Tensors of `written` that are not of the source must be other names of some that are, or moments
// that are zero. Gives how many tensors were compared.
Result<uint64_t> compare_values(const Made& made, const Opened& written, const Progress& progress,
                                Findings& findings);

// Whether `written` may be the destination's form of a tensor of this shape: writers make a scalar
// one of one element.
bool is_shape_of(const std::vector<uint64_t>& written, const std::vector<uint64_t>& shape);

}  // namespace crossdock::verify
