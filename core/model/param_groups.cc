#include "core/model/param_groups.h"

#include "core/base/text.h"
#include "core/model/textproto.h"

#include <crossdock/rules.pb.h>

#include <algorithm>
#include <regex>

namespace crossdock::model {

namespace pb = rules::v1;
using manifest::Manifest;
using manifest::ParameterGroup;

namespace {

using Expressions = std::vector<std::regex>;

bool any_match(const Expressions& expressions, const std::string& name) {
  return std::any_of(expressions.begin(), expressions.end(), [&](const auto& e) { return std::regex_search(name, e); });
}

// The names that are not parameters of their own: all but the first of a tied group.
std::vector<bool> find_tied(const Manifest& module) {
  std::vector<bool> out(module.tensors.size());
  for (const auto& group : module.alias_groups) {
    for (size_t i = 1; i < group.tensors.size(); ++i) out[group.tensors[i]] = true;
  }
  return out;
}

// As transformers 5.23's Trainer.get_decay_parameter_names.
void add_hf_trainer_groups(const Expressions& no_decay, Manifest& module) {
  static const std::regex by_name(R"(bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.))");
  const std::vector<bool> tied = find_tied(module);
  ParameterGroup decay, plain{{}, {{"weight_decay", {0.0}}}};
  for (uint64_t i = 0; i < module.tensors.size(); ++i) {
    if (tied[i]) continue;
    const std::string& name = module.tensors[i].name;
    const bool is_plain = std::regex_search(base::fold_case(name), by_name) || any_match(no_decay, name);
    (is_plain ? plain : decay).tensors.push_back(i);
  }
  module.training.groups = {std::move(decay), std::move(plain)};
}

Result<ParameterGroup> hyper_parameters(const pb::ParamGroup& group) {
  ParameterGroup out;
  const auto add = [&](const char* key, bool has, double value) {
    if (has) out.hyper_parameters.push_back({key, {value}});
  };
  add("lr", group.has_lr(), group.lr());
  if (group.has_beta1() != group.has_beta2()) return invalid("expected beta1 and beta2 together, found one alone");
  if (group.has_beta1())
    out.hyper_parameters.push_back({"betas", {manifest::ValueList{{{group.beta1()}, {group.beta2()}}}}});
  add("eps", group.has_eps(), group.eps());
  add("weight_decay", group.has_weight_decay(), group.weight_decay());
  return out;
}

Result<void> add_groups_of_file(const pb::ParamGroups& groups, Manifest& module) {
  std::vector<Expressions> expressions;
  size_t rest = SIZE_MAX;
  for (const pb::ParamGroup& group : groups.group()) {
    XD_TRY_SET(module.training.groups.emplace_back(), hyper_parameters(group));
    expressions.emplace_back(group.parameter().begin(), group.parameter().end());
    if (!group.parameter().empty()) continue;
    if (rest != SIZE_MAX) return invalid("expected at most one group without an expression, found two");
    rest = expressions.size() - 1;
  }
  const std::vector<bool> tied = find_tied(module);
  for (uint64_t i = 0; i < module.tensors.size(); ++i) {
    if (tied[i] || module.tensors[i].train == manifest::Training::kFrozen) continue;
    const std::string& name = module.tensors[i].name;
    const auto it =
        std::find_if(expressions.begin(), expressions.end(), [&](const auto& e) { return any_match(e, name); });
    const size_t g = it != expressions.end() ? static_cast<size_t>(it - expressions.begin()) : rest;
    if (g == SIZE_MAX)
      return invalid(cat("expected a group for every trained parameter, found none for ", name,
                         ": add a group without an expression, or leave the parameter out with --frozen"));
    module.training.groups[g].tensors.push_back(i);
  }
  return {};
}

}  // namespace

Result<void> add_param_groups(const std::string& how, const std::vector<std::string>& no_decay, Manifest& module) {
  if (how == "single") return {};
  if (how == "hf-trainer") {
    try {
      add_hf_trainer_groups({no_decay.begin(), no_decay.end()}, module);
    } catch (const std::regex_error& e) {
      return invalid(cat("expected regular expressions as no_decay of the rule, found ", e.what()));
    }
    return {};
  }
  XD_TRY_SET(const pb::ParamGroups groups, read_textproto<pb::ParamGroups>(how, "--param-groups: groups"));
  try {
    auto done = add_groups_of_file(groups, module);
    return done ? std::move(done) : std::move(done).error().in(cat("--param-groups ", how));
  } catch (const std::regex_error& e) {
    return invalid(cat("--param-groups ", how, ": expected regular expressions, found ", e.what()));
  }
}

}  // namespace crossdock::model
