// SPDX-License-Identifier: Apache-2.0
#include "core/convert/report.h"

#include <algorithm>

namespace crossdock::convert {

namespace {

report::Source source_of(const Prepared& prepared, SourceProof proof) {
  report::Source out;
  out.given = prepared.source->input().given();
  out.path = prepared.source->input().root().string();
  out.format = prepared.target.source.format;
  for (const auto& file : prepared.target.source.files)
    out.files.push_back({file.name, file.size, file.digest, ""});
  for (size_t i = 0; i < proof.rests.size(); ++i)
    out.files[i].rest_digest = std::move(proof.rests[i]);
  out.beside = std::move(proof.beside);
  return out;
}

report::Plugin plugin_of(const plugin::Plugin& plugin, const plugin::CheckedOptions& options) {
  report::Plugin out{plugin.id(), plugin.version(), {}};
  for (const auto& [key, value] : options.pairs()) out.options[key].push_back(value);
  return out;
}

// As the manifest's Role; what has none by now is a buffer (model/target.cc).
const char* role_of(const manifest::Tensor& t) {
  switch (t.role) {
    case manifest::Role::kParameter:
      return "parameter";
    case manifest::Role::kOptimizerState:
      return "optimizer_state";
    default:
      return "buffer";
  }
}

std::vector<report::Tensor> tensors_of(const Prepared& prepared, const plugin::Plan& plan,
                                       std::vector<std::string> digests) {
  std::vector<report::Tensor> out;
  for (const manifest::Tensor& t : prepared.target.tensors) {
    report::Tensor& one = out.emplace_back();
    one.name = t.name;
    one.target = t.target();
    one.role = role_of(t);
    one.dtype = manifest::name(t.dtype);
    one.shape = t.shape;
    one.digest = std::move(digests[out.size() - 1]);
    one.expression = t.expression;
    one.excluded = t.excluded;
  }
  // Which files a tensor went into is what the plan's items needed it for.
  for (const plugin::PlanItem& item : plan.items) {
    const std::string& path = plan.objects[item.object].path;
    for (const plugin::PlanNeed& need : item.needs) {
      auto& objects = out[need.tensor].objects;
      if (std::find(objects.begin(), objects.end(), path) == objects.end()) objects.push_back(path);
    }
  }
  for (const auto& [tensor, reason] : plan.excluded) out[tensor].excluded = reason;
  return out;
}

}  // namespace

std::vector<std::string> all_notes(const Session& session, const Outputs& outputs) {
  std::vector<std::string> out = session.notes.list();
  for (std::string& note : outputs.notes()) {
    if (std::find(out.begin(), out.end(), note) == out.end()) out.push_back(std::move(note));
  }
  return out;
}

report::Report make_report(const Session& session, const Prepared& prepared, const Planned& planned,
                           const Outputs& outputs, const std::string& plan_id,
                           std::vector<std::string> digests, SourceProof proof,
                           std::vector<std::pair<std::string, double>> timings) {
  report::Report out;
  out.crossdock = CROSSDOCK_VERSION;
  out.plan = plan_id;
  out.arguments = session.request.arguments;
  out.source = source_of(prepared, std::move(proof));
  out.reader = plugin_of(prepared.source->reader(), prepared.source->reader_options());
  out.writer = plugin_of(*prepared.writer, prepared.options);
  out.notes = all_notes(session, outputs);
  out.tensors = tensors_of(prepared, planned.plan, std::move(digests));
  out.files = outputs.files();
  out.timings = std::move(timings);
  return out;
}

}  // namespace crossdock::convert
