#include "plugins/reader_zero/training.h"

#include "plugins/common/file_names.h"

#include <algorithm>

namespace crossdock::reader_zero {

namespace {

std::optional<int64_t> counter(const ModelStates& model, std::string_view key) {
  for (const manifest::KeyValue& entry : model.metadata) {
    const auto* n = entry.key == key ? entry.value.get<int64_t>() : nullptr;
    if (n) return *n;
  }
  return std::nullopt;
}

// Steps of the optimizer; where it does not count them, those of the job.
uint64_t steps_done(const Host& host, const States& states, bool warns) {
  std::vector<uint64_t> steps;
  for (const FlatGroup& group : states.optimizer[0].flat_groups) {
    if (group.step) steps.push_back(*group.step);
  }
  if (steps.empty()) {
    const int64_t done = counter(states.model, "global_steps").value_or(0),
                  skipped = counter(states.model, "skipped_steps").value_or(0);
    return static_cast<uint64_t>(std::max<int64_t>(done - std::min(done, skipped), 0));
  }
  const auto [least, most] = std::minmax_element(steps.begin(), steps.end());
  if (warns && *least != *most)
    host.log(XD_LOG_WARN, cat("the optimizer has done ", *least, " steps of one group and ", *most,
                              " of another: the larger number is kept"));
  return *most;
}

// The parameters of each of the optimizer's groups, which have a flat group each, with stage 3
// perhaps several.
std::vector<manifest::ParameterGroup> parameter_groups(const States& states,
                                                       const TensorIndex& index) {
  std::vector<OptimizerGroup> groups = states.optimizer[0].groups;
  const size_t n_flat = states.model.groups.size();
  if (groups.empty()) groups.push_back({n_flat, {}});  // the file does not tell
  std::vector<manifest::ParameterGroup> out;
  size_t flat = 0;
  for (OptimizerGroup& group : groups) {
    manifest::ParameterGroup& one = out.emplace_back();
    one.hyper_parameters = std::move(group.hyper_parameters);
    for (size_t i = 0; i < group.n_flat_groups && flat < n_flat; ++i, ++flat) {
      for (const NamedShape& p : states.model.groups[flat]) one.tensors.push_back(index.at(p.name));
    }
  }
  return out;
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
  training.step = steps_done(host, states, warns);
  training.optimizer = states.optimizer[0].optimizer;
  training.groups = parameter_groups(states, index);
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

std::vector<manifest::KeyValue> metadata_of(const SavedJob& job,
                                            const manifest::TrainingState& training) {
  const States& states = job.parts[0];
  std::vector<manifest::KeyValue> out;
  if (!job.tag.empty()) out.push_back({"tag", {job.tag}});
  out.push_back({"zero_stage", {static_cast<int64_t>(states.stage())}});
  out.push_back({"dp_world_size", {static_cast<int64_t>(states.n_ranks())}});
  out.insert(out.end(), states.model.metadata.begin(), states.model.metadata.end());
  if (!training.optimizer.empty()) out.push_back({"optimizer", {training.optimizer}});
  const manifest::Value& scaler = states.optimizer[0].loss_scaler;
  if (scaler.get<manifest::ValueMap>()) out.push_back({"loss_scaler", scaler});
  return out;
}

}  // namespace crossdock::reader_zero
