// The state of the training: groups, steps and moments, and what else the files tell of the job.
#pragma once

#include "plugins/reader_zero/groups.h"
#include "plugins/reader_zero/part.h"

#include <map>
#include <string_view>

namespace crossdock::reader_zero {

using TensorIndex = std::map<std::string_view, uint64_t>;  // of the manifest's, by name

// Adds the moments' tensors and the training state. `warns`: of what is left out.
Result<void> add_training(const Host& host, const States& states, const Groups& groups,
                          const TensorIndex& index, Part& out, bool warns);

std::vector<manifest::KeyValue> metadata_of(const SavedJob& job,
                                            const manifest::TrainingState& training);

}  // namespace crossdock::reader_zero
