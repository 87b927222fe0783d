// SPDX-License-Identifier: Apache-2.0

// What the user asked of the writer, checked; and which names can be names of files and folders.
#pragma once

#include <crossdock/plugin.hpp>

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "plugins/common/ds_config.h"

namespace crossdock::writer_universal {

enum class Moments { kHoles, kDense, kZeroStride, kNone };

struct Settings {
  std::string tag;
  bool keep_dtype = false;  // fp32.pt holds the source's element type
  Moments moments = Moments::kHoles;
  bool hf_trainer = false;
  std::optional<common::DsConfig> config;  // the job's: changes no file, only what the notes say

  // `model`: what its run tells is taken where no option says otherwise.
  static Result<Settings> from(const Options& options, const manifest::Manifest& model = {});
};

extern const xd_option_desc* const kOptions[];

// Names that the checkpoint's own files take beside the tag's folder. crossdock.json is the host's
// report.
inline constexpr std::string_view kLatest = "latest_universal", kReport = "crossdock.json",
                                  kTrainerState = "trainer_state.json", kScheduler = "scheduler.pt";

// Whether the first component of a path in the output folder is one of those, or the tag. Letter
// case is ignored, as some file systems do.
bool is_own_name(std::string_view path, const Settings& settings);

// Every tensor at these indexes gets the folder zero/<target name>: refuses names that cannot be
// one. (Names that meet on a file system that ignores the case of letters are the host's matter.)
Result<void> check_folder_names(std::span<const manifest::Tensor> tensors,
                                std::span<const uint64_t> indexes);

}  // namespace crossdock::writer_universal
