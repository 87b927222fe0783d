// SPDX-License-Identifier: Apache-2.0
#include "core/convert/convert.h"

#include "core/base/text.h"
#include "core/convert/plan_text.h"
#include "core/convert/run.h"
#include "core/convert/share.h"
#include "core/io/leftovers.h"
#include "core/io/paths.h"
#include "core/io/publish.h"

#include <utility>

namespace crossdock::convert {

namespace {

// Of several processes that come and go one may find the folder removed, since all is done.
constexpr int kMaxTries = 10;

// Parts share whole files, so few large ones keep some of them idle.
void warn_of_uneven_parts(const Session& session, const Planned& planned) {
  constexpr double kUneven = 1.25;
  const Part& part = session.request.part;
  const double found = unevenness(planned.plan, part.count);
  if (part.index != 0 || found < kUneven || !session.callbacks.log) return;
  session.callbacks.log(
      XD_LOG_WARN,
      cat("the largest of ", part.count, " parts has ", static_cast<int>(found * 100 + 0.5),
          " % of an even share, for parts share whole files, of which there are ",
          planned.plan.objects.size(),
          ": more and smaller ones (--shard-size, --dcp-shards) or fewer parts are even"));
}

// Whether a folder is one that this plan made, and all its files are there.
bool is_made_by(const std::string& plan_id, const io::fs::path& folder) {
  const auto report = io::published_report(folder);
  return report && report->plan == plan_id;
}

}  // namespace

Result<Outcome> convert(const Request& request, const plugin::Registry& registry, io::Os& os,
                        const std::atomic<bool>& cancelled, const Callbacks& callbacks) {
  const Stopwatch whole;
  Session session(request, registry, os, cancelled, callbacks);
  XD_TRY_SET(Prepared prepared, prepare(session));
  XD_TRY_SET(const Planned planned, make_plan(session, prepared));
  Outcome outcome;
  outcome.plan = planned.summary;
  const double planned_after = whole.seconds();
  if (request.dry_run) {
    XD_TRY(io::check_destination(prepared.destination, request.overwrite));
    const std::vector<bool> all(planned.plan.objects.size() + planned.plan.aux.size(), true);
    outcome.forecast = forecast(session, prepared, planned, all, planned.summary.stored_bytes, {});
    return outcome;
  }

  XD_TRY_SET(const std::string text, plan_text(session, prepared, planned));
  XD_TRY_SET(const PlanText plan, parse_plan(text));
  warn_of_uneven_parts(session, planned);
  const io::StagingOptions options{
      .overwrite = request.overwrite,
      .shared = request.shared,
      .joins = request.publish_only,
      .restart = request.resume != Resume::kGoOn,
      .sync = request.sync,
      .plan = text,
      .difference = [&text](const std::string& theirs) { return plan_difference(theirs, text); }};
  for (int left = kMaxTries;; --left) {
    // Another process of ours may have found all files there before this one began.
    if (request.shared && is_made_by(plan.id, prepared.destination)) {
      io::clear_leftovers(os, prepared.destination, options.difference);
      outcome.published = true;
      return outcome;
    }
    // Or while it begins and works; then what it works in is gone.
    const auto may_try_again = [&](const Error& error) {
      return request.shared && left > 0 &&
             (error.code == XD_NOT_FOUND || is_made_by(plan.id, prepared.destination));
    };
    auto staging = io::Staging::open(os, prepared.destination, options);
    if (!staging && may_try_again(staging.error())) continue;
    if (!staging) return staging.error();
    Run run(session, prepared, planned, **staging, plan.id, outcome);
    auto done = run.run(planned_after);
    const bool has_missing = done && !outcome.published;
    if ((!done || has_missing) && (*staging)->is_published_by_others()) {
      outcome.published = true;
      outcome.report.clear();
    } else if (has_missing && request.shared && left > 0 &&
               is_made_by(plan.id, prepared.destination)) {
      continue;
    } else if (!done && !(*staging)->has_published() && may_try_again(done.error())) {
      continue;
    } else if (!done) {
      return run.leave(std::move(done).error());
    }
    outcome.seconds = whole.seconds();
    outcome.spent = session.activities.seconds();
    if (request.trace) outcome.trace = session.activities.trace_json();
    return outcome;
  }
}

}  // namespace crossdock::convert
