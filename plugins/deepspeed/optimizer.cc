// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/optimizer.h"

#include "plugins/common/file_names.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace crossdock::deepspeed {

namespace {

using manifest::DType;

// The value of a tensor of one element. Nothing where it is no whole number of 0 or more.
Result<std::optional<uint64_t>> read_number(const FileInput& in, const torch_read::Tensor& t) {
  XD_TRY_SET(const Stored stored, locate(in.torch, in.file, t));
  std::array<std::byte, 16> bytes{};
  XD_TRY(in.source.read(in.host, stored.offset, std::span(bytes).first(stored.elem_bytes())));
  const auto as = [&]<class T>(T value) {
    std::memcpy(&value, bytes.data(), sizeof value);
    return static_cast<double>(value);
  };
  double value = -1;
  if (t.dtype == DType::F32) value = as(float{});
  if (t.dtype == DType::F64) value = as(double{});
  if (t.dtype == DType::I32) value = as(int32_t{});
  if (t.dtype == DType::I64) value = as(int64_t{});
  const bool is_natural = value >= 0 && value < 0x1p53 && value == std::floor(value);
  return is_natural ? std::optional(static_cast<uint64_t>(value)) : std::nullopt;
}

// The class whose groups have these keys: newer torch's Adams say whether their decay is decoupled,
// and of DeepSpeed's two only the one for CPUs has an amsgrad. Empty: it may be several.
std::string class_of(const std::vector<manifest::KeyValue>& hyper_parameters) {
  const auto find = [&](std::string_view key) {
    const auto it = std::find_if(hyper_parameters.begin(), hyper_parameters.end(),
                                 [&](const auto& entry) { return entry.key == key; });
    return it == hyper_parameters.end() ? nullptr : &it->value;
  };
  if (const auto* decoupled = find("decoupled_weight_decay"); decoupled && decoupled->get<bool>())
    return *decoupled->get<bool>() ? "torch.optim.AdamW" : "torch.optim.Adam";
  const bool is_lamb_or_onebit = find("max_coeff") || find("max_grad_norm");
  if (!find("bias_correction") || !find("betas") || is_lamb_or_onebit) return {};
  return find("amsgrad") ? "deepspeed.ops.adam.DeepSpeedCPUAdam" : "deepspeed.ops.adam.FusedAdam";
}

}  // namespace

Result<std::optional<uint64_t>> step_of(const FileInput& in, const Value* v) {
  if (!v) return std::optional<uint64_t>();
  if (v->kind == Kind::kTensor) {
    const auto& t = in.torch.pickle().tensor(*v);
    return t.n_elems() == 1 ? read_number(in, t) : std::optional<uint64_t>();
  }
  const auto number = integer(in.torch.pickle(), *v);
  return number && *number >= 0 ? std::optional(static_cast<uint64_t>(*number)) : std::nullopt;
}

Result<TorchGroups> torch_groups(const FileInput& in, std::span<const Value> param_groups,
                                 const std::string& place, bool warns) {
  constexpr std::string_view kNoHyperParameters[] = {"params", "step"};
  TorchGroups out;
  PlainData plain(in.torch.pickle());
  for (const Value& value : param_groups) {
    XD_TRY_SET(const Dict dict, Dict::of(in.torch.pickle(), value, place));
    XD_TRY_SET(const auto params, dict.list("params"));
    for (const Value& id : params) {
      if (id.kind != Kind::kInt)
        return corrupt(cat(dict.place_of("params"), ": expected numbers, found ",
                           torch_read::name_of(id.kind)));
      out.ids.push_back(static_cast<int64_t>(id.data));
    }
    if (!out.step) {
      XD_TRY_SET(out.step, step_of(in, dict.find("step")));
    }
    out.groups.push_back(
        {params.size(), plain.map(value, "param_groups", kNoHyperParameters).entries});
  }
  if (warns && plain.n_left_out() > 0)
    in.host.log(XD_LOG_WARN, cat("hyper-parameters that are no plain data are left out: ",
                                 common::listed(plain.left_out())));
  if (!out.groups.empty()) out.optimizer = class_of(out.groups[0].hyper_parameters);
  return out;
}

// What DeepSpeed makes of its config (runtime/engine.py, _configure_basic_optimizer).
std::string configured_optimizer(const Dict& root) {
  const auto dict_in = [&](const Value* v) { return v && v->kind == Kind::kDict ? v : nullptr; };
  const Pickle& pickle = root.pickle();
  const Value* config = dict_in(root.find("ds_config"));
  const Value* optimizer = config ? dict_in(pickle.find(*config, "optimizer")) : nullptr;
  const Value* type = optimizer ? pickle.find(*optimizer, "type") : nullptr;
  if (!type || type->kind != Kind::kText) return {};
  std::string name(pickle.text(*type));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (name != "adam" && name != "adamw") return {};
  const Value* params = dict_in(pickle.find(*optimizer, "params"));
  const Value* torch_adam = params ? pickle.find(*params, "torch_adam") : nullptr;
  if (!torch_adam || torch_adam->kind != Kind::kBool || torch_adam->data == 0) return {};
  const Value* mode = pickle.find(*params, "adam_w_mode");
  const bool is_plain_adam = name == "adam" && mode && mode->kind == Kind::kBool && mode->data == 0;
  return is_plain_adam ? "torch.optim.Adam" : "torch.optim.AdamW";
}

manifest::Value loss_scaler_of(const Dict& states) {
  const Value* scaler = states.find("loss_scaler");
  if (!scaler || scaler->kind != Kind::kOpaque) return {};
  const Value* attributes = states.pickle().attributes_of(*scaler);
  if (!attributes) return {};
  PlainData plain(states.pickle());
  manifest::ValueMap map = plain.map(*attributes, "loss_scaler", {});
  map.entries.insert(map.entries.begin(), {"class", {states.pickle().class_of(*scaler)}});
  return {std::move(map)};
}

}  // namespace crossdock::deepspeed
