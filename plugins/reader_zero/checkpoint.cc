#include "plugins/reader_zero/checkpoint.h"

#include "plugins/reader_zero/merge.h"
#include "plugins/reader_zero/pipeline.h"
#include "plugins/reader_zero/training.h"

namespace crossdock::reader_zero {

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input, const std::string& tag,
                                   Weights weights) {
  XD_TRY_SET(SavedJob job, read_states(host, input, tag));
  std::vector<Part> parts;
  for (size_t i = 0; i < job.parts.size(); ++i) {
    auto part = open_part(host, job, i, weights, i % job.tensor_ranks == 0);
    if (!part && job.parts.size() > 1) return std::move(part).error().in(part_name(i));
    if (!part) return std::move(part).error();
    parts.push_back(std::move(*part));
  }
  XD_TRY_SET(Merged merged, merge(job, std::move(parts)));
  Checkpoint out{std::move(merged.manifest), std::move(merged.contents), {}};
  out.manifest.source.format = "zero";
  out.manifest.source.metadata = metadata_of(job, out.manifest.training);
  out.manifest.source.files = std::move(job.files);
  out.sources = std::move(job.sources);
  return out;
}

}  // namespace crossdock::reader_zero
