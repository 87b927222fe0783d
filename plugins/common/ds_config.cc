// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/ds_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "plugins/common/json.h"
#include "plugins/common/quote.h"

namespace crossdock::common {

using manifest::Value;
using manifest::ValueList;
using manifest::ValueMap;

namespace {

std::string shown(const Value& value) {
  if (const auto* flag = value.get<bool>()) return *flag ? "true" : "false";
  if (const auto* number = value.get<int64_t>()) return fmt::format("{}", *number);
  if (const auto* number = value.get<uint64_t>()) return fmt::format("{}", *number);
  if (const auto* number = value.get<double>()) return fmt::format("{}", *number);
  if (const auto* text = value.get<std::string>()) return in_quotes(*text);
  return value.get<ValueList>() ? "a list" : value.get<ValueMap>() ? "an object" : "null";
}

Error refuse(std::string_view key, std::string_view expected, const Value& found) {
  return invalid(cat("--ds-config: expected ", expected, " for ", key, ", found ", shown(found)));
}

// ---- one value. As pydantic takes them, but for text that looks like a number or a boolean, which
// is refused.
Result<void> read(const Value& value, std::string_view key, bool& out) {
  const auto* number = value.get<int64_t>();
  if (const auto* flag = value.get<bool>()) {
    out = *flag;
  } else if (number && (*number == 0 || *number == 1)) {
    out = *number == 1;
  } else {
    return refuse(key, "true or false", value);
  }
  return {};
}

Result<void> read(const Value& value, std::string_view key, int64_t& out) {
  constexpr double kMax = 1LL << 53;       // up to here a double is one integer alone
  const auto* real = value.get<double>();  // 1e9 is an integer in every DeepSpeed config
  if (const auto* number = value.get<int64_t>()) {
    out = *number;
  } else if (real && std::abs(*real) <= kMax && *real == std::floor(*real)) {
    out = static_cast<int64_t>(*real);
  } else {
    return refuse(key, "a whole number", value);
  }
  return {};
}

Result<void> read(const Value& value, std::string_view key, double& out) {
  if (const auto* real = value.get<double>()) {
    out = *real;
  } else if (const auto* number = value.get<int64_t>()) {
    out = static_cast<double>(*number);
  } else {
    return refuse(key, "a number", value);
  }
  return {};
}

Result<void> read(const Value& value, std::string_view key, std::string& out) {
  const auto* text = value.get<std::string>();
  if (!text) return refuse(key, "text", value);
  out = *text;
  return {};
}

Result<void> read(const Value& value, std::string_view key, std::vector<double>& out) {
  const auto* list = value.get<ValueList>();
  if (!list) return read(value, key, out.emplace_back());
  for (const Value& item : list->values) XD_TRY(read(item, key, out.emplace_back()));
  return {};
}

// ---- the file
class File {
 public:
  explicit File(const ValueMap& root) : root_(root) {}

  // Nothing when it, or an object around it, is not there or null.
  Result<const Value*> find(std::string_view path) const {
    const ValueMap* at = &root_;
    for (size_t begin = 0;;) {
      const size_t dot = path.find('.', begin);
      const Value* found = at->find(path.substr(begin, dot == path.npos ? dot : dot - begin));
      if (!found || found->get<manifest::Null>()) return static_cast<const Value*>(nullptr);
      if (dot == path.npos) return found;
      at = found->get<ValueMap>();
      if (!at) return refuse(path.substr(0, dot), "an object", *found);
      begin = dot + 1;
    }
  }

  template <class T>
  Result<void> get(DsField<T>& field) const {
    XD_TRY_SET(const Value* const found, find(field.key));
    if (!found) return {};
    const auto* text = found->get<std::string>();
    field.is_auto = text && *text == "auto";
    field.value.reset();
    return field.is_auto ? Result<void>() : read(*found, field.key, field.value.emplace());
  }

