// SPDX-License-Identifier: Apache-2.0

// The third stage: items run on a pool of threads under the budget, and their objects are sealed.
#pragma once

#include "core/convert/outputs.h"
#include "core/convert/tensor_digests.h"

#include <cstdint>
#include <span>
#include <vector>

namespace crossdock::convert {

// What can be done by itself: an item, or several that have to come one after the other; or a file
// that needs no item any more: the writer makes, or ends, it when it is sealed, and the source's
// files are copied.
struct Task {
  uint64_t file = 0;                           // outputs.h; of several items, the first one's
  std::vector<const plugin::PlanItem*> items;  // of the plan, which outlives the task
};

// What its items write.
uint64_t out_bytes(const Task& task);

// The work that is left of the `wanted` files. The largest items come first, so that no thread is
// left alone with one at the end.
std::vector<Task> tasks_of(const plugin::Plan& plan, const TensorSource& tensors,
                           const Outputs& outputs, const std::vector<bool>& wanted);

// Runs any of a plan's tasks, each once; an object is sealed when its last item is done. What items
// read is added to `digests`. After an error, or a cancel, what is done is in the journal.
// `before`: bytes of output that were there already, for the progress.
Result<void> execute(Session& session, const Prepared& prepared, const Planned& planned,
                     std::span<const Task> tasks, uint64_t before, Outputs& outputs,
                     TensorDigests& digests);

// Reads what is missing in the digests: tensors that no item needs, and leaves that none read
// whole.
Result<void> digest_others(Session& session, const Prepared& prepared, TensorDigests& digests);

}  // namespace crossdock::convert
