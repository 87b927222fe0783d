// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/training.h"

#include "plugins/common/file_names.h"

#include <algorithm>

namespace crossdock::reader_zero {

namespace {

std::vector<uint64_t> counted_steps(const States& states) {
  std::vector<uint64_t> out;
  for (const FlatGroup& group : states.optimizer[0].flat_groups) {
    if (group.step) out.push_back(*group.step);
  }
  return out;
}

// No error: a job that was loaded without its optimizer's states has counted on from another step.
// Where crossdock wrote the files from a source that does not count the job's steps, they are 0.
void warn_of_other_step(const Host& host, uint64_t step, const ModelStates& model) {
  const auto of_job = steps_of_job(model);
  if (of_job.value_or(0) == 0 || step == 0 || *of_job == step) return;
  host.log(XD_LOG_WARN,
           cat("expected model states of step ", step,
               " as the optimizer states are, found them to be of step ", *of_job,
               " (global_steps - skipped_steps), as after load_optimizer_states=False: if the job "
               "did no such thing, the files are of different saves"));
}

// "exp_avg/NAME" of every parameter, then the next kind.
void add_moment(const Groups& groups, const Groups::Moment& moment, size_t g,
                const std::vector<NamedShape>& parameters, const TensorIndex& index, Part& out) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    const uint64_t state = out.manifest.tensors.size();
    manifest::Tensor& t = out.manifest.tensors.emplace_back();
    t.name = cat(moment.key, '/', parameters[i].name);
    t.dtype = moment.dtype;
    t.shape = parameters[i].shape;
    t.role = manifest::Role::kOptimizerState;
    common::Segments segments = groups.moment(moment, g, i);
    t.extents = segments.extents();
    out.segments.push_back(std::move(segments));
    out.manifest.training.moments.push_back({moment.key, index.at(parameters[i].name), state});
  }
}

}  // namespace

Result<void> add_training(const Host& host, const States& states, const Groups& groups,
                          const TensorIndex& index, Part& out, bool warns) {
  manifest::TrainingState& training = out.manifest.training;
  if (warns) {
    const auto counted = counted_steps(states);
    training.step = steps_done(host, counted, states.model);
    if (!counted.empty()) warn_of_other_step(host, training.step, states.model);
  }
  training.optimizer = states.optimizer[0].optimizer;
  training.groups = parameter_groups(states.optimizer[0].groups, states.model, index);
  std::vector<std::string> left_out;
  std::vector<std::vector<Groups::Moment>> of_group;
  std::vector<std::string> kinds;
  for (size_t g = 0; g < groups.size(); ++g) {
    XD_TRY_SET(of_group.emplace_back(), groups.moments(g, left_out));
    for (const Groups::Moment& moment : of_group[g]) {
      const bool is_new = std::find(kinds.begin(), kinds.end(), moment.key) == kinds.end();
      if (is_new && kinds.size() <= kMaxStates) kinds.push_back(moment.key);
    }
  }
  if (kinds.size() > kMaxStates)
    return unsupported(
        cat("expected at most ", kMaxStates, " kinds of an optimizer's state, found more"));
  for (const std::string& kind : kinds) {
    for (size_t g = 0; g < groups.size(); ++g) {
      for (const Groups::Moment& moment : of_group[g]) {
        if (moment.key == kind) add_moment(groups, moment, g, states.model.groups[g], index, out);
      }
    }
  }
  if (warns && !left_out.empty())
    host.log(XD_LOG_WARN, cat("the optimizer's ", common::listed(left_out),
                              " have another number of elements than its parameters, and are left "
                              "out"));
  return {};
}

}  // namespace crossdock::reader_zero
