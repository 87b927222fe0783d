#include "plugins/writer_zero3/settings.h"

#include <charconv>
#include <cmath>
#include <optional>

#include "plugins/common/hf_folder.h"
#include "plugins/common/quote.h"

namespace crossdock::writer_zero3 {
namespace {

constexpr xd_option_desc option(const char* name, const char* type, const char* fallback, const char* help) {
  return {XD_INIT_SIZE(xd_option_desc), 0, name, type, fallback, help};
}

constexpr xd_option_desc kAll[] = {
    option("world-size", "int", nullptr, "ranks of the job: the checkpoint loads at this number only"),
    option("dtype", "enum:bf16|fp16|fp32", "bf16", "the job's precision: bf16 and fp16 when its config enables them"),
    option("tag", "string", "global_step0", "name of the checkpoint's folder, told in latest"),
    option("sub-group-size", "int", "1000000000", "the job's sub_group_size, in elements of one rank"),
    option("optimizer", "enum:adamw|adam|fused-adam|cpu-adam", "adamw",
           "the job's: torch's AdamW or Adam, DeepSpeed's FusedAdam or CPUAdam"),
    option("lr", "float", "0.001",
           "learning rate; like the next three it REPLACES the job's own when the checkpoint is loaded, but for groups "
           "whose "
           "--target says another"),
    option("betas", "string", "0.9,0.999", "of Adam; replaces the job's"),
    option("eps", "float", "1e-8", "of Adam; replaces the job's"),
    option("weight-decay", "float", "0.01", "replaces the job's"),
    option("moments", "enum:holes|dense", "holes",
           "zeros of exp_avg and exp_avg_sq: holes in the files, or written out"),
    option("loss-scale-power", "int", "16", "fp16: initial_scale_power of the job's config"),
    option("loss-scale-window", "int", "1000", "fp16: loss_scale_window of the job's config"),
    option("hysteresis", "int", "2", "fp16: hysteresis of the job's config"),
};

Result<double> number(std::string_view flag, std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && std::isfinite(value) && value >= 0) return value;
  return invalid(cat("--", flag, ": expected a number of 0 or more, found ", common::in_quotes(text)));
}

// The host has checked that it is an integer.
int64_t integer(const Options& options, const char* name) {
  return std::strtoll(options.text(name).c_str(), nullptr, 10);
}

Result<void> set_betas(const std::string& text, Settings& out) {
  const size_t comma = text.find(',');
  if (comma == std::string::npos)
    return invalid(cat("--betas: expected two numbers as in 0.9,0.999, found ", common::in_quotes(text)));
  XD_TRY_SET(out.beta1, number("betas", text.substr(0, comma)));
  XD_TRY_SET(out.beta2, number("betas", text.substr(comma + 1)));
  if (out.beta1 < 1 && out.beta2 < 1) return {};
  return invalid(cat("--betas: expected two numbers below 1, found ", common::in_quotes(text)));
}

}  // namespace

const xd_option_desc* const kOptions[] = {&kAll[0], &kAll[1], &kAll[2], &kAll[3],  &kAll[4],  &kAll[5],  &kAll[6],
                                          &kAll[7], &kAll[8], &kAll[9], &kAll[10], &kAll[11], &kAll[12], nullptr};

Result<Settings> Settings::from(const Options& options) {
  Settings out;
  const auto in_range = [&](const char* name, int64_t least, uint64_t most) -> Result<uint64_t> {
    const int64_t value = integer(options, name);
    if (value >= least && static_cast<uint64_t>(value) <= most) return static_cast<uint64_t>(value);
    return invalid(cat("--", name, ": expected ", least, " to ", most, ", found ", value));
  };
  XD_TRY_SET(out.world_size, in_range("world-size", 1, kMaxWorldSize));
  XD_TRY_SET(out.sub_group_size, in_range("sub-group-size", 1, INT64_MAX));
  XD_TRY_SET(const uint64_t power, in_range("loss-scale-power", 0, 62));
  XD_TRY_SET(const uint64_t window, in_range("loss-scale-window", 1, INT32_MAX));
  XD_TRY_SET(const uint64_t hysteresis, in_range("hysteresis", 1, INT32_MAX));
  out.scale_power = static_cast<int64_t>(power);
  out.scale_window = static_cast<int64_t>(window);
  out.hysteresis = static_cast<int64_t>(hysteresis);
  const std::string dtype = options.text("dtype"), optimizer = options.text("optimizer");
  out.dtype = dtype == "bf16" ? manifest::DType::BF16 : dtype == "fp16" ? manifest::DType::F16 : manifest::DType::F32;
  out.optimizer = optimizer == "adamw"        ? Optimizer::kAdamW
                  : optimizer == "adam"       ? Optimizer::kAdam
                  : optimizer == "fused-adam" ? Optimizer::kFusedAdam
                                              : Optimizer::kCpuAdam;
  XD_TRY_SET(out.lr, number("lr", options.text("lr")));
  XD_TRY_SET(out.eps, number("eps", options.text("eps")));
  XD_TRY_SET(out.weight_decay, number("weight-decay", options.text("weight-decay")));
  XD_TRY(set_betas(options.text("betas"), out));
  out.dense_moments = options.text("moments") == "dense";
  out.tag = options.text("tag");
  if (!common::is_safe_name(out.tag) || out.tag.find('/') != std::string::npos || out.tag == kLatest ||
      out.tag.size() > 255)
    return invalid(
        cat("--tag: expected the name of one folder, found ", common::in_quotes(out.tag), ": try global_step0"));
  return out;
}

Result<void> Settings::check_optimizer(const std::string& described) const {
  if (described.empty()) return {};
  constexpr std::pair<std::string_view, Optimizer> kClasses[] = {{"AdamW", Optimizer::kAdamW},
                                                                 {"Adam", Optimizer::kAdam},
                                                                 {"FusedAdam", Optimizer::kFusedAdam},
                                                                 {"DeepSpeedCPUAdam", Optimizer::kCpuAdam}};
  const std::string_view name = std::string_view(described).substr(described.rfind('.') + 1);
  for (const auto& [class_name, is] : kClasses) {
    if (name == class_name && is == optimizer) return {};
  }
  return invalid(cat("--optimizer: expected the class that --target describes, ", common::in_quotes(described),
                     ", found another: give adamw, adam (torch's), fused-adam or cpu-adam (DeepSpeed's) as it is"));
}

}  // namespace crossdock::writer_zero3
