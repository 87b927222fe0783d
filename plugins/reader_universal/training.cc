#include "plugins/reader_universal/training.h"

namespace crossdock::reader_universal {

namespace {

// The optimizer's groups, where it is known which parameters each has. crossdock's own folders have
// 64 groups without parameters, so that jobs find one for each of theirs.
std::vector<OptimizerGroup> known_groups(const Host& host, const States& states) {
  std::vector<OptimizerGroup> groups = states.optimizer.torch.groups;
  const size_t n_flat = states.model.groups.size();
  if (states.optimizer.torch.ids.size() == n_flat) return groups;
  std::erase_if(groups, [](const OptimizerGroup& g) { return g.hyper_parameters.empty(); });
  for (OptimizerGroup& group : groups) group.n_flat_groups = 1;
  if (groups.size() == n_flat) return groups;
  if (!groups.empty())
    host.log(XD_LOG_WARN, cat("the checkpoint has hyper-parameters of ", groups.size(),
                              " groups of the optimizer, but tells the parameters of ", n_flat,
                              ": hyper-parameters are left out"));
  return {};
}

}  // namespace

void add_training(const Host& host, const States& states, const std::optional<uint64_t>& step,
                  const TensorIndex& index, manifest::TrainingState& out) {
  out.step = step ? *step : steps_done(host, states.optimizer.steps, states.model);
  out.optimizer = states.optimizer.optimizer;
  out.groups = parameter_groups(known_groups(host, states), states.model, index);
}

}  // namespace crossdock::reader_universal
