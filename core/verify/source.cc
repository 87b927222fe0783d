// SPDX-License-Identifier: Apache-2.0
#include "core/verify/source.h"

#include "core/base/text.h"
#include "core/convert/source_proof.h"

#include <map>
#include <unordered_map>

namespace crossdock::verify {

namespace {

using manifest::Tensor;

std::string quoted(const std::string& name) { return cat("tensor \"", base::printable(name), '"'); }

// What differs between a tensor of the source and the report's word on it; empty: nothing.
std::string difference(const Tensor& t, bool is_excluded, const report::Tensor& known) {
  const auto text = [](const auto& expected, const auto& found, const char* what) {
    return cat("expected ", what, " ", expected, " as converted, found ", found);
  };
  if (manifest::name(t.dtype) != known.dtype)
    return text(known.dtype, manifest::name(t.dtype), "the type");
  if (t.shape != known.shape)
    return text(base::list_text(known.shape), base::list_text(t.shape), "the shape");
  if (t.target() != known.target) return text(known.target, t.target(), "the job's name");
  if (is_excluded != !known.excluded.empty())
    return is_excluded ? "expected it written, as the report says, found that it is left out now"
                       : "expected it left out, as the report says, found that it is written now";
  if (t.expression != known.expression)
    return text(known.expression.empty() ? "its own values" : known.expression,
                t.expression.empty() ? "its own values" : t.expression, "it made of");
  return "";
}

void compare_tensors(const Made& made, Findings& findings) {
  std::unordered_map<std::string_view, const report::Tensor*> known;
  for (const report::Tensor& t : made.report.tensors) known.emplace(t.name, &t);
  const auto& tensors = made.prepared.target.tensors;
  std::vector<bool> is_excluded(tensors.size());
  for (const auto& [tensor, reason] : made.planned.plan.excluded) is_excluded[tensor] = true;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& t = tensors[i];
    const auto it = known.find(t.name);
    if (it == known.end()) {
      findings.problem(cat(quoted(t.name),
                           ": expected only tensors that the report lists, found "
                           "this one in the source too"));
      continue;
    }
    if (const std::string text = difference(t, is_excluded[i] || !t.excluded.empty(), *it->second);
        !text.empty())
      findings.problem(cat(quoted(t.name), " of the source: ", base::printable(text)));
    known.erase(it);
  }
  for (const auto& [name, t] : known)
    findings.problem(cat(quoted(t->name), ": expected it in the source, found none"));
  findings.settle();
}

using Files = std::map<std::string, report::SourceFile>;

Files by_name(const std::vector<report::SourceFile>& files) {
  Files out;
  for (const report::SourceFile& file : files) out.emplace(file.name, file);
  return out;
}

// `found`: those of the source now.
void compare_files(const Files& known, Files found, const char* what, Findings& findings) {
  // A file that was named as SRC may be called otherwise today.
  if (known.size() == 1 && found.size() == 1) {
    auto only = found.extract(found.begin());
    only.key() = known.begin()->first;
    found.insert(std::move(only));
  }
  for (const auto& [name, file] : known) {
    const auto it = found.find(name);
    const std::string place = cat(base::printable(name), " of the source: ");
    if (it == found.end()) {
      findings.problem(cat(place, "expected this file, which was read, found that it is not"));
    } else if (it->second.size != file.size) {
      findings.problem(cat(place, "expected ", file.size, " bytes, found ", it->second.size));
    } else if (file.rest_digest.empty()) {
      findings.note("The report has no digests of what the source's files hold beside values.");
    } else if (it->second.rest_digest != file.rest_digest) {
      findings.problem(cat(place, "expected ", file.rest_digest, " of ", what, ", found ",
                           it->second.rest_digest, ": it was changed"));
    }
  }
}

// Files that the host copies are in the destination as they are in the source.
void compare_copies(const Made& made, const Files& beside, Findings& findings) {
  for (const auto& [path, aux] : made.planned.plan.aux) {
    const manifest::AuxFile& file = made.prepared.target.aux_files[aux];
    const auto* name = std::get_if<std::string>(&file.content);
    const auto source = name ? beside.find(*name) : beside.end();
    if (source == beside.end()) continue;
    for (const report::File& written : made.report.files) {
      if (written.path != path || written.digest == source->second.rest_digest) continue;
      findings.problem(cat(base::printable(path), ": expected a copy of the source's ",
                           base::printable(*name), ", found other bytes"));
    }
  }
}

}  // namespace

Result<void> compare_source(const Made& made, Findings& findings) {
  compare_tensors(made, findings);
  XD_TRY_SET(convert::SourceProof proof,
             convert::SourceProver(made.session, made.prepared).finish());
  std::vector<report::SourceFile> weights;
  const auto& files = made.prepared.target.source.files;
  for (size_t i = 0; i < files.size(); ++i)
    weights.push_back({files[i].name, files[i].size, "", proof.rests[i]});
  const Files beside = by_name(proof.beside);
  compare_files(by_name(made.report.source.files), by_name(weights),
                "what the file holds beside values", findings);
  compare_files(by_name(made.report.source.beside), beside, "its bytes", findings);
  compare_copies(made, beside, findings);
  return {};
}

}  // namespace crossdock::verify
