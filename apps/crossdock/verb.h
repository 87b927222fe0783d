// SPDX-License-Identifier: Apache-2.0

// A verb of the command. Its --help, the manual page and what shells complete are made of the same
// texts and tables of options.
#pragma once

#include "apps/command/session.h"

#include <span>
#include <string>
#include <vector>

namespace crossdock::app {

struct Verb {
  const char* name;
  const char* arguments;  // "SRC DST --to FORMAT"
  const char* summary;    // of one line
  const char* text;       // what --help says before the options; it begins with how it is called
  int (*run)(const std::vector<std::string>& args);
  // To be looked at, not to parse with: the variables that they are bound to are gone. `writers`:
  // those whose options are wanted too. May be null: the verb has none.
  std::vector<OptionGroup> (*options)(const plugin::Registry& registry,
                                      const std::vector<const plugin::Plugin*>& writers);
};

extern const Verb kConvert, kInspect, kVerify, kDiff, kCommit, kClean, kPlugins, kCompletion;
// In the order of the help.
std::span<const Verb* const> verbs();

// "FORMAT" of "FORMAT (=auto)", and "auto"; empty: a switch, without a default.
struct Value {
  std::string name, fallback;
};
Value value_of(const po::option_description& option);

// The manual page, as roff: `crossdock man`, which the build calls.
int man(const std::vector<std::string>& args);

}  // namespace crossdock::app
