// What one model-parallel rank has of a model and of the state of its training: which tensors, and
// which segments of which files each is made of. Without model parallelism that is all of them.
#pragma once

#include "plugins/common/segments.h"
#include "plugins/reader_zero/states.h"

namespace crossdock::reader_zero {

enum class Weights { kMaster, kModel };  // the optimizer's, or the job's own copy

struct Part {
  manifest::Manifest manifest;             // tensors, names and the training's state
  std::vector<common::Segments> segments;  // of each tensor; with strides of its storage
};

// Of job.parts[number]. `warns`: of what is left out.
Result<Part> open_part(const Host& host, const SavedJob& job, size_t number, Weights weights,
                       bool warns);

}  // namespace crossdock::reader_zero
