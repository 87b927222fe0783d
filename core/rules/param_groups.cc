// SPDX-License-Identifier: Apache-2.0
#include "core/rules/param_groups.h"

#include "core/base/regex.h"
#include "core/base/text.h"
#include "core/rules/textproto.h"

#include "core/rules/rules.pb.h"

namespace crossdock::rules {

namespace pb = rules::v1;
using manifest::Manifest;
using manifest::ParameterGroup;

namespace {

// The names that are not parameters of their own: all but the first of a tied group.
std::vector<bool> find_tied(const Manifest& module) {
  std::vector<bool> out(module.tensors.size());
  for (const auto& group : module.alias_groups) {
    for (size_t i = 1; i < group.tensors.size(); ++i) out[group.tensors[i]] = true;
  }
  return out;
}

// As transformers 5.23's Trainer.get_decay_parameter_names.
Result<void> add_hf_trainer_groups(const ModuleRule& rule, Manifest& module) {
  XD_TRY_SET(const auto by_name,
             base::Regex::compile(R"(bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.))"));
  const std::vector<bool> tied = find_tied(module);
  ParameterGroup decay, plain{{}, {{"weight_decay", {0.0}}}};
  for (uint64_t i = 0; i < module.tensors.size(); ++i) {
    if (tied[i] || module.tensors[i].role == manifest::Role::kBuffer) continue;
    const std::string& name = module.tensors[i].name;
    XD_TRY_SET(const bool is_named_so, by_name.is_in(fold_case(name)));
    const auto parameter = rule.find(name);
    const bool is_of_class = parameter && parameter->parameter->no_decay();
    (is_named_so || is_of_class ? plain : decay).tensors.push_back(i);
  }
  module.training.groups = {std::move(decay), std::move(plain)};
  return {};
}

Result<ParameterGroup> hyper_parameters(const pb::ParamGroup& group) {
  ParameterGroup out;
  const auto add = [&](const char* key, bool has, double value) {
    if (has) out.hyper_parameters.push_back({key, {value}});
  };
  add("lr", group.has_lr(), group.lr());
  if (group.has_beta1() != group.has_beta2())
    return invalid("expected beta1 and beta2 together, found one alone");
  if (group.has_beta1())
    out.hyper_parameters.push_back(
        {"betas", {manifest::ValueList{{{group.beta1()}, {group.beta2()}}}}});
  add("eps", group.has_eps(), group.eps());
  add("weight_decay", group.has_weight_decay(), group.weight_decay());
  return out;
}

Result<void> add_groups_of_file(const pb::ParamGroups& groups, Manifest& module) {
  std::vector<std::vector<base::Regex>> expressions;
  size_t rest = SIZE_MAX;
  for (const pb::ParamGroup& group : groups.group()) {
    XD_TRY_SET(module.training.groups.emplace_back(), hyper_parameters(group));
    XD_TRY_SET(expressions.emplace_back(),
               base::compile_all({group.parameter().begin(), group.parameter().end()}));
    if (!group.parameter().empty()) continue;
    if (rest != SIZE_MAX)
      return invalid("expected at most one group without an expression, found two");
    rest = expressions.size() - 1;
  }
  const std::vector<bool> tied = find_tied(module);
  for (uint64_t i = 0; i < module.tensors.size(); ++i) {
    if (tied[i] || module.tensors[i].role == manifest::Role::kBuffer ||
        module.tensors[i].train == manifest::Training::kFrozen)
      continue;
    const std::string& name = module.tensors[i].name;
    size_t g = 0;
    for (; g < expressions.size(); ++g) {
      XD_TRY_SET(const bool found, base::any_is_in(expressions[g], name));
      if (found) break;
    }
    if (g == expressions.size()) g = rest;
    if (g == SIZE_MAX)
      return invalid(
          cat("expected a group for every trained parameter, found none for ", name,
              ": add a group without an expression, or leave the parameter out with --frozen"));
    module.training.groups[g].tensors.push_back(i);
  }
  return {};
}

}  // namespace

Result<void> add_param_groups(const std::string& how, const ModuleRule& rule, Manifest& module) {
  if (how == "single") return {};
  if (how == "hf-trainer") return add_hf_trainer_groups(rule, module);
  XD_TRY_SET(const pb::ParamGroups groups,
             read_textproto<pb::ParamGroups>(how, "--param-groups: groups"));
  auto done = add_groups_of_file(groups, module);
  return done ? std::move(done) : std::move(done).error().in(cat("--param-groups ", how));
}

}  // namespace crossdock::rules
