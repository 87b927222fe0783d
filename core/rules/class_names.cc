// SPDX-License-Identifier: Apache-2.0
#include "core/rules/class_names.h"

#include "core/base/text.h"
#include "core/model/target.h"
#include "core/rules/rules.pb.h"

#include <algorithm>
#include <functional>
#include <map>
#include <unordered_map>

namespace crossdock::rules {

namespace pb = rules::v1;
using manifest::Manifest;
using manifest::Tensor;

namespace {

// Two tensors of the file under one name of the class: "h.0.w" beside "transformer.h.0.w". Which of
// them is meant nobody can say.
Result<void> check_distinct(const ModuleRule& rule, const Manifest& m) {
  std::unordered_map<std::string, const Tensor*> seen;
  for (const Tensor& t : m.tensors) {
    if (!t.excluded.empty()) continue;
    const auto [it, is_new] = seen.emplace(t.target(), &t);
    if (is_new) continue;
    return invalid(cat("expected one tensor for ", base::printable(t.target()), " of ",
                       rule.class_name(), ", found ", base::printable(it->second->name), " and ",
                       base::printable(t.name),
                       ": leave one out of the source, or name them with --rename"));
  }
  return {};
}

// A file may hold a tied parameter under any of its names: save_model of safetensors keeps the
// first of the alphabet, and the module knows the one of named_parameters().
void name_tied(const ModuleRule& rule, Manifest& m,
               const std::function<void(Tensor&, const std::string&)>& rename) {
  const auto tied_names = rule.tied_names(m);
  if (tied_names.empty()) return;
  auto names = model::by_target_name(m);
  for (const auto& [name, to] : tied_names) {
    const auto found = names.find(name);
    if (found == names.end() || names.contains(to)) continue;
    rename(m.tensors[found->second], to);
    names.emplace(to, found->second);
  }
}

}  // namespace

Result<void> give_class_names(const ModuleRule& rule, Manifest& m,
                              std::vector<std::string>& notes) {
  size_t n_changed = 0;
  std::string example;
  const auto rename = [&](Tensor& t, const std::string& name) {
    if (name == t.target()) return;
    if (n_changed++ == 0) example = cat(base::printable(t.target()), " is ", base::printable(name));
    t.set_target(name);
  };
  std::map<std::string, std::vector<std::string>> excluded;  // by reason
  for (Tensor& t : m.tensors) {
    if (!t.excluded.empty()) continue;
    XD_TRY_SET(const auto stored, rule.find_stored(t.target()));
    if (stored && rule.knows(stored->name)) {
      rename(t, stored->name);
      const auto found = rule.find(stored->name);
      if (found && found->is_buffer) t.role = manifest::Role::kBuffer;
      continue;
    }
    XD_TRY_SET(const std::string* reason, rule.reason_without(t.target()));
    if (!reason) continue;
    t.excluded = *reason;
    excluded[*reason].push_back(t.target());
  }
  if (n_changed > 0) XD_TRY(check_distinct(rule, m));
  name_tied(rule, m, rename);

  if (n_changed > 0) {
    notes.push_back(cat(n_changed, " of ", m.tensors.size(), " names became those of ",
                        rule.class_name(), " in transformers 5: ", example, "."));
  }
  for (const auto& [reason, names] : excluded)
    notes.push_back(cat("Left out: ", base::listed(names), ": ", reason, "."));
  return {};
}

Result<void> give_roles(const ModuleRule& rule, Manifest& m) {
  for (Tensor& t : m.tensors) {
    XD_TRY_SET(const auto stored, rule.find_stored(t.target()));
    if (!stored) continue;
    const auto own = rule.find(stored->name);
    if (stored->uses.empty() ? own && own->is_buffer : stored->uses[0].of.is_buffer)
      t.role = manifest::Role::kBuffer;
  }
  return {};
}

std::vector<manifest::AliasGroup> find_tied(const ModuleRule& rule, const Manifest& m) {
  const auto tied_names = rule.tied_names(m);
  if (tied_names.empty()) return {};
  const auto names = model::by_target_name(m);
  std::map<std::string, manifest::AliasGroup> groups;
  for (const auto& [name, to] : tied_names) {
    const auto own = names.find(to), other = names.find(name);
    if (own == names.end() || other == names.end()) continue;
    auto& tensors = groups[to].tensors;
    if (tensors.empty()) tensors.push_back(own->second);
    tensors.push_back(other->second);
  }
  std::vector<manifest::AliasGroup> out;
  for (auto& [name, group] : groups) out.push_back(std::move(group));
  return out;
}

std::vector<uint64_t> find_unknown(const ModuleRule& rule, const Manifest& m) {
  std::vector<uint64_t> out;
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    const Tensor& t = m.tensors[i];
    const bool is_parameter = t.excluded.empty() && t.role == manifest::Role::kParameter;
    if (is_parameter && !rule.knows(t.target())) out.push_back(i);
  }
  return out;
}

std::string old_names_hint(const Manifest& m) {
  // A plain "gamma" is a parameter of its own in many modules, so only LayerNorm's are old names.
  struct Old {
    std::string_view ending, rename;
  };
  constexpr Old kOld[] = {
      {"LayerNorm.gamma", "'LayerNorm\\.gamma$=LayerNorm.weight'"},
      {"LayerNorm.beta", "'LayerNorm\\.beta$=LayerNorm.bias'"},
      {".weight_g", "'\\.weight_g$=.parametrizations.weight.original0'"},
      {".weight_v", "'\\.weight_v$=.parametrizations.weight.original1'"},
  };
  std::string flags;
  for (const Old& old : kOld) {
    const auto is_old = [&](const Tensor& t) { return t.target().ends_with(old.ending); };
    if (std::any_of(m.tensors.begin(), m.tensors.end(), is_old))
      flags += cat(flags.empty() ? "" : " ", "--rename ", old.rename);
  }
  return flags;
}

}  // namespace crossdock::rules
