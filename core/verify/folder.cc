// SPDX-License-Identifier: Apache-2.0
#include "core/verify/folder.h"

#include "core/base/text.h"
#include "core/io/paths.h"
#include "core/verify/source.h"
#include "core/verify/values.h"

#include <boost/filesystem/operations.hpp>

#include <set>
#include <unordered_map>

namespace crossdock::verify {

using manifest::Tensor;

namespace {

constexpr uint64_t kMaxReportBytes = uint64_t{4} << 30;  // of a model with millions of tensors

Result<void> check_listed(const Reading& reading, const fs::path& folder,
                          const report::Report& report, Depth depth, Findings& findings) {
  std::vector<ExpectedFile> files;
  for (const report::File& file : report.files) {
    if (!is_safe_name(file.path)) {
      findings.problem(cat(base::printable(file.path),
                           ": expected a plain relative path in the report, found this"));
      continue;
    }
    files.push_back(
        {file.path, folder / file.path, file.size, depth == Depth::kFull ? file.digest : ""});
  }
  return check_files(reading, files, findings);
}

// What lies in the folder and is not of the conversion. It may be a job's own, so it is no problem.
void note_others(const fs::path& folder, const report::Report& report, Findings& findings) {
  const auto present = io::names_in(folder);
  if (!present) return findings.note(present.error().message);
  std::set<std::string> listed{io::kReportName};
  for (const report::File& file : report.files) listed.insert(file.path);
  std::vector<std::string> others;
  for (const std::string& name : *present) {
    if (name.ends_with('/') || listed.contains(name)) continue;
    others.push_back(name);
  }
  if (others.empty()) return;
  findings.note(cat(others.size(), others.size() == 1 ? " file is" : " files are",
                    " there that the report does not list: ", base::listed(others), "."));
}

// Whether the reader finds what the report says was written.
void check_tensors(const Opened& written, const report::Report& report, Findings& findings) {
  std::unordered_map<std::string_view, const Tensor*> there;
  for (const Tensor& t : written.manifest().tensors) there.emplace(t.target(), &t);
  for (const report::Tensor& t : report.tensors) {
    if (!t.excluded.empty()) continue;
    const auto it = there.find(t.target);
    const std::string place = cat("tensor \"", base::printable(t.target), "\": ");
    if (it == there.end()) {
      findings.problem(cat(place, "expected it in the folder, which its reader opens, found none"));
    } else if (!is_shape_of(it->second->shape, t.shape)) {
      findings.problem(cat(place, "expected the shape ", base::list_text(t.shape), ", found ",
                           base::list_text(it->second->shape)));
    }
  }
}

// Nothing when it does not open, which is a problem of the folder's.
Result<std::optional<Opened>> open_written(const Reading& reading, const plugin::Registry& registry,
                                           const OpenOptions& options, const fs::path& folder,
                                           Findings& findings) {
  auto opened = open_checkpoint(registry, reading.os, reading.memory, reading.cancelled,
                                folder.string(), options);
  if (opened) return std::optional<Opened>(std::move(*opened));
  if (opened.error().code == XD_CANCELLED || opened.error().code == XD_NO_MEMORY)
    return std::move(opened).error();
  findings.problem(
      cat("expected a checkpoint that its reader opens, found: ", opened.error().message));
  return std::optional<Opened>();
}

// Of a run that goes on.
void check_step(const manifest::Manifest& target, const manifest::Manifest& written,
                Findings& findings) {
  if (target.training.moments.empty() || target.training.step == written.training.step) return;
  findings.problem(cat("expected the state of step ", target.training.step, ", found that of step ",
                       written.training.step));
}

// What a reader may have passed over.
void check_reads(const plugin::Host& host, Findings& findings) {
  if (const auto error = host.failed_read()) findings.problem(error->message);
}

Verdict finished(const Findings& findings, const report::Report& report, uint64_t n_tensors) {
  Verdict out = findings.verdict();
  out.n_files = report.files.size();
  for (const report::File& file : report.files) out.n_bytes += file.size;
  out.n_tensors = n_tensors;
  return out;
}

}  // namespace

Result<report::Report> read_report(io::Os& os, const fs::path& folder) {
  const fs::path path = folder / io::kReportName;
  XD_TRY_SET(const std::string text, read_file(os, path, kMaxReportBytes));
  auto report = report::from_json(text);
  return report ? std::move(report) : std::move(report).error().in(path.string());
}

Result<Verdict> verify_folder(const Reading& reading, const plugin::Registry& registry,
                              const OpenOptions& open, const fs::path& folder,
                              const report::Report& report, Depth depth) {
  Findings findings;
  XD_TRY(check_listed(reading, folder, report, depth, findings));
  note_others(folder, report, findings);
  XD_TRY_SET(const auto written, open_written(reading, registry, open, folder, findings));
  if (written) {
    check_tensors(*written, report, findings);
    check_reads(*written->host, findings);
  }
  return finished(findings, report, report.tensors.size());
}

Result<void> check_written(const Reading& reading, const Made& made, const fs::path& folder) {
  XD_TRY_SET(const Verdict verdict, verify_against(reading, made, folder, Depth::kFull));
  if (verdict.is_good()) return {};
  return corrupt(cat(
      "expected what was written to be what was read, found ", verdict.n_problems,
      verdict.n_problems == 1 ? " problem: " : " problems, the first: ", verdict.problems.front(),
      ": nothing is published; look at the memory and disks of this machine"));
}

Result<Verdict> verify_against(const Reading& reading, const Made& made, const fs::path& folder,
                               Depth depth) {
  Findings findings;
  XD_TRY(check_listed(reading, folder, made.report, depth, findings));
  note_others(folder, made.report, findings);
  const convert::Request& request = made.session.request;
  OpenOptions open;
  open.rules = request.rules;
  open.writer_caps = made.prepared.writer->desc.caps;
  XD_TRY_SET(const auto written,
             open_written(reading, made.session.registry, open, folder, findings));
  uint64_t n_tensors = 0;
  if (written) {
    check_step(made.prepared.target, written->manifest(), findings);
    XD_TRY_SET(n_tensors, compare_values(made, *written, reading.progress, findings));
    check_reads(*written->host, findings);
  }
  XD_TRY(compare_source(made, findings));
  check_reads(made.session.host, findings);
  return finished(findings, made.report, n_tensors);
}

}  // namespace crossdock::verify
