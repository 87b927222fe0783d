// SPDX-License-Identifier: Apache-2.0
#include "apps/command/verify_args.h"
#include "apps/crossdock/log.h"
#include "apps/crossdock/progress.h"
#include "apps/crossdock/verb.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"

#include <fmt/format.h>

namespace crossdock::app {

namespace {

std::string counts_text(const verify::Verdict& v) {
  return fmt::format("{} file{}, {}", v.n_files, v.n_files == 1 ? "" : "s",
                     base::human_bytes(v.n_bytes));
}

int print(const Checked& checked) {
  const verify::Verdict& v = checked.verdict;
  for (const std::string& problem : v.problems) fmt::print("{}\n", base::printable(problem));
  if (v.n_problems > v.problems.size())
    fmt::print("... and {} more\n", v.n_problems - v.problems.size());
  for (const std::string& note : v.notes) fmt::print("note: {}\n", base::printable(note));
  const std::string what = base::printable(checked.what);
  if (v.is_good()) {
    fmt::print("{}: {} ({})\n", what, checked.good, counts_text(v));
    return kDone;
  }
  fmt::print("{}: {} problem{} ({})\n", what, v.n_problems, v.n_problems == 1 ? "" : "s",
             counts_text(v));
  return kFailed;
}

int run_verb(const std::vector<std::string>& args) {
  const auto parsed = parse_verify(args);
  if (!parsed) return usage_error(parsed.error().message, "verify");
  if (!parsed->help.empty()) {
    fmt::print("{}", parsed->help);
    return kDone;
  }
  const Session session = open_session(args, 64 << 20);
  session.warn_of_refusals();
  Progress progress(Progress::style_of(parsed->progress));
  const auto checked =
      check(*parsed, session, cancelled,
            [&progress](uint64_t done, uint64_t total) { progress.update(done, total); });
  progress.clear();
  return checked ? print(*checked) : fail(checked.error());
}

}  // namespace

constinit const Verb kVerify{
    "verify",    "DST",    "whether a folder is as it was written; --against SRC compares values",
    kVerifyHelp, run_verb, verify_options};

}  // namespace crossdock::app
