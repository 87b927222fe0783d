// SPDX-License-Identifier: Apache-2.0

// What a conversion is asked for. Its flags are the command's (apps/command/convert_args.cc).
#pragma once

#include "core/convert/part.h"
#include "core/model/target.h"
#include "core/plugin/options.h"
#include "core/rules/compose.h"
#include "core/rules/rule_set.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace crossdock::convert {

inline constexpr uint64_t kMinMemory = 8 << 20;

// What becomes of what an earlier run of the same left unfinished.
enum class Resume {
  kGoOn,     // it is gone on with; of another run's it is an error
  kRestart,  // it is cleared
  kOff,      // the same, and nothing is left for a later run
};

struct Request {
  std::string source;
  std::string destination;
  std::string config;  // where config.json and the tokenizer are taken from; empty: SRC
  std::string from = "auto";
  std::string to;
  plugin::GivenOptions reader_options;
  plugin::GivenOptions writer_options;
  rules::RuleFiles rules;
  bool keep_unmatched = false;         // tensors that no rule takes stay under their own names
  std::string dequant_dtype = "auto";  // of quantised weights: auto, bf16, fp16 or fp32
  std::optional<rules::Names> names;   // unset: as the writer's format has them
  model::TargetOptions target;
  uint64_t memory = 1 << 30;
  unsigned threads = 1;
  bool overwrite = false;
  bool allow_case_collisions = false;  // of names in the destination (plan_check.h)
  bool sync = true;
  bool dry_run = false;
  bool force = false;  // though the forecast says that it cannot fit
  bool trace = false;  // what happened when is kept, for the outcome
  Resume resume = Resume::kGoOn;
  double keep_after_seconds = 10;  // of work, which is kept then when the run fails or is cancelled
  Part part;                       // of the files, that this process makes
  bool shared = false;             // with other processes, which make the other parts
  bool publish_only = false;       // makes nothing: publishes what others have made
  // The flags that say what is made, as given, paths absolute: for the report, so that the same can
  // be asked for again. Nothing here depends on them.
  std::vector<std::string> arguments;
};

}  // namespace crossdock::convert
