// Parameters that a source holds under several names: one is written, the others are left out with
// a reason.
#pragma once

#include "core/base/memory.h"
#include "core/convert/tensor_source.h"

#include <atomic>
#include <string>
#include <vector>

namespace crossdock::convert {

// Leaves out of `target` what shares its storage and what config.json ties, where the values are
// equal (else a note says so), and checks that names which the job's module ties hold the same
// values. Comparing takes two blocks of piece_bytes from the budget.
Result<void> leave_out_tied(TensorSource& model, manifest::Manifest& target, uint64_t piece_bytes,
                            const std::atomic<bool>& cancelled, std::vector<std::string>& notes);

}  // namespace crossdock::convert
