// SPDX-License-Identifier: Apache-2.0

// Every name of the job's module, once, and where its values are.
#pragma once

#include "plugins/deepspeed/model_states.h"

#include <string_view>
#include <vector>

namespace crossdock::deepspeed {

enum class Origin {
  kTrained,  // in a flat group
  kFrozen,   // in frozen_param_shapes
  kTied,     // another name of a parameter
  kStored,   // whole in the module's state: buffers, and what stage 1 has of frozen parameters
  kLost,     // in no file
};

struct Name {
  std::string_view name;
  Origin origin = Origin::kLost;
  bool is_parameter = true;
  const NamedShape* shape = nullptr;  // of trained and frozen ones
  size_t group = 0, index = 0;        // of trained ones: the flat group, and the place in it
  const Stored* in_module = nullptr;  // as the module's state has it
  std::string_view kept;              // of tied ones: the other name
};

class Names {
 public:
  // Borrows `model`. `stage`: of ZeRO. An error where a name is there twice.
  static Result<Names> make(const ModelStates& model, uint64_t stage);

  // As the module's state dict has them: parameters as in named_parameters().
  const std::vector<Name>& in_order() const { return names_; }
  // Whether that is so: a parameter that the state dict does not have stands behind the others.
  bool knows_order() const { return knows_order_; }

 private:
  std::vector<Name> names_;
  bool knows_order_ = true;
};

}  // namespace crossdock::deepspeed
