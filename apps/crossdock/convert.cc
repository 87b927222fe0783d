// SPDX-License-Identifier: Apache-2.0
#include "core/convert/convert.h"

#include "apps/command/verify_args.h"
#include "apps/crossdock/log.h"
#include "apps/crossdock/plugin_faults.h"
#include "apps/crossdock/progress.h"
#include "apps/crossdock/run_convert.h"
#include "apps/crossdock/verb.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"

#include <fmt/format.h>

#include <fstream>

namespace crossdock::app {

namespace {

std::string moments_text(const convert::PlanSummary& s) {
  return s.moments == 0 ? "" : fmt::format(", {} moments", s.moments);
}

void print_plan(const convert::Outcome& outcome, const convert::Request& r) {
  using base::human_bytes;
  const convert::PlanSummary& s = outcome.plan;
  const convert::Forecast& f = outcome.forecast;
  fmt::print("{}: {} in {} tensors, {} parameters ({} elements), {} buffers{}, {} left out\n",
             s.format, human_bytes(s.source_bytes), s.tensors, s.parameters,
             base::human_count(s.parameter_elems), s.buffers, moments_text(s), s.excluded);
  fmt::print("{}: {} files, about {} on disk ({} apparent), {} free; {} inodes\n", r.to, s.files,
             human_bytes(s.stored_bytes), human_bytes(s.apparent_bytes), human_bytes(f.free_bytes),
             f.inodes + 1);  // the report's
  fmt::print("memory: buffers of at most {} within the budget of {}, {} threads\n",
             base::human_memory(s.peak_memory), base::human_memory(r.memory), r.threads);
  if (f.seconds > 0)
    fmt::print("time: at least {} to read the source\n", base::human_seconds(f.seconds));
  if (const auto fits = convert::check_fits(f, r.destination); !fits)
    fmt::print("note: {}\n", fits.error().message);
}

// "time of 2 threads: read 1.2 s, digest 0.4 s, write 3.1 s, sync 2.0 s".
void print_times(const convert::Outcome& outcome, unsigned threads) {
  std::string text;
  for (size_t i = 0; i < base::kActivities; ++i) {
    if (outcome.spent[i] < 0.05) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", base::kActivityNames[i],
                        base::human_seconds(outcome.spent[i]));
  }
  if (!text.empty()) fmt::print("time of {} threads: {}\n", threads, text);
}

void print_notes(const convert::PlanSummary& s) {
  for (const std::string& note : s.notes) fmt::print("note: {}\n", base::printable(note));
}

Result<void> write_copy(const std::string& path, const std::string& text, const char* what) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  if (!out)
    return Error{XD_IO, cat("expected to write the ", what, " to ", path,
                            ", found it could not be written; DST is in place")};
  return {};
}

std::string part_text(const convert::Request& request) {
  return request.part.count == 1
             ? "its work"
             : fmt::format("part {}/{}", request.part.index, request.part.count);
}

// Of a run that found that others have still to make some files.
int tell_of_missing(const convert::Outcome& outcome, const convert::Request& request) {
  const size_t all = outcome.plan.files - 1;  // the report comes when all are there
  if (request.publish_only) {
    return fail({XD_NOT_FOUND,
                 cat("expected all ", all, " files of ", request.destination, " to be made, found ",
                     outcome.missing.size(), " missing: ", base::listed(outcome.missing, 3),
                     ": run the parts that make them again")});
  }
  fmt::print(
      "{}: {} is done, {} files, and {} were there; {} of {} are missing, so it is not "
      "published yet: the last part, or crossdock commit, does it\n",
      base::printable(request.destination), part_text(request), outcome.files_done,
      outcome.files_found, outcome.missing.size(), all);
  return kDone;
}

// Of a run that another process has saved from publishing.
int tell_of_others(const convert::Request& request) {
  fmt::print("{}: published by another process\n", base::printable(request.destination));
  return kDone;
}

}  // namespace

int run_convert(const ConvertArgs& args, const Session& session) {
  const convert::Request& request = args.request;
  set_log_level(args.log_level);
  const Progress::Style style = Progress::style_of(args.progress);
  Progress progress(style);
  convert::Callbacks callbacks;
  callbacks.progress = [&](uint64_t done, uint64_t total, uint64_t before) {
    progress.update(done, total, before);
  };
  callbacks.phase = [&](const char* name) { progress.phase(name); };
  callbacks.planned = [&](const convert::Forecast& f) {
    set_stage(Stage::kWriting);
    progress.planned(f);
  };
  callbacks.published = [] { set_stage(Stage::kPublished); };
  callbacks.written = [&](const convert::Written& w) { progress.written(w); };
  // A plugin's warnings are notes, which are printed in the end.
  callbacks.log = [&](int32_t level, const std::string& text) { progress.log(level, text); };
  if (args.verify) {
    callbacks.check = [&](const convert::Unpublished& made) {
      return check_made(made, cancelled, [&progress](uint64_t done, uint64_t total) {
        progress.update(done, total);
      });
    };
  }
  const auto outcome =
      convert::convert(request, session.registry(), io::Os::real(), cancelled, callbacks);
  if (!outcome) {
    const bool is_cancelled = outcome.error().code == XD_CANCELLED;
    progress.end(is_cancelled ? "cancelled" : "failed", outcome.error().message, {});
    if (style == Progress::Style::kJson) return is_cancelled ? kCancelled : kFailed;
    return fail(outcome.error());
  }
  progress.end("done", outcome->published || request.dry_run ? "" : "not published yet",
               outcome->plan.notes);
  if (!args.trace.empty() && !request.dry_run) {
    if (const auto r = write_copy(args.trace, outcome->trace, "trace"); !r) return fail(r.error());
  }
  if (request.dry_run) {
    print_plan(*outcome, request);
    print_notes(outcome->plan);
    fmt::print("dry run: nothing was written\n");
    return kDone;
  }
  if (!outcome->published) return tell_of_missing(*outcome, request);
  if (outcome->report.empty()) return tell_of_others(request);
  if (!args.report_copy.empty()) {
    if (const auto r = write_copy(args.report_copy, outcome->report, "report"); !r)
      return fail(r.error());
  }
  const convert::PlanSummary& s = outcome->plan;
  fmt::print(
      "{}: {} parameters, {} buffers{}, {} left out; {} files, {} on disk ({} apparent) in {}\n",
      base::printable(request.destination), s.parameters, s.buffers, moments_text(s), s.excluded,
      s.files, base::human_bytes(s.stored_bytes), base::human_bytes(s.apparent_bytes),
      base::human_seconds(outcome->seconds));
  print_times(*outcome, request.threads);
  print_notes(s);
  return kDone;
}

namespace {

int run_verb(const std::vector<std::string>& args) {
  const Session session = open_session(args, 64 << 20);
  session.warn_of_refusals();
  const auto parsed = parse_convert(args, session);
  if (!parsed) return usage_error(parsed.error().message, "convert");
  if (!parsed->help.empty()) {
    fmt::print("{}", parsed->help);
    return kDone;
  }
  return run_convert(*parsed, session);
}

}  // namespace

constinit const Verb kConvert{"convert",
                              "SRC DST --to FORMAT",
                              "convert a checkpoint; DST appears whole or not at all",
                              kConvertHelp,
                              run_verb,
                              convert_options};

}  // namespace crossdock::app
