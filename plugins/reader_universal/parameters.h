// SPDX-License-Identifier: Apache-2.0

// What zero/NAME/*.pt say: a parameter's values, its moments, how many steps were done.
#pragma once

#include "plugins/reader_universal/states.h"

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace crossdock::reader_universal {

struct Parameter {
  Stored master;
  std::vector<std::pair<std::string, Stored>> moments;  // by kind, sorted
  manifest::ValueMap layout;  // how its parts were joined; empty where that is nothing special
};

class ParameterReader {
 public:
  // Borrows all.
  ParameterReader(const CheckpointFiles& files, const ModelStates& model, Opener& opener)
      : files_(files), model_(model), opener_(opener) {}

  // `expected`: what param_shapes says of it; null where it is not there. Errors: a file that is
  // not there, or none of a parameter's, or fits not to the others.
  Result<Parameter> read(std::string_view name, const NamedShape* expected);

  // ---- of those that were read
  const std::optional<uint64_t>& step() const { return step_; }
  // How many have no moments while others do.
  size_t n_without_moments() const { return kinds_.empty() ? 0 : n_without_moments_; }
  const std::set<std::string>& kinds() const { return kinds_; }

 private:
  struct State {
    Stored value;
    bool is_bare = false, is_vocabulary = false, is_expert = false;
    manifest::ValueMap layout;
  };
  static Result<State> read_state(const FileInput& in);
  Result<void> take_shape(const NamedShape* expected, State& state) const;
  Result<void> take_step(std::string_view name, const FileInput& in);
  Result<void> check_kinds(std::string_view name, const Parameter& parameter);

  const CheckpointFiles& files_;
  const ModelStates& model_;
  Opener& opener_;
  std::optional<uint64_t> step_;
  std::string name_of_step_;  // the parameter that has it
  std::set<std::string> kinds_;
  std::string name_of_kinds_;
  size_t n_without_moments_ = 0;
};

}  // namespace crossdock::reader_universal
