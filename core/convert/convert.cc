#include "core/convert/convert.h"

#include "core/base/text.h"
#include "core/convert/report.h"

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

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Result<void> check_space(const Prepared& prepared, const PlanSummary& s) {
  if (s.stored_bytes <= s.free_bytes) return {};
  return Error{XD_IO, cat("expected ", base::human_bytes(s.stored_bytes), " free for ",
                          prepared.destination.string(), ", found ",
                          base::human_bytes(s.free_bytes), ": free some, or choose another disk")};
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

}  // namespace

Result<Outcome> convert(const Request& request, const plugin::Registry& registry, io::Os& os,
                        const std::atomic<bool>& cancelled, const Callbacks& callbacks) {
  const Stopwatch whole;
  Session session(request, registry, os, cancelled);
  XD_TRY_SET(Prepared prepared, prepare(session));
  XD_TRY_SET(const Planned planned, make_plan(session, prepared));
  Outcome outcome;
  outcome.plan = planned.summary;
  const double planned_after = whole.seconds();
  if (callbacks.planned) callbacks.planned(outcome.plan);
  if (request.dry_run) {
    XD_TRY(io::check_destination(prepared.destination, request.overwrite));
    return outcome;
  }

  XD_TRY_SET(auto staging, io::Staging::open(os, prepared.destination, request.overwrite));
  XD_TRY(check_space(prepared, outcome.plan));
  const Stopwatch writing;
  Outputs outputs(*staging, planned);
  TensorDigests digests(prepared.tensors->manifest(), std::min(kMaxSeamBytes, request.memory / 16));
  XD_TRY(execute(session, prepared, planned, all_tasks(planned.plan), outputs, digests,
                 callbacks.progress));
  XD_TRY(digest_others(session, prepared, digests));
  XD_TRY(copy_aux_files(session, prepared, planned, outputs));
  XD_TRY_SET(SourceProof proof, prove_source(session, prepared));
  const double written_after = writing.seconds();
  XD_TRY(check_source_unchanged(prepared));
  XD_TRY(planned.writer.commit());

  outcome.plan.notes = session.notes.list();
  outcome.report = report::to_json(
      make_report(session, prepared, planned, outputs, digests.texts(), std::move(proof),
                  {{"plan", planned_after}, {"write", written_after}}));
  if (callbacks.phase && request.sync) callbacks.phase("sync");
  if (cancelled) return Error{XD_CANCELLED, "cancelled"};
  XD_TRY(staging->commit(outcome.report, request.sync));
  outcome.seconds = whole.seconds();
  return outcome;
}

}  // namespace crossdock::convert
