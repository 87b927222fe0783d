// A DeepSpeed checkpoint as a model and the state of its training: which tensors there are, and
// which bytes of which files each is made of.
#pragma once

#include "plugins/reader_zero/content.h"
#include "plugins/reader_zero/part.h"

#include <crossdock/plugin.hpp>

#include <string>
#include <vector>

namespace crossdock::reader_zero {

struct Checkpoint {
  manifest::Manifest manifest;    // without what lies beside the checkpoint
  std::vector<Content> contents;  // of each tensor; with strides of its storage
  std::vector<Source> sources;    // by the manifest's number of the file
};

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input, const std::string& tag,
                                   Weights weights);

}  // namespace crossdock::reader_zero
