#include "core/convert/convert.h"

#include "core/base/text.h"
#include "core/convert/plan_text.h"
#include "core/convert/report.h"
#include "core/convert/share.h"
#include "core/io/publish.h"
#include "core/io/small_file.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <variant>
#include <vector>

namespace crossdock::convert {

namespace {

// Between the ranks of a job each tensor has some leaves of 4 KiB that meet in two files: room for
// those of thousands of tensors.
constexpr uint64_t kMaxSeamBytes = 16 << 20;
// Of several processes that come and go one may find the folder removed, since all is done.
constexpr int kMaxTries = 10;

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// About what these tasks take on disk.
uint64_t bytes_of(const std::vector<Task>& tasks) {
  constexpr uint64_t kDiskBlock = 4096;
  uint64_t sum = 0;
  for (const Task& task : tasks) sum += kDiskBlock + (task.item ? task.item->out_bytes : 0);
  return sum;
}

uint64_t bytes_done(const plugin::Plan& plan, const Outputs& outputs,
                    const std::vector<bool>& wanted) {
  uint64_t sum = 0;
  for (const plugin::PlanItem& item : plan.items)
    sum += wanted[item.object] && outputs.is_done(item) ? item.out_bytes : 0;
  return sum;
}

// Else what was written may be of two models.
Result<void> check_source_unchanged(const Prepared& prepared) {
  const auto check = [&prepared](const std::string& name) -> Result<void> {
    const io::InputEntry* entry = prepared.source->input().find(name);
    return entry ? io::Input::check_unchanged(*entry) : Result<void>();
  };
  for (const auto& file : prepared.target.source.files) XD_TRY(check(file.name));
  for (const auto& file : prepared.target.aux_files) {
    if (const auto* name = std::get_if<std::string>(&file.content)) XD_TRY(check(*name));
  }
  return {};
}

// Every file under its very name, which a disk that ignores case may have lost, and no other.
Result<void> check_complete(io::Staging& staging, const Outputs& outputs) {
  XD_TRY_SET(auto placed, staging.placed());
  const auto lost = [&](const std::string& path, const std::string& found) {
    return Error{XD_IO, cat("expected ", staging.partial().string(), " to hold ", path,
                            " as it was written, found ", found,
                            ": remove it with crossdock clean, and begin anew")};
  };
  for (uint64_t file = 0; file < outputs.size(); ++file) {
    const auto it = placed.find(outputs.path(file));
    if (it == placed.end()) return lost(outputs.path(file), "no such file");
    if (it->second != outputs.bytes(file))
      return lost(outputs.path(file), cat(it->second, " bytes"));
    placed.erase(it);
  }
  placed.erase(io::kReportName);                // of a run that could not go on with publishing
  std::erase_if(placed, [](const auto& file) {  // NFS keeps removed files that are open so
    return io::fs::path(file.first).filename().string().starts_with(".nfs");
  });
  if (!placed.empty()) return lost("files of this conversion only", placed.begin()->first);
  return {};
}

// One run, once its plan is made.
class Run {
 public:
  Run(Session& session, Prepared& prepared, const Planned& planned, io::Staging& staging,
      std::string plan_id, Outcome& outcome)
      : session_(session),
        prepared_(prepared),
        planned_(planned),
        staging_(staging),
        plan_id_(std::move(plan_id)),
        outcome_(outcome),
        digests_(prepared.tensors->manifest(),
                 std::min(kMaxSeamBytes, session.request.memory / 16)),
        prover_(session, prepared),
        outputs_(staging, prepared, planned, digests_, prover_,
                 session.request.resume != Resume::kOff) {}

  // Writes what is to be written, and publishes if all is there then.
  Result<void> run(double planned_after);
  // What stays after this error, and what to tell of it.
  Error leave(Error error);

 private:
  Result<void> write();
  Result<void> look_ahead(const std::vector<Task>& tasks);
  Result<void> sync();
  Result<void> publish(double planned_after);
  void tell_phase(const char* phase) const {
    if (session_.callbacks.phase) session_.callbacks.phase(phase);
  }

