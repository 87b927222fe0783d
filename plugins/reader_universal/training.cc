// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_universal/training.h"

#include "plugins/common/quote.h"

#include <algorithm>

namespace crossdock::reader_universal {

namespace {

using manifest::ParameterGroup;

// Of crossdock's own folders, whose groups are more than those that have parameters.
Result<std::vector<ParameterGroup>> named_groups(const OptimizerState& optimizer,
                                                 const TensorIndex& index) {
  std::vector<ParameterGroup> out;
  for (size_t i = 0; i < optimizer.names.size(); ++i) {
    ParameterGroup& group = out.emplace_back();
    if (i < optimizer.torch.groups.size())
      group.hyper_parameters = optimizer.torch.groups[i].hyper_parameters;
    for (const std::string& name : optimizer.names[i]) {
      const auto it = index.find(name);
      if (it == index.end())
        return corrupt(
            cat("zero/optimizer_state.pt: expected a parameter of the checkpoint in "
                "param_names, found ",
                common::in_quotes(name)));
      group.tensors.push_back(it->second);
    }
  }
  return out;
}

// Each is a group of param_shapes, or with stage 3 several.
std::vector<OptimizerGroup> known_groups(const Host& host, const States& states) {
  const TorchGroups& torch = states.optimizer.torch;
  const size_t n_flat = states.model.groups.size();
  if (torch.ids.size() == n_flat) return torch.groups;
  const bool has_any = std::any_of(torch.groups.begin(), torch.groups.end(), [](const auto& group) {
    return !group.hyper_parameters.empty();
  });
  if (has_any)
    host.log(XD_LOG_WARN, cat("the optimizer's groups have ", torch.ids.size(),
                              " parts, param_shapes tells the parameters of ", n_flat,
                              ": hyper-parameters are left out"));
  return {};
}

}  // namespace

Result<void> add_training(const Host& host, const States& states,
                          const std::optional<uint64_t>& step, const TensorIndex& index,
                          manifest::TrainingState& out) {
  out.step = step ? *step : steps_done(host, states.optimizer.steps, states.model);
  out.optimizer = states.optimizer.optimizer;
  if (states.optimizer.names.empty()) {
    out.groups = parameter_groups(known_groups(host, states), states.model, index);
  } else {
    XD_TRY_SET(out.groups, named_groups(states.optimizer, index));
  }
  return {};
}

}  // namespace crossdock::reader_universal
