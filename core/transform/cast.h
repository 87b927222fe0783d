// SPDX-License-Identifier: Apache-2.0

// Element casts between the floating types BF16, F16, F32 and F64: the core's own loops, at memory
// speed.
//
// Narrowing rounds to nearest, ties to even; overflow gives infinity; NaN stays NaN. F64 goes to 16
// bits by way of F32, as torch does. This file is compiled with -fno-trapping-math, without which
// GCC does not vectorise the comparisons.
#pragma once

#include <crossdock/dtype.hpp>

#include <cstddef>

namespace crossdock::transform {

// Reads n elements at `from`, writes n at `to`; the ranges do not overlap. Any alignment.
using CastFunction = void (*)(const std::byte* from, std::byte* to, size_t n);

// nullptr when there is no such cast; equal types give a copy.
CastFunction find_cast(manifest::DType from, manifest::DType to);

}  // namespace crossdock::transform
