// SPDX-License-Identifier: Apache-2.0

// What a job's DeepSpeed config (JSON) says that a checkpoint must agree with, read as DeepSpeed
// 0.19.8 reads it.
//
//   XD_TRY_SET(const DsConfig config, DsConfig::parse(options.text("ds-config")));
//   if (config.stage.is_auto) return needs_flag(config.stage, ...);
//
// A field that the file leaves out has DeepSpeed's default; one that is "auto", which the job's
// launcher (HF Trainer, accelerate) fills in, has no value.
#pragma once

#include <crossdock/plugin.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::common {

template <class T>
struct DsField {
  std::string key;  // "optimizer.params.lr"
  std::optional<T> value = {};
  bool is_auto = false;

  bool is(const T& other) const { return value == other; }
};

struct DsConfig {
  // The optimizer that DeepSpeed makes. Without a type the job's script makes it, and the rest is
  // without meaning.
  DsField<std::string> optimizer{"optimizer.type"};  // in lower case when it is of the Adam kind
  DsField<bool> torch_adam{"optimizer.params.torch_adam", false},
      adam_w_mode{"optimizer.params.adam_w_mode", true};
  DsField<bool> force_cpu{"zero_force_ds_cpu_optimizer",
                          true};  // of an optimizer that the script makes
  // Nothing when they are left out: an lr must come from elsewhere, the others are the class's.
  DsField<double> lr{"optimizer.params.lr"}, eps{"optimizer.params.eps"},
      weight_decay{"optimizer.params.weight_decay"};
  DsField<std::vector<double>> betas{"optimizer.params.betas"};  // two
  std::vector<manifest::KeyValue> other_params;                  // that the class takes too

  // A scheduler sets the lr of all groups when it is made, before the first step. Nothing: not
  // known of this one.
  DsField<std::string> scheduler{"scheduler.type"};
  DsField<std::vector<double>> first_lr;  // one for all groups, or one for each
  bool scheduler_sets_betas = false;

  DsField<int64_t> stage{"zero_optimization.stage", 0},
      sub_group_size{"zero_optimization.sub_group_size", 1'000'000'000};
  DsField<std::string> offload_optimizer{"zero_optimization.offload_optimizer.device", "none"},
      offload_param{"zero_optimization.offload_param.device", "none"};

  DsField<bool> bf16{"bf16.enabled", false}, fp16{"fp16.enabled", false};
  DsField<double> loss_scale{"fp16.loss_scale", 0};  // 0: dynamic
  DsField<int64_t> scale_power{"fp16.initial_scale_power", 16},
      scale_window{"fp16.loss_scale_window", 1000}, hysteresis{"fp16.hysteresis", 2},
      min_scale{"fp16.min_loss_scale", 1};
  DsField<bool> consecutive_hysteresis{"fp16.consecutive_hysteresis", false};

  DsField<bool> load_universal{"checkpoint.load_universal", false};
  DsField<int64_t> autotp_size{"tensor_parallel.autotp_size", 0};
  DsField<bool> autoep{"expert_parallel.enabled", false};
  std::vector<std::string>
      special;  // settings that are on and make the optimizer keep its state in other ways

  static Result<DsConfig> parse(std::string_view text);

  bool is_adam() const;  // no other kind is named
  // What DeepSpeed makes of it, or insists on: "fused-adam", "cpu-adam" (its own), "adamw" or
  // "adam" (torch's). Nothing: the script makes the optimizer. Errors: another kind, or "auto".
  Result<std::optional<std::string>> adam_class() const;
};

// The refusal of a field that is "auto".
template <class T>
Error needs_flag(const DsField<T>& field, std::string_view flag) {
  return invalid(cat("--ds-config: ", field.key,
                     " is \"auto\", which the job's launcher fills in: give --", flag));
}

}  // namespace crossdock::common
