// SPDX-License-Identifier: Apache-2.0

// What the model-parallel ranks have, put together: the shares of tensor-parallel ranks, the layers
// of pipeline stages.
#pragma once

#include "plugins/reader_zero/content.h"
#include "plugins/reader_zero/part.h"

namespace crossdock::reader_zero {

struct Merged {
  manifest::Manifest manifest;    // without what lies beside the checkpoint
  std::vector<Content> contents;  // of each tensor; with strides of its storage
  std::vector<Source> sources;    // by the manifest's number of the file
};

// `parts`: of each of job.parts. One alone stays as it is. Without sources.
Result<Merged> merge(const SavedJob& job, std::vector<Part> parts);

}  // namespace crossdock::reader_zero
