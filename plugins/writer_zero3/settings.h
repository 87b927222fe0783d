// What the user asked of the writer, checked.
#pragma once

#include <crossdock/plugin.hpp>

#include <string>

namespace crossdock::writer_zero3 {

inline constexpr uint64_t kMaxWorldSize = 1 << 16;

// AdamW and Adam are torch's; the others DeepSpeed's, which count steps in an int and have other hyper-parameters.
enum class Optimizer { kAdamW, kAdam, kFusedAdam, kCpuAdam };

struct Settings {
  std::string tag;
  uint64_t world_size = 1;
  manifest::DType dtype = manifest::DType::BF16;  // of the job's module
  uint64_t sub_group_size = 0;                    // elements of one rank
  Optimizer optimizer = Optimizer::kAdamW;
  double lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  bool dense_moments = false;
  // fp16 only, as in the job's config.
  int64_t scale_power = 0, scale_window = 0, hysteresis = 0;

  static Result<Settings> from(const Options& options);
  // `described`: the class of the job's optimizer, as --target tells it; empty when nothing does.
  Result<void> check_optimizer(const std::string& described) const;
};

extern const xd_option_desc* const kOptions[];

inline constexpr std::string_view kLatest = "latest";

}  // namespace crossdock::writer_zero3
