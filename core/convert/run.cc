// SPDX-License-Identifier: Apache-2.0
#include "core/convert/run.h"

#include "core/base/text.h"
#include "core/convert/report.h"
#include "core/convert/share.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace crossdock::convert {

namespace {

// About what these tasks take on disk.
uint64_t bytes_of(const std::vector<Task>& tasks) {
  constexpr uint64_t kDiskBlock = 4096;
  uint64_t sum = 0;
  for (const Task& task : tasks) sum += kDiskBlock + out_bytes(task);
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
    return Error{XD_IO, cat("expected ", staging.tree().string(), " to hold ", path,
                            " as it was written, found ", found)};
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
  if (placed.empty()) return {};
  return Error{XD_IO, cat("expected ", staging.tree().string(),
                          " to hold files of this conversion only, found ", placed.begin()->first,
                          ": remove it, or begin anew with --restart")};
}

}  // namespace

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
  goes_on_ = !earlier.empty();  // as far as is known yet
  XD_TRY(outputs_.take(earlier, wanted));
  outcome_.files_found = outputs_.size() - outputs_.missing().size();
  if (outcome_.files_found > 0 && session_.callbacks.log)
    session_.callbacks.log(
        XD_LOG_INFO, cat("goes on with ", staging_.partial().string(), ": ", outcome_.files_found,
                         " of ", outputs_.size(), " files are there"));
  const auto tasks = tasks_of(planned_.plan, *prepared_.tensors, outputs_, wanted);
  XD_TRY(look_ahead(tasks));
  tell_phase("write");
  const uint64_t before = bytes_done(planned_.plan, outputs_, wanted);
  goes_on_ = outcome_.files_found > 0 || before > 0;
  XD_TRY(execute(session_, prepared_, planned_, tasks, before, outputs_, digests_));
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

namespace {
// Of tensors that a reader says share their storage one is written: the others must hold the same.
// Those that rules have made are not the reader's any more.
Result<void> check_aliases(const Prepared& prepared, const std::vector<std::string>& digests) {
  const manifest::Manifest& m = prepared.target;
  for (const manifest::AliasGroup& group : m.alias_groups) {
    for (const uint64_t i : group.tensors) {
      const bool are_stored =
          m.tensors[i].expression.empty() && m.tensors[group.tensors[0]].expression.empty();
      if (!are_stored || digests[i] == digests[group.tensors[0]]) continue;
      return Error{XD_INTERNAL, cat("expected the same values in ",
                                    base::printable(m.tensors[group.tensors[0]].name), " and ",
                                    base::printable(m.tensors[i].name),
                                    ", which share their storage, found others [",
                                    prepared.source->reader().id(), ": read]")};
    }
  }
  return {};
}
}  // namespace

Result<void> Run::publish(double planned_after) {
  const Request& request = session_.request;
  XD_TRY(check_complete(staging_, outputs_));
  tell_phase("digest");
  XD_TRY(digest_others(session_, prepared_, digests_));
  XD_TRY(check_aliases(prepared_, digests_.texts()));
  XD_TRY_SET(SourceProof proof, prover_.finish());
  const double written_after = writing_.seconds();
  XD_TRY(check_source_unchanged(prepared_));
  XD_TRY(planned_.writer.commit());
  XD_TRY(check_complete(staging_, outputs_));  // whatever the writer did to the files
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
  if (session_.callbacks.published) session_.callbacks.published();
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
  // What a part has finished stays in any case: others may rely on it.
  const bool is_relied_on =
      request.shared && outputs_.missing().size() + outcome_.files_found < outputs_.size();
  const bool is_worth_it =
      writing_.seconds() >= request.keep_after_seconds || goes_on_ || is_relied_on;
  const bool stays = request.resume != Resume::kOff && may_pass && is_worth_it;
  staging_.keep(stays);
  if (stays && !request.publish_only)
    error.message += cat("; what is done is kept in ", staging_.partial().string(),
                         ": the same command goes on with it, crossdock clean removes it");
  return error;
}

}  // namespace crossdock::convert