  const Stopwatch writing_;
  Session& session_;
  Prepared& prepared_;
  const Planned& planned_;
  io::Staging& staging_;
  const std::string plan_id_;
  Outcome& outcome_;
  TensorDigests digests_;
  SourceProver prover_;
  Outputs outputs_;
};

// The first run looks at all that is to be written: other parts write beside it.
Result<void> Run::look_ahead(const std::vector<Task>& tasks) {
  if (tasks.empty()) return {};
  std::vector<bool> files(outputs_.size(), outcome_.files_found == 0);
  for (const Task& task : tasks) files[task.file] = true;
  outcome_.forecast =
      forecast(session_, prepared_, planned_, files,
               outcome_.files_found == 0 ? planned_.summary.stored_bytes : bytes_of(tasks),
               staging_.probe());
  if (!session_.request.force) XD_TRY(check_fits(outcome_.forecast, prepared_.destination));
  if (session_.callbacks.planned) session_.callbacks.planned(outcome_.forecast);
  return {};
}

Result<void> Run::write() {
  const Request& request = session_.request;
  const std::vector<bool> none(outputs_.size());
  const std::vector<bool> wanted =
      request.publish_only ? none : share_of(planned_.plan, request.part);
  XD_TRY_SET(const auto earlier, staging_.attempts());
  XD_TRY(outputs_.take(earlier, wanted));
  outcome_.files_found = outputs_.size() - outputs_.missing().size();
  if (outcome_.files_found > 0 && session_.callbacks.log)
    session_.callbacks.log(
        XD_LOG_INFO, cat("goes on with ", staging_.partial().string(), ": ", outcome_.files_found,
                         " of ", outputs_.size(), " files are there"));
  const auto tasks = tasks_of(planned_.plan, outputs_, wanted);
  XD_TRY(look_ahead(tasks));
  tell_phase("write");
  XD_TRY(execute(session_, prepared_, planned_, tasks, bytes_done(planned_.plan, outputs_, wanted),
                 outputs_, digests_));
  outcome_.files_done = outputs_.size() - outputs_.missing().size() - outcome_.files_found;
  if (auto r = check_source_unchanged(prepared_); !r) {
    XD_TRY(staging_.journal().withdraw());
    return r;
  }
  if (!request.shared) return {};
  // Others may rely on what the journal says from here on, whatever becomes of this machine.
  if (request.sync) XD_TRY(sync());
  XD_TRY_SET(const auto now, staging_.attempts());
  return outputs_.take(now, none);
}

Result<void> Run::sync() {
  tell_phase("sync");
  const base::Activities::OnThread counted(session_.activities, "sync", base::Activity::kSync);
  return staging_.sync();
}

Result<void> Run::publish(double planned_after) {
  const Request& request = session_.request;
  XD_TRY(check_complete(staging_, outputs_));
  tell_phase("digest");
  XD_TRY(digest_others(session_, prepared_, digests_));
  XD_TRY_SET(SourceProof proof, prover_.finish());
  const double written_after = writing_.seconds();
  XD_TRY(check_source_unchanged(prepared_));
  XD_TRY(planned_.writer.commit());
  outcome_.plan.notes = all_notes(session_, outputs_);
  const report::Report report =
      make_report(session_, prepared_, planned_, outputs_, plan_id_, digests_.texts(),
                  std::move(proof), {{"plan", planned_after}, {"write", written_after}});
  outcome_.report = report::to_json(report);
  if (session_.callbacks.check) {
    tell_phase("verify");
    XD_TRY(session_.callbacks.check({session_, prepared_, planned_, report, staging_.tree()}));
  }
  if (session_.cancelled) return Error{XD_CANCELLED, "cancelled"};
  if (request.sync) tell_phase("sync");
  const base::Activities::OnThread counted(session_.activities, "sync", base::Activity::kSync);
  XD_TRY(staging_.publish(outcome_.report));
  outcome_.published = true;
  return {};
}

Result<void> Run::run(double planned_after) {
  XD_TRY(write());
  const std::vector<uint64_t> missing = outputs_.missing();
  if (missing.empty()) return publish(planned_after);
  for (const uint64_t file : missing) outcome_.missing.push_back(outputs_.path(file));
  staging_.keep(true);
  return {};
}

Error Run::leave(Error error) {
  const Request& request = session_.request;
  const bool may_pass = error.code == XD_IO || error.code == XD_CANCELLED ||
                        error.code == XD_NO_MEMORY || error.code == XD_NOT_FOUND;
  const bool is_worth_it =
      writing_.seconds() >= request.keep_after_seconds || outcome_.files_found > 0;
  const bool stays = request.resume != Resume::kOff && may_pass && is_worth_it;
  staging_.keep(stays);
  if (stays && !request.publish_only)
    error.message += cat("; what is done is kept in ", staging_.partial().string(),
                         ": the same command goes on with it, crossdock clean removes it");
  return error;
}

// Whether a folder is one that this plan made.
bool is_made_by(const std::string& plan_id, const io::fs::path& folder) {
  const auto text = io::read_small_file((folder / io::kReportName).string(), UINT32_MAX);
  if (!text) return false;
  const auto report = report::from_json(*text);
  return report && report->plan == plan_id;
}

}  // namespace

Result<Outcome> convert(const Request& request, const plugin::Registry& registry, io::Os& os,
                        const std::atomic<bool>& cancelled, const Callbacks& callbacks) {
  const Stopwatch whole;
  Session session(request, registry, os, cancelled, callbacks);
  XD_TRY_SET(Prepared prepared, prepare(session));
  XD_TRY_SET(const Planned planned, make_plan(session, prepared));
  XD_TRY_SET(const std::string text, plan_text(session, prepared, planned));
  XD_TRY_SET(const PlanText plan, parse_plan(text));
  Outcome outcome;
  outcome.plan = planned.summary;
  const double planned_after = whole.seconds();
  if (request.dry_run) {
    XD_TRY(io::check_destination(prepared.destination, request.overwrite));
    const std::vector<bool> all(planned.plan.objects.size() + planned.plan.aux.size(), true);
    outcome.forecast = forecast(session, prepared, planned, all, planned.summary.stored_bytes, {});
    return outcome;
  }

  const io::StagingOptions options{
      .overwrite = request.overwrite,
      .shared = request.shared,
      .restart = request.resume != Resume::kGoOn,
      .sync = request.sync,
      .plan = text,
      .difference = [&text](const std::string& theirs) { return plan_difference(theirs, text); }};
  for (int left = kMaxTries;; --left) {
    // Another process of ours may have found all files there before this one began.
    if (request.shared && is_made_by(plan.id, prepared.destination)) {
      io::clear_leftovers(os, prepared.destination, options);
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
    if (!done && (*staging)->is_published_by_others()) {
      outcome.published = true;
      outcome.report.clear();
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
