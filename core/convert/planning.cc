// SPDX-License-Identifier: Apache-2.0
#include "core/convert/planning.h"

#include "core/convert/plan_check.h"
#include "core/io/tree_digest.h"
#include "core/model/check.h"

#include <algorithm>
#include <span>
#include <utility>

namespace crossdock::convert {

namespace {

constexpr uint64_t kMaxConfigBytes = 64 << 20;

// The text of config.json, of which a writer may have to change a word: it sees no other file.
Result<void> add_config_text(const Prepared& prepared, std::vector<manifest::AuxFile>& files) {
  for (manifest::AuxFile& file : files) {
    const uint64_t size = prepared.source->aux_size(file);
    if (file.kind != manifest::AuxKind::kConfig || size > kMaxConfigBytes) continue;
    std::string text(size, '\0');
    XD_TRY(prepared.source->read_aux(file, 0, std::as_writable_bytes(std::span(text))));
    file.content = manifest::Bytes{std::move(text)};
  }
  return {};
}

// Without the source's path, for what a writer makes must not depend on how it was spelled. With
// the source's metadata, which are not kept beyond it: a vocabulary takes tens of megabytes.
Result<std::string> encode(Prepared& prepared) {
  auto aux_files = prepared.target.aux_files;
  XD_TRY(add_config_text(prepared, aux_files));
  std::swap(prepared.target.aux_files, aux_files);
  prepared.target.source.metadata = std::exchange(prepared.metadata, {});
  auto provenance = prepared.target.provenance;
  for (manifest::Provenance& step : prepared.target.provenance) step.input.clear();
  std::string bytes = manifest::encode(prepared.target);
  prepared.target.provenance = std::move(provenance);
  prepared.target.source.metadata = {};
  std::swap(prepared.target.aux_files, aux_files);
  return bytes;
}

void count_tensors(const Prepared& prepared, const plugin::Plan& plan, PlanSummary& s) {
  const auto& tensors = prepared.target.tensors;
  std::vector<bool> excluded(tensors.size());
  for (const auto& [tensor, reason] : plan.excluded) excluded[tensor] = true;
  s.tensors = tensors.size();
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].excluded.empty() || excluded[i]) {
      ++s.excluded;
    } else if (tensors[i].role == manifest::Role::kParameter) {
      ++s.parameters;
      s.parameter_elems += model::element_count(tensors[i]);
    } else if (tensors[i].role == manifest::Role::kOptimizerState) {
      ++s.moments;
    } else {
      ++s.buffers;
    }
  }
}

void count_bytes(const Prepared& prepared, const plugin::Plan& plan, PlanSummary& s) {
  for (const auto& file : prepared.target.source.files) s.source_bytes += file.size;
  s.files = plan.objects.size() + plan.aux.size() + 1;  // the report is one
  s.stored_bytes = stored_bytes(plan);
  for (const auto& object : plan.objects) s.apparent_bytes += object.size;
  for (const auto& [path, aux] : plan.aux) {
    const uint64_t size = prepared.source->aux_size(prepared.target.aux_files[aux]);
    s.apparent_bytes += size;
    s.stored_bytes += size;
  }
}

PlanSummary summarise(const Session& session, const Prepared& prepared, const Planned& planned) {
  const Request& request = session.request;
  PlanSummary s;
  s.format = prepared.target.source.format;
  count_tensors(prepared, planned.plan, s);
  count_bytes(prepared, planned.plan, s);
  uint64_t largest = 0;
  for (const plugin::PlanItem& item : planned.plan.items)
    largest = std::max(largest, item.memory + planned.reading_bytes);
  s.peak_memory = std::min(largest * request.threads, request.memory);
  s.notes = session.notes.list();
  return s;
}

}  // namespace

Result<Planned> make_plan(Session& session, Prepared& prepared) {
  session.host.set_piece_bytes(std::min<uint64_t>(session.window_bytes() / 2, 1 << 20));
  XD_TRY_SET(const std::string model, encode(prepared));
  XD_TRY_SET(OpenWriter writer,
             OpenWriter::open(session.host, *prepared.writer, model, prepared.options));
  XD_TRY_SET(plugin::Plan plan, writer.plan(prepared.target.tensors.size()));
  session.notes.add(plan.notes);
  Planned out{std::move(writer),
              std::move(plan),
              session.window_bytes() + prepared.tensors->scratch_bytes(),
              {},
              io::tree_digest_of(model)};
  std::vector<std::string> notes;
  const Request& request = session.request;
  const PlanLimits limits{request.memory, out.reading_bytes, request.allow_case_collisions};
  if (auto holds = check_plan(out.plan, prepared.target, limits, notes); !holds)
    return plugin::named(std::move(holds).error(), out.writer.spec("plan"));
  session.notes.add(std::move(notes));
  out.summary = summarise(session, prepared, out);
  return out;
}

}  // namespace crossdock::convert
