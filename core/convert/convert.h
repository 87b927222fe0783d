// The whole job: a source becomes a destination.
//
//   prepare: open the source -> its manifest -> the target model
//   -> make_plan: the writer's plan -> checks -> [a dry run ends here]
//   -> execute: stage the objects, run the items, seal -> the source is unchanged
//   -> report -> sync -> rename
//
// Whatever fails, and whenever `cancelled` turns true: the destination stays as it was and nothing
// is left beside it.
#pragma once

#include "core/convert/execution.h"
#include "core/convert/planning.h"
#include "core/convert/request.h"

#include <atomic>
#include <functional>
#include <string>

namespace crossdock::convert {

struct Outcome {
  PlanSummary plan;    // its notes are those of the whole run
  std::string report;  // JSON; empty after a dry run
  double seconds = 0;
};

struct Callbacks {
  std::function<void(const PlanSummary&)> planned;  // before anything is written
  Progress progress;
  std::function<void(const char* phase)> phase;  // "sync"
};

Result<Outcome> convert(const Request& request, const plugin::Registry& registry, io::Os& os,
                        const std::atomic<bool>& cancelled, const Callbacks& callbacks);

}  // namespace crossdock::convert
