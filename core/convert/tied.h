// Parameters that a source holds under several names: one is written, the others are left out with a reason.
#pragma once

#include "core/base/memory.h"
#include "core/convert/open_model.h"

#include <atomic>
#include <functional>
#include <string>

namespace crossdock::convert {

// Whether two tensors of one type and shape hold the same bytes. Takes two blocks of piece_bytes from the budget.
Result<bool> equal_values(OpenModel& model, uint64_t a, uint64_t b, base::Memory& memory, uint64_t piece_bytes,
                          const std::atomic<bool>& cancelled);

// Leaves out what shares its storage, what config.json ties (where the values are equal, else a note says so), and
// checks that names which the job's module ties hold the same values.
Result<void> leave_out_tied(manifest::Manifest& target,
                            const std::function<Result<bool>(uint64_t, uint64_t)>& are_equal,
                            const std::function<void(std::string)>& add_note);

}  // namespace crossdock::convert
