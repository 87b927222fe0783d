// SPDX-License-Identifier: Apache-2.0

// Which tensors of a checkpoint are the model, which are moments of its parameters, and what else
// there is.
//
// A training program saves a nested dict: {"model": {NAME: ...}, "optimizer": {"state": {NAME:
// {"exp_avg": ...}}}}, and .metadata keeps the keys that lead to each tensor. The model is what
// lies under the keys that programs use for it, or all that is no optimizer's when no such keys are
// there. FORMAT.md has the names.
#pragma once

#include "plugins/reader_dcp/metadata.h"

#include <optional>
#include <string>
#include <vector>

namespace crossdock::reader_dcp {

struct Named {
  size_t tensor = 0;  // in the list that was chosen from
  std::string name;
};

// An optimizer's state of a parameter.
struct State {
  std::string parameter, kind;
};

// "app.optim.state.NAME.exp_avg", by its keys or by its one name.
std::optional<State> optimizer_state(const Entry& entry);
// "app.optim.param_groups.0.lr".
struct Setting {
  uint64_t group = 0;
  std::string key;
};
std::optional<Setting> group_setting(const Entry& entry);
// Whether it belongs to an optimizer: states and groups of parameters.
bool is_of_optimizer(const Entry& entry);

struct Choice {
  std::vector<Named> model;
  std::vector<std::string> left_out;  // names of tensors that are neither
};

// `wanted`: the keys that lead to the model, joined with dots; empty: not said; ".": all.
Result<Choice> choose_model(const std::vector<TensorEntry>& tensors, const std::string& wanted);

}  // namespace crossdock::reader_dcp
