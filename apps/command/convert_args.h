// SPDX-License-Identifier: Apache-2.0

// The command line of `crossdock convert`, as a request. Other verbs read such words too: those
// that a report has kept.
#pragma once

#include "apps/command/session.h"
#include "core/convert/request.h"

#include <string>
#include <vector>

namespace crossdock::app {

struct ConvertArgs {
  convert::Request request;
  std::string progress, log_level;  // words of --progress and --log-level
  std::string report_copy;          // where the report is written too; empty: nowhere
  bool verify = false;              // what was written is read again, before it appears
  std::string trace;                // where the trace is written; empty: nowhere
  std::string help;                 // what --help prints; the rest is then not set
};

inline constexpr char kConvertHelp[] =
    R"(crossdock convert SRC DST --to FORMAT [options]
SRC: a folder, a file or an index of shards (known by its first bytes, whatever its name), or
org/name of the local Hugging Face cache. DST: a folder to make.
)";
std::vector<OptionGroup> convert_options(const plugin::Registry& registry,
                                         const std::vector<const plugin::Plugin*>& writers);

// Those of the flags that other verbs take too which run a conversion.
std::vector<OptionGroup> run_options(const plugin::Registry& registry,
                                     const std::vector<const plugin::Plugin*>& writers);

// The names of its own flags, which no plugin's option can have.
std::vector<std::string> convert_flags();
// The names of the flags that make no difference to the result, and are not in a report.
std::vector<std::string> run_flags();

// Of another verb that takes DST and flags of a run: DST. Errors: what is wrong with the words.
Result<std::string> parse_run_words(const std::vector<std::string>& args);

// Errors: what is wrong with the words, as usage_error() prints it.
Result<ConvertArgs> parse_convert(const std::vector<std::string>& args, const Session& session);

}  // namespace crossdock::app
