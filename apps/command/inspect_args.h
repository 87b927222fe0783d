// SPDX-License-Identifier: Apache-2.0

// `crossdock inspect`: its command line as a request, and what is looked at.
#pragma once

#include "apps/command/model_json.h"
#include "apps/command/session.h"
#include "core/verify/opened.h"

#include <atomic>
#include <functional>
#include <string>
#include <vector>

namespace crossdock::app {

inline constexpr char kInspectHelp[] = "crossdock inspect SRC: what a checkpoint holds\n\n";

struct InspectArgs {
  std::string source, manifest_path, digest;
  verify::OpenOptions open;
  bool json = false, tensors = false, stats = false;
  unsigned threads = 1;
  std::string progress;  // the word of --progress
  std::string help;      // what --help prints; the rest is then not set
};

// Errors: what is wrong with the words, as usage_error() prints it.
Result<InspectArgs> parse_inspect(const std::vector<std::string>& args, const Session& session);

struct Looked {
  verify::Opened opened;
  Values values;
};

// Opens the source, takes what was asked for of its values, and writes the manifest's file. `note`
// gets each note when it comes. The session outlives `out`.
Result<void> look_at(Session& session, const InspectArgs& args, const std::atomic<bool>& cancelled,
                     const std::function<void(const std::string&)>& note,
                     const std::function<void(uint64_t done, uint64_t total)>& progress,
                     Looked& out);

// The names of its own flags, which no plugin's option can have.
std::vector<std::string> inspect_flags();
std::vector<OptionGroup> inspect_options(const plugin::Registry& registry,
                                         const std::vector<const plugin::Plugin*>& writers);

}  // namespace crossdock::app
