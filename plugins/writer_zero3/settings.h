// SPDX-License-Identifier: Apache-2.0

// What the user asked of the writer, checked: flags, then what --ds-config says, then defaults.
#pragma once

#include <crossdock/plugin.hpp>

#include <optional>
#include <string>
#include <vector>

#include "plugins/common/ds_config.h"

namespace crossdock::writer_zero3 {

inline constexpr uint64_t kMaxWorldSize = 1 << 16;

// AdamW and Adam are torch's; the others DeepSpeed's, which count steps in an int and have other
// hyper-parameters.
enum class Optimizer { kAdamW, kAdam, kFusedAdam, kCpuAdam };

// Of a job in fp16, as in its config.
struct LossScale {
  double fixed = 0;  // 0: dynamic, by the others
  int64_t power = 16, window = 1000, hysteresis = 2, least = 1;
  bool consecutive_hysteresis = false;
};

// As the flags have them; the other sources are hyper_parameters.h's to ask.
struct HyperParameterFlags {
  std::optional<std::vector<double>> lr, betas, eps, weight_decay;
};

struct Settings {
  std::string tag;
  uint64_t world_size = 1;
  manifest::DType dtype = manifest::DType::BF16;  // of the job's module
  uint64_t sub_group_size = 0;                    // elements of one rank
  std::optional<Optimizer> optimizer;             // as the flag or --ds-config has it
  HyperParameterFlags flags;
  bool dense_moments = false;
  LossScale loss_scale;
  std::optional<common::DsConfig> config;

  // `model`: what its run tells is taken where no option says otherwise.
  static Result<Settings> from(const Options& options, const manifest::Manifest& model = {});
};

extern const xd_option_desc* const kOptions[];

inline constexpr std::string_view kLatest = "latest";

}  // namespace crossdock::writer_zero3
