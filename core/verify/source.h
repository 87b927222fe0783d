// SPDX-License-Identifier: Apache-2.0

// A report against the source that it speaks of.
#pragma once

#include "core/verify/made.h"
#include "core/verify/verdict.h"

namespace crossdock::verify {

// What the report says of the source's tensors and files against what they are: names, types,
// shapes, and the digests of what no tensor proves (convert/source_proof.h). After
// compare_values(), which reads the source.
Result<void> compare_source(const Made& made, Findings& findings);

}  // namespace crossdock::verify
