#include "plugins/writer_universal/notes.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "plugins/common/quote.h"

namespace crossdock::writer_universal {
namespace {

// 5: "a", "b", "c", ...
std::string count_and_names(const manifest::Manifest& model, std::span<const uint64_t> indexes) {
  std::string out = fmt::format("{}:", indexes.size());
  for (size_t i = 0; i < std::min<size_t>(indexes.size(), 3); ++i) {
    out += fmt::format("{} {}", i == 0 ? "" : ",", common::in_quotes(model.tensors[indexes[i]].target()));
  }
  return indexes.size() > 3 ? out + ", ..." : out;
}

}  // namespace

std::vector<std::string> notes(const manifest::Manifest& model, const Parts& parts, const Settings& settings) {
  std::vector<std::string> out = {
      "Load it with \"checkpoint\": {\"load_universal\": true} in the DeepSpeed config. Once the job has saved a "
      "checkpoint "
      "of its own, resume from that with load_universal off: left on, every start is back at step 0.",
      "ZeRO stage 3 never compares shapes and loads a model of other shapes wrongly, without a word: compare your "
      "model's "
      "names and shapes with this report first, and resize embeddings only after loading."};

  if (settings.moments == Moments::kNone) {
    out.push_back(
        "Without moments ZeRO stage 3 loads this only by load_checkpoint(..., load_module_only=True); stages 1 and 2 "
        "load "
        "it as it is.");
  } else {
    out.push_back(
        "ZeRO stage 3 with torch's AdamW is exact with one optimizer sub-group only. With several (HF Trainer's decay "
        "and "
        "no-decay groups, or a sub_group_size below the model's size) it counts each step more than once and the "
        "losses "
        "are silently wrong: use stage 1 or 2, or load_checkpoint(..., load_module_only=True).");
  }
  if (settings.moments == Moments::kHoles) {
    out.push_back(
        "The zeros of exp_avg.pt and exp_avg_sq.pt are holes: they take no disk here, but may in a copy (rsync and tar "
        "want "
        "--sparse).");
  }
  if (settings.moments == Moments::kZeroStride) {
    out.push_back(
        "DeepSpeed's AutoTP (tensor_parallel.autotp_size) cannot load moments written with --moments zero-stride: "
        "convert "
        "with --moments holes for it.");
  }

  std::vector<uint64_t> rounded;
  for (const uint64_t i : parts.parameters) {
    if (model.tensors[i].dtype == manifest::DType::F64 && !settings.keep_dtype) rounded.push_back(i);
  }
  if (!rounded.empty()) {
    out.push_back(fmt::format("F64 parameters are rounded to fp32 ({}).", count_and_names(model, rounded)));
  }
  if (!parts.frozen.empty()) {
    out.push_back(fmt::format(
        "Frozen parameters are left out, for DeepSpeed would not restore them ({}): start the job's model with "
        "from_pretrained.",
        count_and_names(model, parts.frozen)));
  }
  if (!parts.buffers.empty()) {
    out.push_back(fmt::format(
        "Buffers are in the model states files under module, which a universal load does not restore ({}): when "
        "the model needs them, start it with from_pretrained.",
        count_and_names(model, parts.buffers)));
  }
  if (settings.hf_trainer) {
    out.push_back(
        "A resumed HF Trainer obeys logging_steps, eval_steps and save_steps of trainer_state.json (500 each), not of "
        "its "
        "TrainingArguments, and with auto_find_batch_size train_batch_size (8): edit the file to match your job.");
  }
  return out;
}

}  // namespace crossdock::writer_universal
