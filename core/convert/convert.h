// SPDX-License-Identifier: Apache-2.0

// The whole job: a source becomes a destination.
//
//   prepare: open the source -> its manifest -> the target model
//   -> make_plan: the writer's plan -> checks -> [a dry run ends here]
//   -> take what earlier runs and other processes have done
//   -> execute: stage the objects, run the items, seal -> the source is unchanged
//   -> report -> sync -> rename
//
// Whatever fails, and whenever `cancelled` turns true: the destination stays as it was. Beside it
// nothing is left, but after some seconds of work what is done, for the run that goes on with it:
// one that makes the same (plan_text.h). Several processes that make the same share the files
// (share.h); whoever finds them all there publishes.
#pragma once

#include "core/convert/execution.h"
#include "core/convert/forecast.h"
#include "core/convert/planning.h"
#include "core/convert/request.h"

#include <array>
#include <atomic>
#include <string>
#include <vector>

namespace crossdock::convert {

struct Outcome {
  Forecast forecast;
  PlanSummary plan;    // its notes are those of the whole run
  std::string report;  // JSON; empty after a dry run, and where another process has published
  double seconds = 0;
  std::array<double, base::kActivities> spent{};  // seconds of all threads, by activity
  std::string trace;                              // JSON, if it was asked for
  bool published = false;                         // the destination is there
  uint64_t files_done = 0;                        // by this run
  uint64_t files_found = 0;                       // done by earlier runs and other processes
  std::vector<std::string> missing;               // files that nobody has done yet
};

Result<Outcome> convert(const Request& request, const plugin::Registry& registry, io::Os& os,
                        const std::atomic<bool>& cancelled, const Callbacks& callbacks);

}  // namespace crossdock::convert
