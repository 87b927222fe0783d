// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/checkpoint.h"

#include "plugins/common/file_names.h"
#include "plugins/deepspeed/rounded.h"
#include "plugins/reader_zero/training.h"

namespace crossdock::reader_zero {

namespace {

JobFacts facts_of(const SavedJob& job) {
  const States& states = job.parts[0];
  const OptimizerStates& first = states.optimizer[0];
  return {job.tag, states.stage(), states.n_ranks(), first.optimizer, first.loss_scaler};
}

// Where ds_config is empty, as crossdock writes it, the name of the optimizer's files tells a job
// in bf16 (DeepSpeed 0.19.8, engine.py, _get_zero_ckpt_prefix).
void take_type_of_names(SavedJob& job) {
  for (const manifest::File& file : job.opened.files) {
    if (!common::base_name(file.name).starts_with("bf16_")) continue;
    for (States& part : job.parts) part.model.set_dtype(manifest::DType::BF16);
    return;
  }
}

}  // namespace

Result<Merged> open_checkpoint(const Host& host, const Input& input, const std::string& tag,
                               Weights weights, bool verify_crc) {
  XD_TRY_SET(SavedJob job, read_states(host, input, tag, verify_crc));
  if (job.parts[0].model.dtype == manifest::DType::UNSPECIFIED) take_type_of_names(job);
  std::vector<Part> parts;
  for (size_t i = 0; i < job.parts.size(); ++i) {
    auto part = open_part(host, job, i, weights, i % job.tensor_ranks == 0);
    if (!part && job.parts.size() > 1) return std::move(part).error().in(part_name(i));
    if (!part) return std::move(part).error();
    parts.push_back(std::move(*part));
  }
  XD_TRY_SET(Merged out, merge(job, std::move(parts)));
  for (manifest::Tensor& t : out.manifest.tensors) {
    const bool is_master = job.stage() == 3 && t.train == manifest::Training::kTrainable;
    if (weights == Weights::kModel && is_master)
      XD_TRY(deepspeed::round_weight(job.parts[0].model, t));
  }
  out.manifest.source.format = "zero";
  out.manifest.source.metadata = metadata_of(facts_of(job), job.parts[0].model);
  out.manifest.source.files = std::move(job.opened.files);
  out.sources = std::move(job.opened.sources);
  return out;
}

}  // namespace crossdock::reader_zero
