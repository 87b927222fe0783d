// SPDX-License-Identifier: Apache-2.0

// The second stage: the writer says what it will make of the model, and the host checks it. Nothing
// is written; a dry run ends here.
#pragma once

#include "core/convert/open_writer.h"
#include "core/convert/prepare.h"
#include "core/plugin/plan.h"

#include <string>
#include <vector>

namespace crossdock::convert {

// What the plan amounts to.
struct PlanSummary {
  std::string format;
  uint64_t source_bytes = 0;
  size_t tensors = 0, parameters = 0, buffers = 0, moments = 0, excluded = 0;
  uint64_t parameter_elems = 0;
  size_t files = 0;
  uint64_t apparent_bytes = 0;  // the sum of file sizes
  uint64_t stored_bytes = 0;    // about what they take on disk
  uint64_t peak_memory = 0;     // of buffers: within the budget
  std::vector<std::string> notes;
};

struct Planned {
  OpenWriter writer;
  plugin::Plan plan;           // that passed the checks
  uint64_t reading_bytes = 0;  // what reading takes of the budget beside an item's own memory
  PlanSummary summary;
  std::string model_digest;  // of the manifest as the writer was given it
};

// `prepared`: its metadata are gone after it. Errors: a model that the writer does not take, a plan
// that plan_check.h does not pass.
Result<Planned> make_plan(Session& session, Prepared& prepared);

}  // namespace crossdock::convert
