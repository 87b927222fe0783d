// SPDX-License-Identifier: Apache-2.0

// Which dict of a checkpoint is the model.
//
// A training loop's file has the model's dict beside the optimizer's, an average of the model,
// losses and settings. The model is what lies under a name that training loops use for it, when
// nothing else could be meant; the top level, when it holds parameters itself; else nobody can
// know, and the message lists what there is. FORMAT.md has the names.
#pragma once

#include "plugins/torch/read/pickle.h"

#include <string>

namespace crossdock::reader_bin {

using torch_read::Pickle;
using torch_read::Value;

struct Choice {
  Value dict;
  std::string path;  // empty: the top level
  std::vector<const Value*>
      not_of_model;      // values of the dict that are left out, in its order: optimizers' states
  std::string excluded;  // what lies beside the model, for a note
};

Result<Choice> choose_model(const Pickle& pickle);

// The dict that --state-dict-path names. "a.b": the dict b of the dict a, or the one whose name is
// "a.b"; ".": the top.
Result<Choice> model_at(const Pickle& pickle, const std::string& path);

// The keys that are there: for messages.
std::string keys_of(const Pickle& pickle, const Value& dict);

// What an object is: its class, with what is known of it and of what to do about it.
std::string describe_opaque(const Pickle& pickle, const Value& opaque);

}  // namespace crossdock::reader_bin
