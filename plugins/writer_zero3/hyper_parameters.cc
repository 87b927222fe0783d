// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_zero3/hyper_parameters.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "plugins/common/quote.h"

namespace crossdock::writer_zero3 {
namespace {

using manifest::KeyValue;
using manifest::ParameterGroup;
using manifest::TrainingState;
using manifest::Value;
using manifest::ValueList;
using Numbers = std::vector<double>;
using HyperParameters = std::vector<KeyValue>;

// One of the four, and where it comes from.
struct Parameter {
  const char *key, *flag;
  std::optional<Numbers> given, configured;  // by the flag, by --ds-config
  std::string is_auto;                       // the key of the config that is "auto"
  std::optional<Numbers> usual;              // what every library takes; nothing where jobs differ
};

std::optional<double> number_of(const Value& value) {
  if (const auto* number = value.get<int64_t>()) return static_cast<double>(*number);
  if (const auto* real = value.get<double>()) return *real;
  return {};
}

std::optional<Numbers> numbers_of(const Value& value) {
  const auto* list = value.get<ValueList>();
  Numbers out;
  for (const Value& item : list ? list->values : std::vector<Value>{value}) {
    const auto number = number_of(item);
    if (!number) return {};
    out.push_back(*number);
  }
  return out;
}

Value value_of(const Numbers& numbers) {
  if (numbers.size() == 1) return {numbers[0]};
  ValueList out;
  for (const double number : numbers) out.values.push_back({number});
  return {std::move(out)};
}

std::string text(const Numbers& numbers) { return fmt::format("{}", fmt::join(numbers, ",")); }

Value* find(HyperParameters& values, std::string_view key) {
  const auto it = std::ranges::find(values, key, &KeyValue::key);
  return it == values.end() ? nullptr : &it->value;
}

// What the groups themselves say of it, each value once; nothing when one of them is silent.
std::optional<std::vector<Numbers>> own_values(TrainingState& training, const char* key) {
  std::vector<Numbers> out;
  for (ParameterGroup& group : training.groups) {
    const Value* const value = find(group.hyper_parameters, key);
    if (!value) return {};
    const Numbers numbers = numbers_of(*value).value_or(Numbers());
    if (std::ranges::find(out, numbers) == out.end()) out.push_back(numbers);
  }
  return out;
}

std::string listed(const std::vector<Numbers>& values) {
  std::string out;
  for (const Numbers& numbers : values) out += cat(out.empty() ? "" : " and ", text(numbers));
  return out;
}

// The value for groups that have none of their own; nothing when there is no such group, or no
// source.
Result<std::optional<Numbers>> settle(const Parameter& p, TrainingState& training) {
  const bool is_described = !training.optimizer.empty();
  const auto own = own_values(training, p.key);
  const auto is_own = [&](const Numbers& value) {
    return std::ranges::find(*own, value) != own->end();
  };
  if (p.given) {
    if (!own || is_own(*p.given)) return p.given;
    if (!is_described || own->size() > 1)
      return invalid(cat("--", p.flag, " ", text(*p.given),
                         ": expected a group that it is for, found that every group has its own (",
                         listed(*own), "): leave it out, or change the groups"));
    for (ParameterGroup& group : training.groups)
      *find(group.hyper_parameters, p.key) = value_of(*p.given);
    return p.given;
  }
  if (p.configured) {
    if (own && is_described && !is_own(*p.configured))
      return invalid(cat("expected the same ", p.key, " in --ds-config and --target, found ",
                         text(*p.configured), " and ", listed(*own), ": give --", p.flag,
                         ", or leave one of the two out"));
    return p.configured;
  }
  if (own) return std::optional<Numbers>();
  if (!p.is_auto.empty()) return common::needs_flag(common::DsField<double>{p.is_auto}, p.flag);
  return p.usual;
}

// ---- the sources
std::vector<Parameter> parameters(const Settings& settings, Optimizer optimizer) {
  std::vector<Parameter> out{
      {"lr", "lr", settings.flags.lr, {}, "", {}},
      {"betas", "betas", settings.flags.betas, {}, "", Numbers{0.9, 0.999}},
      {"eps", "eps", settings.flags.eps, {}, "", Numbers{1e-8}},
      {"weight_decay", "weight-decay", settings.flags.weight_decay, {}, "", {}}};
  if (!settings.config || !settings.config->optimizer.value) return out;
  const common::DsConfig& config = *settings.config;
  const auto read = [](const common::DsField<double>& field, Parameter& p) {
    if (field.value) p.configured = {*field.value};
    if (field.is_auto) p.is_auto = field.key;
  };
  read(config.lr, out[0]);
  out[1].configured = config.betas.value;
  if (config.betas.is_auto) out[1].is_auto = config.betas.key;
  read(config.eps, out[2]);
  read(config.weight_decay, out[3]);
  // Left out, it is what the class takes: torch's AdamW 0.01, the others 0.
  out[3].usual = Numbers{optimizer == Optimizer::kAdamW ? 0.01 : 0.0};
  return out;
}

// What the class has beside the four, in the order of its own state_dict(), around them.
HyperParameters defaults(Optimizer optimizer, const std::vector<std::optional<Numbers>>& four,
                         const Settings& settings) {
  const bool is_torch = optimizer == Optimizer::kAdamW || optimizer == Optimizer::kAdam;
  const Value none{manifest::Null{}}, no{false};
  HyperParameters out;
  const auto add = [&](const char* key, size_t i) {
    if (four[i]) out.push_back({key, value_of(*four[i])});
  };
  add("lr", 0);
  if (optimizer == Optimizer::kFusedAdam) out.push_back({"bias_correction", {true}});
  add("betas", 1);
  add("eps", 2);
  add("weight_decay", 3);
  if (optimizer == Optimizer::kCpuAdam) {
    out.push_back({"bias_correction", {true}});
    out.push_back({"amsgrad", no});
  }
  if (is_torch) {
    for (const char* name : {"amsgrad", "maximize"}) out.push_back({name, no});
    out.push_back({"foreach", none});
    for (const char* name : {"capturable", "differentiable"}) out.push_back({name, no});
    out.push_back({"fused", none});
    out.push_back({"decoupled_weight_decay", {optimizer == Optimizer::kAdamW}});
  }
  if (!settings.config) return out;
  for (const KeyValue& other : settings.config->other_params) {
    if (Value* const value = find(out, other.key)) *value = other.value;
  }
  return out;
}

// As torch's add_param_group: a group's own values, then the defaults that it has none of its own
// for.
void complete(HyperParameters& own, const HyperParameters& defaults) {
  for (const KeyValue& value : defaults) {
    if (!find(own, value.key)) own.push_back(value);
  }
}

// ---- the scheduler of --ds-config, which sets every group's lr when it is made. Returns whether
// it has.
Result<bool> apply_scheduler(const Settings& settings, TrainingState& training,
                             std::vector<std::string>& notes) {
  if (!settings.config) return false;
  const common::DsConfig& config = *settings.config;
  if (!config.scheduler.value && !config.scheduler.is_auto) return false;
  if (config.scheduler_sets_betas && !settings.flags.betas)
    return invalid(cat("--ds-config: scheduler ", *config.scheduler.value,
                       " sets the betas too: give --betas as they are at the first step"));
  const auto& first = config.first_lr.value;
  if (settings.flags.lr) {
    if (first && *first != *settings.flags.lr)
      notes.push_back(
          fmt::format("The first step will have the lr of --lr, {}; from the beginning the job "
                      "would have {}, for scheduler {} "
                      "of --ds-config sets it: leave --lr out for that.",
                      text(*settings.flags.lr), text(*first), *config.scheduler.value));
    return false;
  }
  if (config.scheduler.is_auto)
    return common::needs_flag(config.scheduler, "lr, that of the first step");
  if (config.first_lr.is_auto)
    return common::needs_flag(config.first_lr,
                              "lr, that of the first step (the HF Trainer's is 0)");
  if (!first)
    return invalid(cat("--ds-config: expected a scheduler whose first lr is known, found ",
                       common::in_quotes(*config.scheduler.value),
                       ": give --lr, that of the first step"));
  if (first->size() != 1 && first->size() != training.groups.size())
    return invalid(cat("--ds-config: expected one number for each of the ", training.groups.size(),
                       " optimizer groups for ", config.first_lr.key, ", found ", first->size()));
  for (size_t g = 0; g < training.groups.size(); ++g) {
    HyperParameters& values = training.groups[g].hyper_parameters;
    const Value lr{first->size() == 1 ? first->front() : (*first)[g]};
    if (Value* const own = find(values, "lr")) {
      *own = lr;
    } else {
      values.push_back({"lr", lr});
    }
  }
  return true;
}

std::string_view name_of(Optimizer optimizer) {
  switch (optimizer) {
    case Optimizer::kAdamW:
      return "torch's AdamW";
    case Optimizer::kAdam:
      return "torch's Adam";
    case Optimizer::kFusedAdam:
      return "DeepSpeed's FusedAdam";
    case Optimizer::kCpuAdam:
      return "DeepSpeed's CPUAdam";
  }
  return "";
}

}  // namespace

Result<Optimizer> choose_optimizer(const Settings& settings, const std::string& described) {
  if (described.empty()) return settings.optimizer.value_or(Optimizer::kAdamW);
  constexpr std::pair<std::string_view, Optimizer> kClasses[] = {
      {"AdamW", Optimizer::kAdamW},
      {"Adam", Optimizer::kAdam},
      {"FusedAdam", Optimizer::kFusedAdam},
      {"DeepSpeedCPUAdam", Optimizer::kCpuAdam}};
  const std::string_view name = std::string_view(described).substr(described.rfind('.') + 1);
  const auto it = std::ranges::find(kClasses, name, &std::pair<std::string_view, Optimizer>::first);
  if (it == std::end(kClasses))
    return unsupported(
        cat("--target: expected torch's AdamW or Adam, or DeepSpeed's FusedAdam or "
            "DeepSpeedCPUAdam, found the optimizer ",
            common::in_quotes(described)));
  if (settings.optimizer.value_or(it->second) == it->second) return it->second;
  return invalid(cat(
      "expected the optimizer's class that --target describes, ", common::in_quotes(described),
      ", found ", name_of(*settings.optimizer),
      settings.config ? " (DeepSpeed's choice by --ds-config, or --optimizer)" : " of --optimizer",
      ": give --optimizer as it is, or describe the job again"));
}

Result<std::vector<std::string>> complete_groups(const Settings& settings, Optimizer optimizer,
                                                 TrainingState& training) {
  std::vector<std::string> notes;
  XD_TRY_SET(const bool has_lr, apply_scheduler(settings, training, notes));
  std::vector<std::optional<Numbers>> four;
  std::string missing;
  for (const Parameter& p : parameters(settings, optimizer)) {
    std::optional<Numbers>& value = four.emplace_back();
    if (has_lr && p.flag == std::string_view("lr")) continue;
    XD_TRY_SET(value, settle(p, training));
    if (!value && !own_values(training, p.key))
      missing += cat(missing.empty() ? "--" : " and --", p.flag);
  }
  if (!missing.empty())
    return invalid(
        cat("loading such shards replaces the job's learning rate and weight decay by the "
            "checkpoint's, and nothing "
            "tells the job's: give ",
            settings.config ? "" : "--ds-config FILE (its DeepSpeed config), or ", missing));
  for (ParameterGroup& group : training.groups) {
    complete(group.hyper_parameters, defaults(optimizer, four, settings));
    if (const Value* const amsgrad = find(group.hyper_parameters, "amsgrad");
        amsgrad && *amsgrad == Value{true})
      return unsupported(
          "--target: expected an optimizer without amsgrad, found one with it: its third moment "
          "cannot be written");
  }
  std::string values;
  for (const char* key : {"lr", "betas", "eps", "weight_decay"})
    values +=
        cat(", ", key, " ", listed(own_values(training, key).value_or(std::vector<Numbers>())));
  notes.insert(
      notes.begin(),
      cat("Loading replaces the optimizer's values in the job by these, of ", name_of(optimizer),
          values, "; they hold for the first step, and an lr scheduler takes over after it."));
  return notes;
}

}  // namespace crossdock::writer_zero3
