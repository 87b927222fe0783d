// SPDX-License-Identifier: Apache-2.0
#include "core/model/describe.h"

#include "core/base/text.h"
#include "core/io/small_file.h"
#include "core/model/check.h"
#include "core/model/target.h"

#include <algorithm>

namespace crossdock::model {

using manifest::Manifest;
using manifest::Tensor;

namespace {

constexpr uint64_t kMaxDescriptionBytes = 256 << 20;

// For each name of the description that is tied to an earlier one: that one, by index.
std::vector<uint64_t> kept_names(const Manifest& description) {
  std::vector<uint64_t> out(description.tensors.size());
  for (uint64_t i = 0; i < out.size(); ++i) out[i] = i;
  for (const manifest::AliasGroup& group : description.alias_groups) {
    for (const uint64_t i : group.tensors) out[i] = group.tensors[0];
  }
  return out;
}

constexpr uint64_t kNone = UINT64_MAX;

// The tensor of the model for each name of the description.
std::vector<uint64_t> match(const Manifest& description, const Manifest& m) {
  const auto names = by_target_name(m);
  std::vector<uint64_t> out;
  for (const Tensor& d : description.tensors) {
    const auto it = names.find(d.name);
    out.push_back(it == names.end() ? kNone : it->second);
  }
  return out;
}

}  // namespace

Result<Manifest> read_description(const std::string& path) {
  const auto where = [&](Error e) { return std::move(e).in(cat("--target ", path)); };
  auto text = io::read_small_file(path, kMaxDescriptionBytes);
  if (!text) {
    return where({text.error().code,
                  cat("expected a description that `python -m crossdock_manifest describe` made, ",
                      text.error().message)});
  }
  auto out = manifest::decode<Manifest>(as_bytes(*text));
  if (!out) return where(std::move(out).error());
  for (Tensor& t :
       out->tensors) {  // it has names and shapes, and no bytes that a check could look for
    t.extents.clear();
    t.encoding = "none";
  }
  if (auto r = check(*out); !r) return where(std::move(r).error());
  if (out->tensors.empty())
    return where(corrupt("expected a description with tensors, found none"));
  return out;
}

Result<void> describe(const Manifest& description, Manifest& m, std::vector<std::string>& notes) {
  std::vector<uint64_t> found = match(description, m);
  const auto kept = kept_names(description);
  // A parameter that is there under a tied name only gets its own.
  for (uint64_t i = 0; i < found.size(); ++i) {
    if (kept[i] == i || found[i] == kNone || found[kept[i]] != kNone) continue;
    found[kept[i]] = std::exchange(found[i], kNone);
    m.tensors[found[kept[i]]].set_target(description.tensors[kept[i]].name);
  }
  std::vector<std::string> missing, extra, buffers;
  std::vector<bool> used(m.tensors.size());
  m.module.clear();
  for (uint64_t i = 0; i < found.size(); ++i) {
    const Tensor& d = description.tensors[i];
    if (found[kept[i]] != kNone) m.module.push_back({d.name, found[kept[i]]});
    if (found[i] == kNone) {
      if (kept[i] != i) continue;
      (d.role == manifest::Role::kBuffer ? buffers : missing).push_back(d.name);
      continue;
    }
    Tensor& t = m.tensors[found[i]];
    used[found[i]] = true;
    if (t.shape != d.shape) {
      return invalid(cat("expected ", base::printable(d.name), " of shape ",
                         base::list_text(d.shape), ", found ", base::list_text(t.shape),
                         " in the source: describe the model that this checkpoint is of"));
    }
    if (kept[i] != i && t.excluded.empty()) {
      t.excluded = cat("tied to ", description.tensors[kept[i]].name, " in the job's module");
    }
    if (d.role != manifest::Role::kUnspecified) t.role = d.role;
    t.train = d.train;
  }
  if (!missing.empty()) {
    return invalid(cat("expected ", description.tensors.size(),
                       " tensors of the job's module in the source, found ", missing.size(),
                       " missing (", base::listed(missing),
                       "): use --strip-prefix, --add-prefix or --rename where only names differ"));
  }
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    if (used[i] || !m.tensors[i].excluded.empty()) continue;
    m.tensors[i].excluded = "the job's module has no such name";
    extra.push_back(m.tensors[i].target());
  }
  if (!extra.empty())
    notes.push_back(cat("The job's module has no ", base::listed(extra),
                        ": left out, as from_pretrained does."));
  if (!buffers.empty()) {
    notes.push_back(
        cat("The source has no values for the buffers ", base::listed(buffers),
            ": load a ZeRO-3 checkpoint with load_module_strict=False, and set them yourself."));
  }
  return {};
}

void name_module(const Manifest& description, Manifest& m) {
  const std::vector<uint64_t> found = match(description, m), kept = kept_names(description);
  const auto is_written = [&](uint64_t i) { return i != kNone && m.tensors[i].excluded.empty(); };
  m.module.clear();
  for (uint64_t i = 0; i < found.size(); ++i) {
    // A copy that differs from what it is tied to is written by itself.
    const uint64_t tensor = is_written(found[i]) ? found[i] : found[kept[i]];
    if (is_written(tensor)) m.module.push_back({description.tensors[i].name, tensor});
  }
}

Result<void> make_groups(const Manifest& description, Manifest& m) {
  const auto is_trained = [&](uint64_t i) {
    const Tensor& t = m.tensors[i];
    return t.excluded.empty() && t.role == manifest::Role::kParameter &&
           t.train != manifest::Training::kFrozen;
  };
  m.training.groups.clear();
  m.training.optimizer = description.training.optimizer;
  const std::vector<uint64_t> found = match(description, m), kept = kept_names(description);
  std::vector<bool> in_group(m.tensors.size());
  for (const manifest::ParameterGroup& group : description.training.groups) {
    if (group.tensors.empty())
      continue;  // DeepSpeed drops a group that the optimizer has no parameter for
    manifest::ParameterGroup out{{}, group.hyper_parameters};
    for (const uint64_t named : group.tensors) {
      const uint64_t i = found[kept[named]];
      if (i == kNone || !is_trained(i)) continue;
      if (in_group[i])
        return invalid(cat("expected each parameter in one of the optimizer's groups, found ",
                           base::printable(m.tensors[i].target()), " in two"));
      in_group[i] = true;
      out.tensors.push_back(i);
    }
    m.training.groups.push_back(std::move(out));
  }
  manifest::ParameterGroup all;
  for (const manifest::ModuleName& entry : m.module) {
    if (entry.name != m.tensors[entry.tensor].target() || !is_trained(entry.tensor)) continue;
    if (!m.training.groups.empty() && !in_group[entry.tensor])
      return invalid(
          cat("expected every trained parameter in one of the optimizer's groups, found ",
              base::printable(entry.name),
              " in none: leave it out with --frozen, or describe the groups with it"));
    all.tensors.push_back(entry.tensor);
  }
  if (m.training.groups.empty()) m.training.groups.push_back(std::move(all));
  return {};
}

}  // namespace crossdock::model
