// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/optimizer_states.h"

#include "plugins/common/file_names.h"
#include "plugins/common/quote.h"

#include <algorithm>
#include <map>

namespace crossdock::reader_zero {

namespace {

using common::in_quotes;
using torch_read::TorchFile;

constexpr size_t kMaxFlatGroups = 100'000;
constexpr std::string_view kFlatOfStage3 = "fp32_flat_groups",
                           kFlat = "single_partition_of_fp32_groups";

struct Input : FileInput {
  bool warns;
};

Result<std::vector<uint64_t>> naturals_in(const Pickle& pickle, std::span<const Value> values,
                                          const std::string& place) {
  std::vector<uint64_t> out;
  for (const Value& value : values) {
    const auto number = integer(pickle, value);
    if (!number || *number < 0)
      return corrupt(cat(place, ": expected numbers of 0 or more, found ",
                         number ? cat(*number) : std::string(torch_read::name_of(value.kind))));
    out.push_back(static_cast<uint64_t>(*number));
  }
  return out;
}

// A number, or a list of them; empty where the key is not there.
Result<std::vector<uint64_t>> naturals(const Dict& dict, std::string_view key) {
  const Value* v = dict.find(key);
  if (!v) return std::vector<uint64_t>();
  const bool is_list = v->kind == Kind::kList || v->kind == Kind::kTuple;
  return naturals_in(dict.pickle(), is_list ? sequence(dict.pickle(), *v) : std::span(v, 1),
                     dict.place_of(key));
}

Result<std::vector<std::vector<uint64_t>>> lists_of_naturals(const Dict& dict,
                                                             std::string_view key) {
  std::vector<std::vector<uint64_t>> out;
  if (!dict.find(key)) return out;
  XD_TRY_SET(const auto lists, dict.list(key));
  for (const Value& list : lists) {
    XD_TRY_SET(out.emplace_back(),
               naturals_in(dict.pickle(), sequence(dict.pickle(), list), dict.place_of(key)));
  }
  return out;
}

Result<Stored> flat_tensor(const Input& in, const Value& value, const std::string& place) {
  const Pickle& pickle = in.torch.pickle();
  if (value.kind != Kind::kTensor)
    return unsupported(cat(place, ": expected a tensor, found ",
                           value.kind == Kind::kOpaque
                               ? pickle.class_of(value)
                               : std::string(torch_read::name_of(value.kind))));
  const torch_read::Tensor& t = pickle.tensor(value);
  const bool is_float = manifest::info(t.dtype).kind == manifest::Kind::kFloat;
  if (t.shape.size() != 1 || !t.is_dense() || !is_float)
    return unsupported(
        cat(place, ": expected floating-point values of one dimension, found another tensor"));
  auto stored = locate(in.torch, in.file, t);
  return stored ? std::move(stored) : std::move(stored).error().in(place);
}

Error too_many_states(const std::string& place) {
  return unsupported(
      cat(place, ": expected at most ", kMaxStates, " kinds of an optimizer's state, found more"));
}

// The optimizer's state of one flat group: tensors of one dimension, and the step.
Result<void> add_states(const Input& in, const Value& value, const std::string& place,
                        FlatGroup& out) {
  const Pickle& pickle = in.torch.pickle();
  XD_TRY_SET(const Dict dict, Dict::of(pickle, value, place));
  XD_TRY_SET(out.step, step_of(in, dict.find("step")));
  const auto items = dict.items();
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (items[i].kind != Kind::kText || items[i + 1].kind != Kind::kTensor) continue;
    const std::string key(pickle.text(items[i]));
    const torch_read::Tensor& t = pickle.tensor(items[i + 1]);
    if (t.shape.size() != 1 || key == "step") continue;
    XD_TRY_SET(Stored stored, flat_tensor(in, items[i + 1], dict.place_of(key)));
    const auto is_same = [&](const FlatGroup::State& s) { return s.key == key; };
    if (std::any_of(out.states.begin(), out.states.end(), is_same))
      return corrupt(cat(place, ": expected each key once, found ", in_quotes(key), " twice"));
    if (out.states.size() == kMaxStates) return too_many_states(place);
    out.states.push_back({key, std::move(stored)});
  }
  return {};
}

// ---- the optimizer's own state_dict: {state: {id: {...}}, param_groups: [{params: [id, ...]}]}
Result<void> add_torch_states(const Input& in, const Dict& state_dict, OptimizerStates& out) {
  XD_TRY_SET(const auto list, state_dict.list("param_groups"));
  XD_TRY_SET(TorchGroups groups,
             torch_groups(in, list, state_dict.place_of("param_groups"), in.warns));
  if (groups.ids.size() != out.flat_groups.size())
    return corrupt(cat(state_dict.place_of("param_groups"), ": expected ", out.flat_groups.size(),
                       " parameters, one for each flat group, found ", groups.ids.size()));
  XD_TRY_SET(const Dict states, state_dict.dict("state"));
  std::map<int64_t, const Value*> by_id;
  const auto items = states.items();
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (items[i].kind == Kind::kInt)
      by_id.insert_or_assign(static_cast<int64_t>(items[i].data), &items[i + 1]);
  }
  for (size_t i = 0; i < groups.ids.size(); ++i) {
    if (const auto it = by_id.find(groups.ids[i]); it != by_id.end())
      XD_TRY(
          add_states(in, *it->second, cat(states.place(), '.', groups.ids[i]), out.flat_groups[i]));
    if (!out.flat_groups[i].step) out.flat_groups[i].step = groups.step;
  }
  out.optimizer = groups.optimizer;
  out.groups = std::move(groups.groups);
  return {};
}