 private:
  const ValueMap& root_;
};

// The arguments that the classes of the Adam kind have beside those that DsConfig has fields for.
// DeepSpeed hands on what is there, so the class refuses the others; max_grad_norm DeepSpeed
// itself.
bool is_argument(std::string_view name, bool torch_adam) {
  constexpr std::string_view kTorchs[] = {"amsgrad",    "foreach",        "maximize",
                                          "capturable", "differentiable", "fused"};
  constexpr std::string_view kOwn[] = {"amsgrad", "bias_correction", "set_grad_none",
                                       "fp32_optimizer_states"};
  return torch_adam ? std::ranges::find(kTorchs, name) != std::end(kTorchs)
                    : std::ranges::find(kOwn, name) != std::end(kOwn);
}

Result<void> read_params(const File& file, DsConfig& out) {
  XD_TRY(file.get(out.torch_adam));
  XD_TRY(file.get(out.adam_w_mode));
  XD_TRY(file.get(out.lr));
  XD_TRY(file.get(out.eps));
  XD_TRY(file.get(out.weight_decay));
  XD_TRY(file.get(out.betas));
  if (out.betas.value && out.betas.value->size() != 2)
    return invalid(cat("--ds-config: expected two numbers for optimizer.params.betas, found ",
                       std::to_string(out.betas.value->size())));
  XD_TRY_SET(const Value* const params, file.find("optimizer.params"));
  for (const auto& [key, value] :
       params ? params->get<ValueMap>()->entries : std::vector<manifest::KeyValue>()) {
    constexpr std::string_view kRead[] = {"torch_adam", "adam_w_mode",  "lr",
                                          "eps",        "weight_decay", "betas"};
    if (std::ranges::find(kRead, key) != std::end(kRead)) continue;
    if (!is_argument(key, out.torch_adam.is(true)))
      return invalid(cat("--ds-config: expected the parameters of ",
                         out.torch_adam.is(true) ? "torch's" : "DeepSpeed's",
                         " Adam, found optimizer.params.", key, ", which it does not take"));
    if (key == "amsgrad" && value.get<bool>() && *value.get<bool>())
      out.special.push_back("optimizer.params.amsgrad");
    if (key == "set_grad_none" || key == "fp32_optimizer_states" || key == "amsgrad")
      continue;  // no group has them
    out.other_params.push_back({key, value});
  }
  return {};
}

Result<void> read_optimizer(const File& file, DsConfig& out) {
  XD_TRY(file.get(out.optimizer));
  if (!out.optimizer.value && !out.optimizer.is_auto) {
    XD_TRY_SET(const Value* const params, file.find("optimizer.params"));
    if (!params) return {};
    return invalid(
        "--ds-config: expected optimizer.type beside optimizer.params, found none: DeepSpeed "
        "ignores these");
  }
  if (out.optimizer.value) {
    std::string lower = *out.optimizer.value;
    std::ranges::transform(lower, lower.begin(),
                           [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
    if (lower != "adam" && lower != "adamw") return {};  // adam_class() and its like tell
    out.optimizer.value = lower;
  }
  XD_TRY_SET(const Value* const params, file.find("optimizer.params"));
  if (params && !params->get<ValueMap>()) return refuse("optimizer.params", "an object", *params);
  return read_params(file, out);
}

// DeepSpeed 0.19.8, runtime/lr_schedules.py: what each sets the groups to when it is made.
Result<void> read_scheduler(const File& file, DsConfig& out) {
  XD_TRY(file.get(out.scheduler));
  if (!out.scheduler.value) return {};
  const std::string& type = *out.scheduler.value;
  if (type == "WarmupLR" || type == "WarmupDecayLR") {
    out.first_lr = {"scheduler.params.warmup_min_lr", std::vector<double>{0}};
  } else if (type == "WarmupCosineLR") {
    out.first_lr = {"", std::vector<double>{0}};
    return {};
  } else if (type == "LRRangeTest") {
    out.first_lr = {"scheduler.params.lr_range_test_min_lr", std::vector<double>{1e-3}};
  } else if (type == "OneCycle") {
    out.first_lr = {"scheduler.params.cycle_min_lr"};
    DsField<bool> momentum{"scheduler.params.cycle_momentum", true};
    XD_TRY(file.get(momentum));
    out.scheduler_sets_betas = !momentum.is(false);
  } else {
    return {};
  }
  return file.get(out.first_lr);
}

Result<void> add_special(const File& file, std::initializer_list<const char*> keys, DsConfig& out) {
  for (const char* key : keys) {
    DsField<bool> field{key, false};
    XD_TRY(file.get(field));
    if (field.is(true)) out.special.emplace_back(key);
  }
  return {};
}

Result<void> read_zero(const File& file, DsConfig& out) {
  XD_TRY_SET(const Value* const zero, file.find("zero_optimization"));
  if (const auto* is_on = zero ? zero->get<bool>() : nullptr) {  // the form of old
    out.stage.value = *is_on ? 1 : 0;
    return {};
  }
  XD_TRY(file.get(out.stage));
  XD_TRY(file.get(out.sub_group_size));
  for (auto [field, old] : {std::pair{&out.offload_optimizer, "zero_optimization.cpu_offload"},
                            {&out.offload_param, "zero_optimization.cpu_offload_param"}}) {
    XD_TRY(file.get(*field));
    DsField<bool> is_on{old, false};
    XD_TRY(file.get(is_on));
    if (is_on.is(true)) field->value = "cpu";
    if (!field->value || *field->value == "none" || *field->value == "cpu" ||
        *field->value == "nvme")
      continue;
    return refuse(field->key, "none, cpu or nvme", {*field->value});
  }
  DsField<double> ratio{"zero_optimization.offload_optimizer.ratio", 1};
  XD_TRY(file.get(ratio));
  if (ratio.value && !ratio.is(1)) out.special.push_back(ratio.key);
  XD_TRY_SET(const Value* const zenflow, file.find("zero_optimization.zenflow"));
  if (zenflow) out.special.push_back("zero_optimization.zenflow");
  return add_special(
      file,
      {"zero_optimization.offload_optimizer.super_offload", "zero_optimization.elastic_checkpoint"},
      out);
}

Result<void> read_precision(const File& file, DsConfig& out) {
  XD_TRY_SET(const Value* const bf16, file.find("bf16"));
  if (!bf16) out.bf16.key = "bfloat16.enabled";  // its name of old
  XD_TRY(file.get(out.bf16));
  XD_TRY(file.get(out.fp16));
  if (out.bf16.is(true) && out.fp16.is(true))
    return invalid("--ds-config: expected bf16 or fp16 to be enabled, found both");
  XD_TRY(file.get(out.loss_scale));
  XD_TRY(file.get(out.scale_power));
  XD_TRY(file.get(out.scale_window));
  XD_TRY(file.get(out.hysteresis));
  XD_TRY(file.get(out.min_scale));
  return file.get(out.consecutive_hysteresis);
}

Result<DsConfig> read_all(const File& file) {
  DsConfig out;
  XD_TRY(read_optimizer(file, out));
  XD_TRY(read_scheduler(file, out));
  XD_TRY(read_zero(file, out));
  XD_TRY(file.get(out.force_cpu));
  XD_TRY(read_precision(file, out));
  XD_TRY(file.get(out.load_universal));
  XD_TRY(file.get(out.autotp_size));
  XD_TRY(file.get(out.autoep));
  XD_TRY(add_special(file,
                     {"bf16.bf16_master_weights_and_grads", "bf16.bf16_optimizer_states",
                      "fp16.fp16_master_weights_and_grads"},
                     out));
  return out;
}

}  // namespace

Result<DsConfig> DsConfig::parse(std::string_view text) {
  const auto where = [](Error e) { return std::move(e).in("--ds-config"); };
  const auto json = parse_json(text, JsonDialect::kPython);
  if (!json)
    return where({json.error().code,
                  cat(json.error().message,
                      ": comments and text without quotes, which DeepSpeed takes, are not JSON")});
  auto root = json_value(json->root());
  if (!root) return where(std::move(root).error());
  const auto* map = root->get<ValueMap>();
  if (!map) return where(invalid(cat("expected an object, found ", shown(*root))));
  return read_all(File(*map));
}

bool DsConfig::is_adam() const {
  return !optimizer.value || *optimizer.value == "adam" || *optimizer.value == "adamw";
}

// runtime/engine.py, _configure_optimizer, _configure_basic_optimizer and
// get_optimizer_configuration. Of a script it takes only its own CPU optimizers when they are
// offloaded, unless told otherwise; accelerate makes it one.
Result<std::optional<std::string>> DsConfig::adam_class() const {
  using Class = std::optional<std::string>;
  constexpr std::string_view kFlag = "optimizer";
  if (optimizer.is_auto) return needs_flag(optimizer, kFlag);
  if (!optimizer.value) {
    if (force_cpu.is(false) || offload_optimizer.is("none")) return Class();
    return offload_optimizer.is_auto ? Result<Class>(needs_flag(offload_optimizer, kFlag))
                                     : Class("cpu-adam");
  }
  if (!is_adam())
    return unsupported(cat("--ds-config: expected Adam or AdamW for optimizer.type, found ",
                           in_quotes(*optimizer.value), ", whose state is another than Adam's"));
  if (torch_adam.is_auto) return needs_flag(torch_adam, kFlag);
  if (torch_adam.is(true)) {
    if (optimizer.is("adamw")) return Class("adamw");
    if (adam_w_mode.is_auto) return needs_flag(adam_w_mode, kFlag);
    return Class(adam_w_mode.is(true) ? "adamw" : "adam");
  }
  if (offload_optimizer.is_auto) return needs_flag(offload_optimizer, kFlag);
  return Class(offload_optimizer.is("none") ? "fused-adam" : "cpu-adam");
}

}  // namespace crossdock::common
