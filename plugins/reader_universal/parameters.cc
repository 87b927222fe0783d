// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_universal/parameters.h"

#include "plugins/common/quote.h"
#include "plugins/torch/read/stored_tensor.h"

#include <algorithm>

namespace crossdock::reader_universal {

namespace {

using common::in_quotes;

constexpr std::string_view kMaster = "fp32", kStep = "step", kParam = "param",
                           kSubParameters = "sub_param_shape";

std::string what_it_is(const Pickle& pickle, const Value& value) {
  return value.kind == Kind::kOpaque ? pickle.class_of(value)
                                     : std::string(torch_read::name_of(value.kind));
}

bool is_true(const Dict& dict, std::string_view key) {
  const Value* v = dict.find(key);
  return v && v->kind == Kind::kBool && v->data != 0;
}

// What the file says of how it was put together. Most say that parts are joined along the first
// dimension, which is as good as nothing.
manifest::ValueMap layout_of(const Dict& dict, const Value& root) {
  constexpr std::string_view kNoLayout[] = {kParam, kSubParameters};
  PlainData plain(dict.pickle());
  manifest::ValueMap out = plain.map(root, "", kNoLayout);
  std::erase_if(out.entries, [](const manifest::KeyValue& entry) {
    const auto* n = entry.value.get<int64_t>();
    return entry.key == "cat_dim" && n && *n == 0;
  });
  // An object of DeepSpeed's: patterns, shape, partition_dim.
  const Value* sub = dict.find(kSubParameters);
  const Value* attributes =
      sub && sub->kind == Kind::kOpaque ? dict.pickle().attributes_of(*sub) : nullptr;
  if (attributes)
    out.entries.push_back(
        {std::string(kSubParameters), {plain.map(*attributes, std::string(kSubParameters), {})}});
  return out;
}

// Another shape of as many elements.
Result<void> reshape(const std::vector<uint64_t>& shape, Stored& out) {
  if (out.shape == shape) return {};
  const auto is_zero = [](uint64_t stride) { return stride == 0; };
  if (!out.strides.empty()) {
    if (!std::all_of(out.strides.begin(), out.strides.end(), is_zero))
      return unsupported(
          "expected values in the parameter's own shape or one after the other, found a view of "
          "another shape: load the file in Python and torch.save it again with .contiguous()");
    out.strides.assign(shape.size(), 0);
  }
  out.shape = shape;
  return {};
}

// A file of a few bytes can repeat its values to any size. Moments may, which are as large as the
// weights; so weights may not.
Result<void> check_repeats(const Stored& master) {
  const uint64_t n_bytes = master.n_elems() * master.elem_bytes();
  const bool repeats =
      !master.strides.empty() && n_bytes > master.storage_elems * master.elem_bytes();
  if (!repeats || n_bytes <= torch_read::kMaxRepeatedBytes) return {};
  return unsupported(cat("expected a view that repeats its values to have at most ",
                         torch_read::kMaxRepeatedBytes, " bytes, found ", n_bytes,
                         ": save it with .contiguous()"));
}

}  // namespace

Result<ParameterReader::State> ParameterReader::read_state(const FileInput& in) {
  const Pickle& pickle = in.torch.pickle();
  const Value& root = pickle.root();
  State out;
  const Value* value = &root;
  if (root.kind == Kind::kDict) {
    XD_TRY_SET(const Dict dict, Dict::of(pickle, root, ""));
    XD_TRY_SET(value, dict.get(kParam));
    out.is_vocabulary = is_true(dict, "vocab_tensor");
    out.is_expert = is_true(dict, "is_expert_param");
    out.layout = layout_of(dict, root);
  }
  out.is_bare = value == &root;
  if (value->kind != Kind::kTensor)
    return unsupported(cat("expected a tensor, or a dict with one under \"param\", found ",
                           what_it_is(pickle, *value), out.is_bare ? "" : " there",
                           ": the file is none of a universal checkpoint"));
  const torch_read::Tensor& t = pickle.tensor(*value);
  if (manifest::info(t.dtype).kind != manifest::Kind::kFloat)
    return unsupported(cat("expected floating-point values, found ", manifest::name(t.dtype)));
  XD_TRY_SET(out.value, locate(in.torch, in.file, t));
  return out;
}

// Stage 3 leaves flat values, and scalars may have a dimension. Where tensor-parallel parts or
// experts were joined, the file knows the shape better than the ranks' param_shapes.
Result<void> ParameterReader::take_shape(const NamedShape* expected, State& state) const {
  Stored& value = state.value;
  if (state.is_vocabulary && model_.original_vocab_size && !value.shape.empty())
    value.shape[0] = std::min(value.shape[0], *model_.original_vocab_size);
  const bool is_flat = state.is_bare && value.shape.size() == 1;
  if (!expected) {
    if (!is_flat) return {};
    return unsupported(
        "expected its shape in the param_shapes of the model states, found no such name: the "
        "folder is of another checkpoint");
  }
  if (value.n_elems() == expected->n_elems) return reshape(expected->shape, value);
  const bool is_joined = files_.n_model_parallel > 1 || state.is_vocabulary || state.is_expert;
  if (is_joined && !is_flat) return {};
  return corrupt(cat("expected ", expected->n_elems,
                     " elements as the param_shapes of the model states say, found ",
                     value.n_elems(), ": the files are of different checkpoints"));
}

Result<void> ParameterReader::take_step(std::string_view name, const FileInput& in) {
  XD_TRY_SET(const auto step, step_of(in, &in.torch.pickle().root()));
  if (!step) return corrupt("expected a number of steps of 0 or more, found another value");
  if (!step_) {
    step_ = step;
    name_of_step_ = name;
  }
  if (*step_ == *step) return {};
  return corrupt(cat("expected step ", *step_, " as ", in_quotes(name_of_step_), " has, found ",
                     *step, ": the files are of different checkpoints"));
}

Result<void> ParameterReader::check_kinds(std::string_view name, const Parameter& parameter) {
  std::set<std::string> kinds;
  for (const auto& [kind, state] : parameter.moments) kinds.insert(kind);
  // ZeRO keeps no state of parameters that never got a gradient.
  if (kinds.empty()) {
    ++n_without_moments_;
    return {};
  }
  if (kinds_.empty()) {
    kinds_ = kinds;
    name_of_kinds_ = name;
  }
  if (kinds == kinds_) return {};
  const auto lacks = [](const std::set<std::string>& all, const std::set<std::string>& some) {
    return std::find_if(all.begin(), all.end(), [&](auto& kind) { return !some.contains(kind); });
  };
  const auto missing = lacks(kinds_, kinds);
  const bool is_missing = missing != kinds_.end();
  const std::string kind = is_missing ? *missing : *lacks(kinds, kinds_);
  return Error{XD_NOT_FOUND,
               cat("expected ", files_.file_of(is_missing ? name : name_of_kinds_, kind),
                   ", since ", in_quotes(is_missing ? std::string_view(name_of_kinds_) : name),
                   " has its ", kind, ", found none: copy the whole folder")};
}

Result<Parameter> ParameterReader::read(std::string_view name, const NamedShape* expected) {
  const auto it = files_.parameters.find(name);
  const std::vector<std::string> none;
  std::vector<std::string> keys = it == files_.parameters.end() ? none : it->second;
  if (std::find(keys.begin(), keys.end(), kMaster) == keys.end())
    return Error{XD_NOT_FOUND, cat("expected ", files_.file_of(name, kMaster), ", the values of ",
                                   in_quotes(name), ", found none: copy the whole folder")};
  if (keys.size() > kMaxStates)
    return unsupported(cat("expected at most ", kMaxStates, " files of ", in_quotes(name),
                           ", found ", keys.size()));
  std::sort(keys.begin(), keys.end());
  Parameter out;
  XD_TRY_SET(out.master, opener_.read(files_.file_of(name, kMaster),
                                      [&](const FileInput& in) -> Result<Stored> {
                                        XD_TRY_SET(State state, read_state(in));
                                        XD_TRY(take_shape(expected, state));
                                        XD_TRY(check_repeats(state.value));
                                        out.layout = std::move(state.layout);
                                        return std::move(state.value);
                                      }));
  for (const std::string& key : keys) {
    if (key == kMaster) continue;
    XD_TRY(opener_.read(files_.file_of(name, key), [&](const FileInput& in) -> Result<void> {
      if (key == kStep) return take_step(name, in);
      XD_TRY_SET(State state, read_state(in));
      XD_TRY(take_shape(expected, state));
      if (state.value.n_elems() != out.master.n_elems())
        return corrupt(cat("expected a value for each of the ", out.master.n_elems(),
                           " elements of fp32.pt, found ", state.value.n_elems(),
                           ": the file is of another checkpoint, or none of the optimizer's"));
      XD_TRY(reshape(out.master.shape, state.value));
      out.moments.emplace_back(key, std::move(state.value));
      return {};
    }));
  }
  XD_TRY(check_kinds(name, out));
  return out;
}

}  // namespace crossdock::reader_universal
