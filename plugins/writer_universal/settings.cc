// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_universal/settings.h"

#include <fmt/format.h>

#include <algorithm>

#include "plugins/common/quote.h"
#include "plugins/torch/write/training.h"

#include <crossdock/file_name.hpp>

namespace crossdock::writer_universal {
namespace {

// "auto" tells --compact what the user did not ask for otherwise.
constexpr xd_option_desc kTag = {XD_INIT_SIZE(xd_option_desc),
                                 0,
                                 "tag",
                                 "string",
                                 "auto",
                                 "name of the checkpoint's folder, told in latest_universal; auto: "
                                 "global_step and the steps that the run has done"};
constexpr xd_option_desc kPrecision = {XD_INIT_SIZE(xd_option_desc),
                                       0,
                                       "precision",
                                       "enum:auto|fp32|source",
                                       "auto",
                                       "element type of the weights: fp32, or the source's (exact "
                                       "too, and smaller); auto: fp32 unless --compact"};
constexpr xd_option_desc kMoments = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "moments",
    "enum:auto|holes|dense|zero-stride|none",
    "auto",
    "zeros of exp_avg and exp_avg_sq: holes in the files, written out, one number "
    "repeated (not for AutoTP), or no files "
    "(not for stage 3); auto: holes unless --compact"};
constexpr xd_option_desc kCompact = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "compact",
    "bool",
    "false",
    "--precision source --moments zero-stride: about the size of the source"};
constexpr xd_option_desc kHfTrainer = {XD_INIT_SIZE(xd_option_desc),
                                       0,
                                       "hf-trainer",
                                       "bool",
                                       "false",
                                       "add trainer_state.json and scheduler.pt, for "
                                       "resume_from_checkpoint of the Hugging Face Trainer"};

constexpr xd_option_desc kDsConfig = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "ds-config",
    "file",
    "",
    "the job's DeepSpeed config (JSON): tells what of this job is inexact from such "
    "a folder, or fails; no file changes"};

bool is_global_step(std::string_view tag) {
  constexpr std::string_view kStem = "global_step";
  return tag.starts_with(kStem) && tag.size() > kStem.size() &&
         tag.find_first_not_of("0123456789", kStem.size()) == std::string_view::npos;
}

Result<void> check_tag(const Settings& settings) {
  const std::string& tag = settings.tag;
  std::string fault = name_fault(tag);
  // DeepSpeed strips what it reads from latest_universal.
  if (fault.empty() &&
      std::any_of(tag.begin(), tag.end(), [](unsigned char c) { return c <= ' ' || c == 0x7f; })) {
    fault = "holds a space or control character";
  }
  Settings others = settings;
  others.tag.clear();
  if (fault.empty() && is_own_name(tag, others))
    fault = "is the name of another file of the checkpoint";
  if (!fault.empty()) {
    return invalid(
        fmt::format("--tag: expected the name of one folder, found {}, which {}: try global_step0",
                    common::in_quotes(tag), fault));
  }
  if (settings.hf_trainer && !is_global_step(tag)) {
    return invalid(
        fmt::format("--tag: with --hf-trainer expected global_step and a number, the only folders "
                    "that the Trainer "
                    "looks for, found {}: leave --tag out, or say global_step0",
                    common::in_quotes(tag)));
  }
  return {};
}

}  // namespace

const xd_option_desc* const kOptions[] = {&kTag,       &kPrecision, &kMoments, &kCompact,
                                          &kHfTrainer, &kDsConfig,  nullptr};

Result<Settings> Settings::from(const Options& options, const manifest::Manifest& model) {
  std::string precision = options.text("precision"), moments = options.text("moments");
  if (options.flag("compact")) {
    for (const auto& [name, value, compact] :
         {std::tuple{"precision", &precision, "source"}, {"moments", &moments, "zero-stride"}}) {
      if (*value != "auto" && *value != compact) {
        return invalid(fmt::format(
            "--compact means --{0} {1}, found --{0} {2} beside it: leave one of the two out", name,
            compact, *value));
      }
      *value = compact;
    }
  }
  Settings out;
  out.tag = options.text("tag");
  if (out.tag == "auto") out.tag = torch_write::tag_of_run(model);
  out.keep_dtype = precision == "source";
  out.moments = moments == "dense"         ? Moments::kDense
                : moments == "zero-stride" ? Moments::kZeroStride
                : moments == "none"        ? Moments::kNone
                                           : Moments::kHoles;
  out.hf_trainer = options.flag("hf-trainer");
  XD_TRY(check_tag(out));
  if (const std::string text = options.text("ds-config"); !text.empty()) {
    XD_TRY_SET(out.config, common::DsConfig::parse(text));
  }
  return out;
}

bool is_own_name(std::string_view path, const Settings& settings) {
  const std::string first = fold_case(path.substr(0, path.find('/')));
  return first == fold_case(settings.tag) || first == kLatest || first == kReport ||
         (settings.hf_trainer && (first == kTrainerState || first == kScheduler));
}

Result<void> check_folder_names(std::span<const manifest::Tensor> tensors,
                                std::span<const uint64_t> indexes) {
  for (const uint64_t i : indexes) {
    const manifest::Tensor& tensor = tensors[i];
    std::string fault = name_fault(tensor.target());
    if (fault.empty() && fold_case(tensor.target()) == "optimizer_state.pt")
      fault = "is a file of the checkpoint";
    if (fault.empty()) continue;
    return invalid(
        fmt::format("tensor {}: expected a name that can be a folder's, found {}, which {}: "
                    "give it another with --rename FROM=TO",
                    common::in_quotes(tensor.name), common::in_quotes(tensor.target()), fault));
  }
  return {};
}

}  // namespace crossdock::writer_universal
