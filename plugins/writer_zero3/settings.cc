// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_zero3/settings.h"

#include <charconv>
#include <cmath>
#include <optional>

#include "plugins/common/hf_folder.h"
#include "plugins/common/quote.h"
#include "plugins/torch/write/training.h"

namespace crossdock::writer_zero3 {
namespace {

constexpr xd_option_desc option(const char* name, const char* type, const char* fallback,
                                const char* help) {
  return {XD_INIT_SIZE(xd_option_desc), 0, name, type, fallback, help};
}

constexpr xd_option_desc kAll[] = {
    option("world-size", "int", nullptr,
           "ranks of the job: the checkpoint loads at this number only"),
    option("ds-config", "file", "",
           "the job's DeepSpeed config (JSON): precision, optimizer, sub_group_size and loss "
           "scaling come from it; the "
           "flags below win over it"),
    option("dtype", "enum:bf16|fp16|fp32", "",
           "the job's precision (default: what --ds-config enables, else that of the source's run, "
           "else bf16)"),
    option("tag", "string", "auto",
           "name of the checkpoint's folder, told in latest; auto: global_step and the steps that "
           "the run has done"),
    option("sub-group-size", "int", "",
           "the job's sub_group_size, in elements of one rank (default: of --ds-config, else "
           "1000000000)"),
    option("optimizer", "enum:adamw|adam|fused-adam|cpu-adam", "",
           "the job's: torch's AdamW or Adam, DeepSpeed's FusedAdam or CPUAdam (default: what "
           "DeepSpeed makes of "
           "--ds-config, else of --target, else adamw)"),
    option("lr", "float", "",
           "learning rate of the first step; like the next three it REPLACES the job's own when "
           "the checkpoint is "
           "loaded, so it must come from here, --ds-config, --target or the source's run"),
    option("betas", "string", "",
           "of Adam; replaces the job's (default: of --ds-config or --target, else 0.9,0.999)"),
    option("eps", "float", "",
           "of Adam; replaces the job's (default: of --ds-config or --target, else 1e-8)"),
    option("weight-decay", "float", "",
           "replaces the job's, but for groups with their own; it must come from here, --ds-config "
           "or --target"),
    option("moments", "enum:holes|dense", "holes",
           "zeros of exp_avg and exp_avg_sq: holes in the files, or written out"),
    option("loss-scale-power", "int", "",
           "fp16: initial_scale_power (default: of --ds-config, else 16)"),
    option("loss-scale-window", "int", "",
           "fp16: loss_scale_window (default: of --ds-config, else 1000)"),
    option("hysteresis", "int", "", "fp16: hysteresis (default: of --ds-config, else 2)"),
};

Result<double> number(std::string_view flag, std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && std::isfinite(value) &&
      value >= 0)
    return value;
  return invalid(
      cat("--", flag, ": expected a number of 0 or more, found ", common::in_quotes(text)));
}

Result<std::vector<double>> betas_of(const std::string& text) {
  const size_t comma = text.find(',');
  if (comma == std::string::npos)
    return invalid(
        cat("--betas: expected two numbers as in 0.9,0.999, found ", common::in_quotes(text)));
  XD_TRY_SET(const double first, number("betas", text.substr(0, comma)));
  XD_TRY_SET(const double second, number("betas", text.substr(comma + 1)));
  if (first < 1 && second < 1) return std::vector<double>{first, second};
  return invalid(cat("--betas: expected two numbers below 1, found ", common::in_quotes(text)));
}

Result<HyperParameterFlags> hyper_parameters(const Options& options) {
  HyperParameterFlags out;
  for (const auto& [name, value] :
       {std::pair{"lr", &out.lr}, {"eps", &out.eps}, {"weight-decay", &out.weight_decay}}) {
    const std::string text = options.text(name);
    if (text.empty()) continue;
    XD_TRY_SET(const double given, number(name, text));
    *value = {given};
  }
  if (const std::string text = options.text("betas"); !text.empty()) {
    XD_TRY_SET(out.betas, betas_of(text));
  }
  return out;
}

// A whole number of a flag, else of the config, else the default. The host has checked that the
// flag's is one.
Result<int64_t> integer(const Options& options, const char* flag,
                        const common::DsField<int64_t>* field, int64_t fallback, int64_t least,
                        int64_t most) {
  const std::string text = options.text(flag);
  if (text.empty() && !field) return fallback;
  if (text.empty() && field->is_auto) return common::needs_flag(*field, flag);
  const int64_t value = text.empty() ? *field->value : std::strtoll(text.c_str(), nullptr, 10);
  if (value >= least && value <= most) return value;
  return invalid(cat(text.empty() ? cat("--ds-config: ", field->key) : cat("--", flag),
                     ": expected ", least, " to ", most, ", found ", value));
}

Result<manifest::DType> dtype_of(const std::string& flag,
                                 const std::optional<common::DsConfig>& config,
                                 manifest::DType run) {
  using manifest::DType;
  if (!flag.empty()) return flag == "bf16" ? DType::BF16 : flag == "fp16" ? DType::F16 : DType::F32;
  if (!config && run != DType::UNSPECIFIED) return run;
  if (!config || config->bf16.is(true)) return DType::BF16;
  if (config->fp16.is(true)) return DType::F16;
  if (config->bf16.is_auto) return common::needs_flag(config->bf16, "dtype");
  if (config->fp16.is_auto) return common::needs_flag(config->fp16, "dtype");
  return DType::F32;
}

Result<std::optional<Optimizer>> optimizer_of(std::string name,
                                              const std::optional<common::DsConfig>& config) {
  if (config && (name.empty() || !config->is_adam())) {
    XD_TRY_SET(const auto made, config->adam_class());
    name = made.value_or("");
  }
  if (name.empty()) return std::optional<Optimizer>();
  return std::optional(name == "adamw"        ? Optimizer::kAdamW
                       : name == "adam"       ? Optimizer::kAdam
                       : name == "fused-adam" ? Optimizer::kFusedAdam
                                              : Optimizer::kCpuAdam);
}

Result<LossScale> loss_scale_of(const Options& options,
                                const std::optional<common::DsConfig>& config) {
  LossScale out;
  const auto* c = config ? &*config : nullptr;
  XD_TRY_SET(out.power,
             integer(options, "loss-scale-power", c ? &c->scale_power : nullptr, out.power, 0, 62));
  XD_TRY_SET(out.window, integer(options, "loss-scale-window", c ? &c->scale_window : nullptr,
                                 out.window, 1, INT32_MAX));
  XD_TRY_SET(out.hysteresis, integer(options, "hysteresis", c ? &c->hysteresis : nullptr,
                                     out.hysteresis, 1, INT32_MAX));
  if (!c) return out;
  // DeepSpeed takes the default for what is "auto" here, and no launcher fills it in.
  out.least = c->min_scale.value.value_or(out.least);
  out.consecutive_hysteresis = c->consecutive_hysteresis.is(true);
  if (options.text("loss-scale-power").empty()) out.fixed = c->loss_scale.value.value_or(0);
  if (out.least < 1)
    return invalid(
        cat("--ds-config: ", c->min_scale.key, ": expected 1 or more, found ", out.least));
  if (!std::isfinite(out.fixed) || out.fixed < 0)
    return invalid(
        cat("--ds-config: ", c->loss_scale.key, ": expected 0 or more, found ", out.fixed));
  return out;
}

// Whether these shards are what such a job would load.
Result<void> check_job(const common::DsConfig& config) {
  if (!config.stage.is(3))
    return invalid(cat("--ds-config: expected zero_optimization.stage 3 for --to zero3, found ",
                       config.stage.value ? std::to_string(*config.stage.value) : "\"auto\"",
                       config.stage.is(1) || config.stage.is(2)
                           ? ": use --to universal"
                           : ": tell the job's stage in the file"));
  const auto refuse = [](std::string_view found, std::string_view instead) {
    return unsupported(cat("--ds-config: expected a job that loads plain ZeRO-3 shards, found ",
                           found, ": ", instead));
  };
  if (config.offload_optimizer.is("nvme"))
    return refuse("zero_optimization.offload_optimizer.device nvme",
                  "begin it with from_pretrained");
  if (config.autotp_size.value.value_or(0) > 1)
    return refuse("tensor_parallel.autotp_size", "use --to universal");
  if (config.autoep.is(true)) return refuse("expert_parallel", "begin it with from_pretrained");
  if (!config.special.empty()) return refuse(config.special[0], "begin it with from_pretrained");
  return {};
}

}  // namespace

