// Parameters that a source holds under several names: one is written, the others are left out with
// a reason.
#pragma once

#include "core/base/memory.h"
#include "core/convert/tensor_source.h"

#include <atomic>
#include <span>
#include <string>
#include <vector>

namespace crossdock::convert {

// Leaves out of `target` what shares its storage, and of each group of `tied` all but the first
// where the values are equal (else a note says so). Where the job's module is known, it says what
// is tied: then its names are only checked to hold the same values. Comparing takes two blocks of
// piece_bytes from the budget.
Result<void> exclude_tied(TensorSource& model, std::span<const manifest::AliasGroup> tied,
                          manifest::Manifest& target, uint64_t piece_bytes,
                          const std::atomic<bool>& cancelled, std::vector<std::string>& notes);

}  // namespace crossdock::convert
