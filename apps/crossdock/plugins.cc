// SPDX-License-Identifier: Apache-2.0
#include "apps/crossdock/log.h"
#include "apps/crossdock/verb.h"
#include "apps/crossdock/verbs.h"

#include <fmt/format.h>

#include <iostream>

namespace crossdock::app {

namespace {

constexpr char kHelp[] =
    "crossdock plugins [ID]: the plugins found, or one of them with its options\n\n";

void list(const plugin::Registry& registry) {
  for (const plugin::Plugin& p : registry.plugins()) {
    fmt::print("{:<6}  {:<12}  {:<34} {:<8} {}\n", p.is_reader() ? "reads" : "writes", p.format(),
               p.id(), p.desc.version, p.desc.summary);
  }
  if (registry.plugins().empty()) fmt::print("no plugins found\n");
  for (const plugin::Refusal& r : registry.refusals())
    fmt::print("not used: {}: {}\n", r.path.string(), r.reason);
}

void describe(const plugin::Plugin& p) {
  fmt::print("{} {}\n{}\n{} {}\nfrom {}\n", p.id(), p.desc.version, p.desc.summary,
             p.is_reader() ? "reads" : "writes", p.format(), p.path.string());
  for (const char* const* pattern = p.desc.patterns; pattern && *pattern; ++pattern)
    fmt::print("files: {}\n", *pattern);
  po::options_description flags("Options", kHelpWidth);
  add_flags(flags, p.desc.options);
  if (!flags.options().empty()) std::cout << '\n' << flags;
}

void add_options(po::options_description& options) {
  options.add_options()("help,h", "print this")  //
      ("plugin-path", po::value<std::vector<std::string>>()->value_name("DIR"),
       "look for plugins here first (repeatable)");
}

std::vector<OptionGroup> option_groups(const plugin::Registry&,
                                       const std::vector<const plugin::Plugin*>&) {
  const auto options = std::make_shared<po::options_description>();
  add_options(*options);
  return {{"Options", options}};
}

int run_verb(const std::vector<std::string>& args) {
  po::options_description options("Options", kHelpWidth);
  add_options(options);
  po::variables_map values;
  try {
    values = parse(args, options, {"id"});
  } catch (const po::error& e) {
    return usage_error(e.what(), "plugins");
  }
  if (values.count("help")) {
    std::cout << kHelp << options;
    return kDone;
  }
  const Session session = open_session(args, 64 << 20);
  if (!values.count("id")) {
    list(session.registry());
    return kDone;
  }
  const std::string id = values["id"].as<std::string>();
  for (const plugin::Plugin& p : session.registry().plugins()) {
    if (p.id() != id && p.format() != id) continue;
    describe(p);
    return kDone;
  }
  return fail(invalid(
      cat("expected a plugin's id or format, found ", id, ": `crossdock plugins` lists them")));
}

}  // namespace

constinit const Verb kPlugins{"plugins", "[ID]",   "the formats that can be read and written",
                              kHelp,     run_verb, option_groups};

}  // namespace crossdock::app
