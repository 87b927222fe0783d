// The third stage: items run on a pool of threads under the budget, and their objects are sealed.
#pragma once

#include "core/convert/outputs.h"
#include "core/convert/tensor_digests.h"

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace crossdock::convert {

// Bytes of output, about five times a second, on the calling thread.
using Progress = std::function<void(uint64_t done, uint64_t total)>;

// What can be done by itself: an item, or an object that has none (of headers and holes), which is
// made when it is sealed.
struct Task {
  uint32_t object = 0;
  const plugin::PlanItem* item = nullptr;  // of the plan, which outlives the task
};

// All work of a plan. The largest items come first, so that no thread is left alone with one at the
// end.
std::vector<Task> all_tasks(const plugin::Plan& plan);

// Runs any of a plan's tasks, each once; an object is sealed when its last item is done. What items
// read is added to `digests`. After an error, or a cancel, the outputs are worth nothing.
Result<void> execute(Session& session, const Prepared& prepared, const Planned& planned,
                     std::span<const Task> tasks, Outputs& outputs, TensorDigests& digests,
                     const Progress& progress);

// Reads what is missing in the digests: tensors that no item needs, and leaves that none read
// whole.
Result<void> digest_others(Session& session, const Prepared& prepared, TensorDigests& digests);

// Copies the source's files that are no tensors (config.json, the tokenizer).
Result<void> copy_aux_files(Session& session, const Prepared& prepared, const Planned& planned,
                            Outputs& outputs);

}  // namespace crossdock::convert
