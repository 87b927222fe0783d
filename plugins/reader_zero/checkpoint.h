// A DeepSpeed checkpoint as a model and the state of its training: which tensors there are, and
// which segments of which files each is made of.
#pragma once

#include "plugins/common/segments.h"

#include <crossdock/plugin.hpp>

#include <string>
#include <vector>

namespace crossdock::reader_zero {

struct Checkpoint {
  manifest::Manifest manifest;             // without what lies beside the checkpoint
  std::vector<common::Segments> segments;  // of each tensor; with strides of its storage
  std::vector<Source> sources;             // by the manifest's number of the file
};

enum class Weights { kMaster, kModel };  // the optimizer's, or the job's own copy

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input, const std::string& tag,
                                   Weights weights);

}  // namespace crossdock::reader_zero