const xd_option_desc* const kOptions[] = {&kAll[0],  &kAll[1],  &kAll[2],  &kAll[3],  &kAll[4],
                                          &kAll[5],  &kAll[6],  &kAll[7],  &kAll[8],  &kAll[9],
                                          &kAll[10], &kAll[11], &kAll[12], &kAll[13], nullptr};

Result<Settings> Settings::from(const Options& options, const manifest::Manifest& model) {
  Settings out;
  if (const std::string text = options.text("ds-config"); !text.empty()) {
    XD_TRY_SET(out.config, common::DsConfig::parse(text));
    XD_TRY(check_job(*out.config));
  }
  XD_TRY_SET(const int64_t world_size,
             integer(options, "world-size", nullptr, 1, 1, kMaxWorldSize));
  out.world_size = static_cast<uint64_t>(world_size);
  const bool is_given = !options.text("sub-group-size").empty();
  XD_TRY_SET(const int64_t sub_group_size,
             integer(options, "sub-group-size", out.config ? &out.config->sub_group_size : nullptr,
                     1'000'000'000, is_given ? 1 : 0, INT64_MAX));
  out.sub_group_size = static_cast<uint64_t>(sub_group_size);
  XD_TRY_SET(out.dtype,
             dtype_of(options.text("dtype"), out.config, torch_write::dtype_of_run(model)));
  if (out.dtype == manifest::DType::F16) {
    XD_TRY_SET(out.loss_scale, loss_scale_of(options, out.config));
  }
  XD_TRY_SET(out.optimizer, optimizer_of(options.text("optimizer"), out.config));
  XD_TRY_SET(out.flags, hyper_parameters(options));
  out.dense_moments = options.text("moments") == "dense";
  out.tag = options.text("tag");
  if (out.tag == "auto") out.tag = torch_write::tag_of_run(model);
  if (!common::is_portable_name(out.tag) || out.tag.find('/') != std::string::npos ||
      out.tag == kLatest || out.tag.size() > 255)
    return invalid(cat("--tag: expected the name of one folder, found ", common::in_quotes(out.tag),
                       ": try global_step0"));
  return out;
}

}  // namespace crossdock::writer_zero3