// With elastic_checkpoint: a list of the groups' states, without hyper-parameters.
Result<void> add_elastic_states(const Input& in, const Dict& inner, OptimizerStates& out) {
  constexpr std::string_view kKey = "base_optimizer_state";
  XD_TRY_SET(const auto list, inner.list(kKey));
  if (list.size() != out.flat_groups.size())
    return corrupt(cat(inner.place_of(kKey), ": expected the states of ", out.flat_groups.size(),
                       " groups, found ", list.size()));
  XD_TRY_SET(const auto step, step_of(in, inner.find("base_optimizer_state_step")));
  for (size_t i = 0; i < list.size(); ++i) {
    XD_TRY(add_states(in, list[i], cat(inner.place_of(kKey), '.', i), out.flat_groups[i]));
    if (!out.flat_groups[i].step) out.flat_groups[i].step = step;
  }
  out.groups.assign(list.size(), {});
  return {};
}

// ---- the whole
Result<void> add_masters(const Input& in, const Dict& inner, std::string_view key,
                         OptimizerStates& out) {
  XD_TRY_SET(const auto list, inner.list(key));
  if (list.size() > kMaxFlatGroups)
    return unsupported(cat(inner.place_of(key), ": expected at most ", kMaxFlatGroups,
                           " flat groups, found ", list.size()));
  for (size_t i = 0; i < list.size(); ++i) {
    XD_TRY_SET(out.flat_groups.emplace_back().master,
               flat_tensor(in, list[i], cat(inner.place_of(key), '.', i)));
  }
  return {};
}

// BF16_Optimizer, which DeepSpeed puts in the place of stage 1, does not tell a stage.
Result<uint64_t> stage_of(const Dict& inner) {
  const bool is_stage3 = inner.find(kFlatOfStage3) != nullptr;
  XD_TRY_SET(const auto told, inner.natural("zero_stage"));
  const uint64_t stage = told.value_or(is_stage3 ? 3 : 1);
  if (stage >= 1 && stage <= 3 && (stage == 3) == is_stage3) return stage;
  return unsupported(cat("expected the states of ZeRO stage 1, 2 or 3, found zero_stage ", stage,
                         is_stage3 ? " with " : " without ", kFlatOfStage3));
}

}  // namespace

uint64_t OptimizerStates::n_ranks() const {
  return partition_counts.empty()
             ? 0
             : *std::max_element(partition_counts.begin(), partition_counts.end());
}

Result<OptimizerStates> read_optimizer_states(const FileInput& file, bool warns) {
  const Input in{file, warns};
  const TorchFile& torch = file.torch;
  const auto root = Dict::of(torch.pickle(), torch.pickle().root(), "");
  const Value* states = root ? root->find("optimizer_state_dict") : nullptr;
  if (!states || states->kind != Kind::kDict)
    return unsupported(
        "expected DeepSpeed's optimizer states (a dict with optimizer_state_dict), found another "
        "object: the file is of another program");
  XD_TRY_SET(const Dict inner, Dict::of(torch.pickle(), *states, "optimizer_state_dict"));
  if (inner.find("ds_zero_partition_groups"))
    return unsupported(
        "expected parameters that are cut over all ranks, found ds_zero_partition_groups, as "
        "AutoEP has them: make a universal checkpoint of it with DeepSpeed's ds_to_universal.py");
  OptimizerStates out;
  XD_TRY_SET(out.stage, stage_of(inner));
  XD_TRY_SET(out.partition_counts, naturals(inner, "partition_count"));
  XD_TRY_SET(out.paddings, naturals(inner, "group_paddings"));
  XD_TRY_SET(out.alignment_paddings, lists_of_naturals(inner, "param_alignment_paddings"));
  XD_TRY(add_masters(in, inner, out.stage == 3 ? kFlatOfStage3 : kFlat, out));
  const std::string_view key = out.stage == 3 ? "optimizer_state_dict" : "base_optimizer_state";
  if (const Value* base = inner.find(key); base && base->kind == Kind::kList) {
    XD_TRY(add_elastic_states(in, inner, out));
  } else if (base) {
    XD_TRY_SET(const Dict dict, inner.dict(key));
    XD_TRY(add_torch_states(in, dict, out));
  }
  if (out.optimizer.empty()) out.optimizer = configured_optimizer(*root);
  out.loss_scaler = loss_scaler_of(inner);
  return out;
}

}  // namespace crossdock::reader_zero
