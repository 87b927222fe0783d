// SPDX-License-Identifier: Apache-2.0
#include "apps/crossdock/print_model.h"

#include "core/base/text.h"
#include "core/model/check.h"
#include "core/model/rank_memory.h"
#include "core/model/value_text.h"

#include <fmt/format.h>

#include <map>
#include <set>

namespace crossdock::app {

namespace {

using base::human_bytes;
using base::human_count;
using manifest::Manifest;

// What the state of a training run is beside the parameters.
bool is_state(const manifest::Tensor& t) { return t.role == manifest::Role::kOptimizerState; }

void print_tensor_counts(const Manifest& m) {
  uint64_t elems = 0, bytes = 0, n_states = 0, state_bytes = 0;
  std::map<std::string_view, uint64_t> types;
  const std::set<uint64_t> other_names = model::other_names(m);
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    const auto& t = m.tensors[i];
    if (other_names.contains(i)) continue;
    if (is_state(t)) {
      ++n_states;
      state_bytes += model::value_bytes(t);
      continue;
    }
    elems += model::element_count(t);
    bytes += model::value_bytes(t);
    ++types[manifest::name(t.dtype)];
  }
  fmt::print("tensors     {}: {} elements, {}{}\n",
             m.tensors.size() - n_states - other_names.size(), elems, human_bytes(bytes),
             other_names.empty() ? ""
                                 : fmt::format("; {} tied name{} beside them", other_names.size(),
                                               other_names.size() == 1 ? "" : "s"));
  for (const auto& [type, count] : types) fmt::print("            {} x {}\n", count, type);
  if (n_states > 0) fmt::print("optimizer   {} moments, {}\n", n_states, human_bytes(state_bytes));
}

void print_group(const Manifest& m, size_t i) {
  const manifest::ParameterGroup& group = m.training.groups[i];
  uint64_t elems = 0;
  for (const uint64_t tensor : group.tensors) elems += model::element_count(m.tensors[tensor]);
  fmt::print("            group {}: {} parameters ({} elements)", i, group.tensors.size(),
             human_count(elems));
  for (const auto& [key, value] : group.hyper_parameters) {
    // The rest, such as foreach and fused, is how torch computes.
    for (const char* told : {"lr", "betas", "eps", "weight_decay", "momentum"}) {
      if (key == told) fmt::print(", {} {}", key, base::printable(model::value_text(value, 60)));
    }
  }
  fmt::print("\n");
}

void print_training(const Manifest& m) {
  if (!is_trained(m)) return;
  constexpr size_t kMaxGroups = 8;
  const auto& groups = m.training.groups;
  fmt::print("training    step {}{}{}, {} parameter group{}\n", m.training.step,
             m.training.optimizer.empty() ? "" : " of ", base::printable(m.training.optimizer),
             groups.size(), groups.size() == 1 ? "" : "s");
  for (size_t i = 0; i < groups.size() && i < kMaxGroups; ++i) print_group(m, i);
  if (groups.size() > kMaxGroups)
    fmt::print("            ... and {} more\n", groups.size() - kMaxGroups);
}

void print_rank_memory(const Manifest& m) {
  const auto memory = model::rank_memory(m);
  if (!memory) return;
  fmt::print(
      "per rank    {}: weights {}, gradients {}, optimizer {}; {}, {} data-parallel rank{}, "
      "without activations\n",
      human_bytes(memory->total()), human_bytes(memory->weights), human_bytes(memory->gradients),
      human_bytes(memory->optimizer),
      memory->zero_stage ? fmt::format("ZeRO stage {}", memory->zero_stage) : "FSDP",
      memory->n_ranks, memory->n_ranks == 1 ? "" : "s");
}

// "  min -0.5, max 0.75, mean 0.01, 3 NaN".
std::string statistics_text(const verify::Statistics& s) {
  if (!s.has_numbers) return "  no numbers to tell of";
  const std::string odd = s.oddity();
  return fmt::format("  min {:.6g}, max {:.6g}, mean {:.6g}{}{}", s.min, s.max, s.mean,
                     odd.empty() ? "" : ", ", odd);
}

void print_oddities(const Manifest& m, const std::vector<verify::Statistics>& statistics) {
  std::vector<std::string> odd;
  for (size_t i = 0; i < statistics.size(); ++i) {
    if (const std::string text = statistics[i].oddity(); !text.empty())
      odd.push_back(cat(m.tensors[i].target(), " (", text, ")"));
  }
  if (odd.empty()) {
    fmt::print("{} tensors: no NaN, no Inf, none constant\n", statistics.size());
  } else {
    fmt::print("suspicious: {} of {} tensors: {}\n", odd.size(), statistics.size(),
               base::listed(odd, 10));
  }
}

}  // namespace

void print_summary(const convert::TensorSource& tensors) {
  constexpr size_t kMaxFiles = 8;
  const convert::OpenModel& model = tensors.model();
  const Manifest& m = tensors.manifest();
  fmt::print("{}\n", model.input().root().string());
  fmt::print("format      {} (read by {})\n", m.source.format, model.reader().id());
  print_tensor_counts(m);
  print_training(m);
  print_rank_memory(m);
  fmt::print("files       {}\n", m.source.files.size());
  for (size_t i = 0; i < m.source.files.size() && i < kMaxFiles; ++i) {
    fmt::print("            {}  {}\n", base::printable(m.source.files[i].name),
               human_bytes(m.source.files[i].size));
  }
  if (m.source.files.size() > kMaxFiles)
    fmt::print("            ... and {} more\n", m.source.files.size() - kMaxFiles);
  for (const auto& entry : m.source.metadata)
    fmt::print("metadata    {} = {}\n", base::printable(entry.key), model::value_text(entry.value));
  for (const auto& file : m.aux_files) fmt::print("beside      {}\n", base::printable(file.name));
}

void print_tensors(const Manifest& m, const Values& values) {
  for (size_t i = 0; i < m.tensors.size(); ++i) {
    const auto& t = m.tensors[i];
    fmt::print("{}  {}  {}", base::printable(t.target()), manifest::name(t.dtype),
               base::list_text(t.shape));
    if (!values.digests.empty()) fmt::print("  {}", values.digests[i]);
    if (!values.statistics.empty()) fmt::print("{}", statistics_text(values.statistics[i]));
    if (!t.expression.empty()) fmt::print("  = {}", base::printable(t.expression));
    fmt::print("\n");
  }
  if (!values.statistics.empty()) print_oddities(m, values.statistics);
}

}  // namespace crossdock::app
