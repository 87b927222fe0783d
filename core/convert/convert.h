// The whole job: a source becomes a destination.
//
//   open the source -> its manifest -> the target model -> the writer's plan -> checks -> [dry run ends here]
//   -> stage the objects -> seal -> sync -> rename -> report
//
// Whatever fails, and whenever `cancelled` turns true: the destination stays as it was and nothing is left beside it.
#pragma once

#include "core/base/memory.h"
#include "core/layout/layout.h"
#include "core/model/target.h"
#include "core/plugin/host.h"
#include "core/plugin/options.h"
#include "core/plugin/registry.h"

#include <atomic>
#include <functional>
#include <string>
#include <vector>

namespace crossdock::convert {

inline constexpr uint64_t kLeastMemory = 8 << 20;

struct Request {
  std::string source;
  std::string destination;
  std::string from = "auto";
  std::string to;
  plugin::GivenOptions reader_options;
  plugin::GivenOptions writer_options;
  layout::Options layout;
  model::TargetOptions target;
  uint64_t memory = 1 << 30;
  unsigned threads = 1;
  bool overwrite = false;
  bool allow_case_collisions = false;  // of names in the destination (plan_check.h)
  bool sync = true;
  bool dry_run = false;
};

// What the plan amounts to; a dry run ends with this.
struct PlanSummary {
  std::string format;
  uint64_t source_bytes = 0;
  size_t tensors = 0, parameters = 0, buffers = 0, left_out = 0;
  uint64_t parameter_elems = 0;
  size_t files = 0;
  uint64_t apparent_bytes = 0;  // the sum of file sizes
  uint64_t stored_bytes = 0;    // about what they take on disk
  uint64_t peak_memory = 0;     // of buffers: within the budget
  uint64_t free_bytes = 0;      // at the destination
  std::vector<std::string> notes;
};

struct Outcome {
  PlanSummary plan;
  std::string report;  // JSON; empty after a dry run
  double seconds = 0;
};

struct Callbacks {
  std::function<void(const PlanSummary&)> planned;              // before anything is written
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes, about five times a second
  std::function<void(const char* phase)> phase;                 // "sync"
};

Result<Outcome> convert(const Request& request, const plugin::Registry& registry, io::Os& os,
                        const std::atomic<bool>& cancelled, const Callbacks& callbacks);

}  // namespace crossdock::convert
