// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_universal/notes.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>

#include "plugins/common/quote.h"

namespace crossdock::writer_universal {
namespace {

// 5: "a", "b", "c", ...
std::string count_and_names(const manifest::Manifest& model, std::span<const uint64_t> indexes) {
  std::string out = fmt::format("{}:", indexes.size());
  for (size_t i = 0; i < std::min<size_t>(indexes.size(), 3); ++i) {
    out += fmt::format("{} {}", i == 0 ? "" : ",",
                       common::in_quotes(model.tensors[indexes[i]].target()));
  }
  return indexes.size() > 3 ? out + ", ..." : out;
}

// The stage of --ds-config; nothing when it is not known.
std::optional<int64_t> stage_of(const Settings& settings) {
  return settings.config ? settings.config->stage.value : std::nullopt;
}

std::string how_to_load(const manifest::Manifest& model, const Settings& settings) {
  const std::string then = fmt::format(
      "Once the job has saved a checkpoint of its own, resume from that with "
      "load_universal off: left on, every start is back at step {}.",
      model.training.step);
  if (!settings.config)
    return "Load it with \"checkpoint\": {\"load_universal\": true} in the DeepSpeed config. " +
           then;
  if (settings.config->load_universal.is(true))
    return "checkpoint.load_universal is on in --ds-config, as it must be. " + then;
  return "checkpoint.load_universal is not on in --ds-config: set it to true, or the job will not "
         "find this "
         "checkpoint. " +
         then;
}

constexpr std::string_view kCountsTwice =
    " counts each step more than once and the losses are silently wrong: use --to zero3, ZeRO "
    "stage 1 or 2, or "
    "load_checkpoint(..., load_module_only=True).";

// The optimizer's sub-groups at stage 3. How many there are depends on the number of ranks, which
// is not known here.
void add_sub_groups(const manifest::Manifest& model, const Parts& parts, const Settings& settings,
                    std::vector<std::string>& out) {
  const auto n_groups = std::ranges::count_if(model.training.groups,
                                              [](const auto& g) { return !g.tensors.empty(); });
  if (n_groups > 1) {
    out.push_back(fmt::format("The job has {} optimizer groups, with which ZeRO stage 3{}",
                              n_groups, kCountsTwice));
    return;
  }
  const bool is_known = stage_of(settings).has_value() && settings.config->sub_group_size.value;
  if (!is_known) {
    out.push_back(
        fmt::format("ZeRO stage 3 is exact with one optimizer sub-group only. With several (HF "
                    "Trainer's decay and "
                    "no-decay groups, or a sub_group_size below the model's size) it{}",
                    kCountsTwice));
    return;
  }
  if (n_groups == 0) {
    out.push_back(fmt::format(
        "ZeRO stage 3 is exact with one optimizer group only. With several (the HF Trainer makes "
        "two when the config has no optimizer) it{}",
        kCountsTwice));
  }
  uint64_t n_elems = 0;
  for (const uint64_t i : parts.parameters) n_elems += torch_write::element_count(model.tensors[i]);
  const auto size =
      static_cast<uint64_t>(std::max<int64_t>(*settings.config->sub_group_size.value, 1));
  if (n_elems <= size) return;
  out.push_back(
      fmt::format("The model has {} elements to train and sub_group_size in --ds-config is {}: on "
                  "fewer than about {} "
                  "ranks the optimizer has several sub-groups, with which ZeRO stage 3{}",
                  n_elems, size, (n_elems - 1) / size + 1, kCountsTwice));
}

void add_stage(const manifest::Manifest& model, const Parts& parts, const Settings& settings,
               std::vector<std::string>& out) {
  const auto stage = stage_of(settings);
  if (stage == 0) {
    out.emplace_back(
        "The job of --ds-config runs without ZeRO (zero_optimization.stage 0), which cannot load "
        "this checkpoint: use "
        "stage 1, 2 or 3.");
  }
  if (stage && stage != 3) return;
  out.emplace_back(
      "ZeRO stage 3 never compares shapes and loads a model of other shapes wrongly, without a "
      "word: compare your "
      "model's names and shapes with this report first, and resize embeddings only after loading.");
  if (settings.moments != Moments::kNone) return add_sub_groups(model, parts, settings, out);
  out.emplace_back(
      "Without moments ZeRO stage 3 loads this only by load_checkpoint(..., "
      "load_module_only=True); stages 1 and 2 "
      "load "
      "it as it is.");
}

// What of the job of --ds-config such a folder is not for.
void add_job(const common::DsConfig& config, std::vector<std::string>& out) {
  if (!config.is_adam()) {
    out.push_back(fmt::format(
        "The optimizer of --ds-config is {}, and the moments here are Adam's: load it by "
        "load_checkpoint(..., load_module_only=True).",
        common::in_quotes(*config.optimizer.value)));
  }
  if (config.fp16.is(true)) {
    out.emplace_back(
        "A job in fp16 makes its weights of the fp32 ones when it loads them: values beyond 65504 "
        "become infinite, "
        "without a word (--to zero3 --dtype fp16 counts them). Loading in fp16 is not tested: "
        "DeepSpeed has none on a "
        "CPU.");
  }
  if (config.offload_optimizer.is("nvme")) {
    out.emplace_back(
        "A job with offload_optimizer on NVMe loads only what it has saved itself, so loading this "
        "fails: begin it "
        "with from_pretrained.");
  }
  if (config.offload_param.is("nvme") && !config.stage.is(1) && !config.stage.is(2)) {
    out.emplace_back(
        "Parameters that offload_param keeps on NVMe beyond max_in_cpu are not restored by "
        "DeepSpeed: loading then "
        "fails.");
  }
  if (config.autoep.is(true)) {
    out.emplace_back(
        "expert_parallel is on in --ds-config: AutoEP gives experts and routers other names than "
        "they have here, so "
        "the job will not find them.");
  }
  for (const std::string& key : config.special)
    out.push_back(fmt::format(
        "{} of --ds-config changes what the optimizer keeps: loading this with it is not tested.",
        key));
}

void add_auto_tp(const Settings& settings, std::vector<std::string>& out) {
  if (settings.moments != Moments::kZeroStride) return;
  const auto* size = settings.config ? &settings.config->autotp_size : nullptr;
  if (size && size->value && *size->value <= 1) return;
  out.push_back(
      fmt::format("DeepSpeed's AutoTP (tensor_parallel.autotp_size{}) cannot load moments written "
                  "with --moments zero-stride: "
                  "convert with --moments holes for it.",
                  size && size->value ? fmt::format(" {} in --ds-config", *size->value) : ""));
}

}  // namespace

std::vector<std::string> notes(const manifest::Manifest& model, const Parts& parts,
                               const Settings& settings) {
  std::vector<std::string> out = {how_to_load(model, settings)};
  add_stage(model, parts, settings, out);
  if (settings.config) add_job(*settings.config, out);
  if (settings.moments == Moments::kHoles && model.training.moments.empty()) {
    out.push_back(
        "The zeros of exp_avg.pt and exp_avg_sq.pt are holes: they take no disk here, but may in a "
        "copy (rsync and tar "
        "want "
        "--sparse).");
  }
  add_auto_tp(settings, out);

  std::vector<uint64_t> rounded;
  for (const uint64_t i : parts.parameters) {
    if (model.tensors[i].dtype == manifest::DType::F64 && !settings.keep_dtype)
      rounded.push_back(i);
  }
  if (!rounded.empty()) {
    out.push_back(
        fmt::format("F64 parameters are rounded to fp32 ({}).", count_and_names(model, rounded)));
  }
  if (!parts.frozen.empty()) {
    out.push_back(
        fmt::format("Frozen parameters are left out, for DeepSpeed would not restore them ({}): "
                    "start the job's model with "
                    "from_pretrained.",
                    count_and_names(model, parts.frozen)));
  }
  if (!parts.buffers.empty()) {
    out.push_back(
        fmt::format("Buffers are in the model states files under module, which a universal load "
                    "does not restore ({}): when "
                    "the model needs them, start it with from_pretrained.",
                    count_and_names(model, parts.buffers)));
  }
  if (settings.hf_trainer) {
    out.push_back(
        "A resumed HF Trainer obeys logging_steps, eval_steps and save_steps of trainer_state.json "
        "(500 each), not of "
        "its "
        "TrainingArguments, and with auto_find_batch_size train_batch_size (8): edit the file to "
        "match your job.");
  }
  return out;
}

}  // namespace crossdock::writer_universal
