// SPDX-License-Identifier: Apache-2.0
#include "apps/command/inspect_args.h"
#include "apps/crossdock/log.h"
#include "apps/crossdock/print_model.h"
#include "apps/crossdock/progress.h"
#include "apps/crossdock/verb.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"

#include <fmt/format.h>

namespace crossdock::app {

namespace {

void print(const InspectArgs& args, const Looked& looked) {
  const convert::TensorSource& tensors = *looked.opened.tensors;
  if (args.json) {
    fmt::print("{}", model_json(tensors, looked.values));
  } else if (args.tensors || args.stats || !looked.values.digests.empty()) {
    print_tensors(tensors.manifest(), looked.values);
  } else {
    print_summary(tensors);
  }
}

int run_verb(const std::vector<std::string>& args) {
  Session session = open_session(args, 1 << 30);
  session.warn_of_refusals();
  const auto parsed = parse_inspect(args, session);
  if (!parsed) return usage_error(parsed.error().message, "inspect");
  if (!parsed->help.empty()) {
    fmt::print("{}", parsed->help);
    return kDone;
  }
  const Progress::Style style = Progress::style_of(parsed->progress);
  Progress progress(style == Progress::Style::kPlain && parsed->json ? Progress::Style::kNone
                                                                     : style);
  const auto note = [](const std::string& text) {
    fmt::print(stderr, "note: {}\n", base::printable(text));
  };
  Looked looked;
  const auto result = look_at(
      session, *parsed, cancelled, note,
      [&progress](uint64_t done, uint64_t total) { progress.update(done, total); }, looked);
  progress.clear();
  if (!result) return fail(result.error());
  print(*parsed, looked);
  return kDone;
}

}  // namespace

constinit const Verb kInspect{
    "inspect",    "SRC",    "what a checkpoint holds; digests to compare two",
    kInspectHelp, run_verb, inspect_options};

}  // namespace crossdock::app
