// SPDX-License-Identifier: Apache-2.0

// `crossdock commit` and `crossdock clean`: what becomes of a staging folder.
#include "core/io/leftovers.h"

#include "apps/command/convert_args.h"
#include "apps/crossdock/log.h"
#include "apps/crossdock/run_convert.h"
#include "apps/crossdock/verb.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"
#include "core/convert/plan_text.h"
#include "core/io/paths.h"
#include "core/io/small_file.h"

#include <fmt/format.h>
#include <boost/filesystem/operations.hpp>

#include <algorithm>

namespace crossdock::app {

namespace {

using Words = std::vector<std::string>;

constexpr uint64_t kMaxPlanBytes = uint64_t{1} << 30;

constexpr char kCommitHelp[] = R"(crossdock commit DST [options]
Publishes DST once all parts of `crossdock convert --part` are done, or says which files are missing.
It is harmless when DST is published already. Options: those of a run of convert, as
--overwrite, --verify, --memory, --threads, --no-sync, --report and --progress.
)";
constexpr char kCleanHelp[] = R"(crossdock clean DST
Removes DST.partial, the unfinished work of runs that were cancelled, killed or failed. Not while one
of them works: on this machine that is found out, on others it is not.
)";

bool wants_help(const Words& args) {
  return std::find(args.begin(), args.end(), "--help") != args.end() ||
         std::find(args.begin(), args.end(), "-h") != args.end();
}

// Nothing is to be published: it was, or something else is there.
int tell_published(const std::string& given, const io::fs::path& destination,
                   const Error& unfinished) {
  boost::system::error_code ec;
  if (io::fs::exists(io::partial_of(destination), ec)) return fail(unfinished);
  const auto report = io::published_report(destination);
  if (!report) return fail(unfinished);
  std::string flags;
  for (const std::string& word : report->arguments) flags += " " + word;
  fmt::print("{}: published already, of {}{}\n", base::printable(given),
             base::printable(report->source.given), base::printable(flags));
  return kDone;
}

// The command line of the conversion whose parts these are. What it says of the run is not taken
// from the file: that could name plugins to load, and files to write.
Result<Words> command_of(const io::fs::path& destination, const Words& args) {
  const io::fs::path partial = destination.string() + ".partial";
  const auto text = io::read_small_file((partial / "parts" / "plan").string(), kMaxPlanBytes);
  if (!text)
    return Error{XD_NOT_FOUND, cat("expected the work of crossdock convert --part in ",
                                   partial.string(), ", ", text.error().message, ": is ",
                                   destination.string(), " the DST of that command?")};
  const auto plan = convert::parse_plan(*text);
  if (!plan)
    return unsupported(
        cat(partial.string(), ": expected to publish it, found that ", plan.error().message));
  Words words{plan->source};
  words.insert(words.end(), args.begin(), args.end());
  const Words of_run = run_flags();
  for (const std::string& word : plan->arguments) {
    if (!word.starts_with("--"))
      return invalid(cat(partial.string(), ": expected flags in its plan, found ", word));
    const std::string name = word.substr(2, word.find('=') - 2);
    if (std::find(of_run.begin(), of_run.end(), name) == of_run.end()) words.push_back(word);
  }
  return words;
}

int run_commit(const Words& args) {
  if (wants_help(args)) {
    fmt::print("{}", kCommitHelp);
    return kDone;
  }
  const auto given = parse_run_words(args);
  if (!given) return usage_error(given.error().message, "commit");
  const auto destination = io::resolve_destination(*given);
  if (!destination) return usage_error(destination.error().message, "commit");
  const Session session = open_session(args, 64 << 20);
  session.warn_of_refusals();
  const auto words = command_of(*destination, args);
  if (!words) return tell_published(*given, *destination, words.error());
  auto parsed = parse_convert(*words, session);
  if (!parsed) return usage_error(parsed.error().message, "commit");
  parsed->request.shared = parsed->request.publish_only = true;
  return run_convert(*parsed, session);
}

int run_clean(const Words& args) {
  if (wants_help(args)) {
    fmt::print("{}", kCleanHelp);
    return kDone;
  }
  if (args.size() != 1) return usage_error("expected DST, and nothing else", "clean");
  const auto destination = io::resolve_destination(args[0]);
  if (!destination) return usage_error(destination.error().message, "clean");
  const auto cleared = io::clear_staging(io::Os::real(), *destination);
  if (!cleared) return fail(cleared.error());
  fmt::print("{}: {}\n", base::printable(args[0]),
             *cleared ? "the unfinished work is removed" : "no unfinished work is there");
  return kDone;
}

}  // namespace

constinit const Verb kCommit{
    "commit",    "DST",      "publish what several processes made (convert --part)",
    kCommitHelp, run_commit, run_options};
constinit const Verb kClean{"clean",    "DST",     "remove the work of a run that did not finish",
                            kCleanHelp, run_clean, nullptr};

}  // namespace crossdock::app
