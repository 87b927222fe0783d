// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/write/training.h"

#include <algorithm>

namespace crossdock::torch_write {

using manifest::Value;

Training::Training(const manifest::Manifest& model) : model_(model) {
  for (const manifest::Moment& moment : model.training.moments) {
    if (!model.tensors[moment.state].excluded.empty()) continue;
    moments_[moment.parameter].emplace(moment.kind, moment.state);
    has_moments_ = true;
  }
}

const std::map<std::string, uint64_t>& Training::moments_of(uint64_t parameter) const {
  static const std::map<std::string, uint64_t> kNone;
  const auto it = moments_.find(parameter);
  return it == moments_.end() ? kNone : it->second;
}

const Value* Training::fact(std::string_view key) const {
  const auto& facts = model_.source.metadata;
  const auto it = std::find_if(facts.begin(), facts.end(),
                               [&](const manifest::KeyValue& entry) { return entry.key == key; });
  return it == facts.end() ? nullptr : &it->value;
}

int64_t Training::count(std::string_view key) const {
  const Value* value = fact(key);
  const auto* number = value ? value->get<int64_t>() : nullptr;
  return number ? *number : 0;
}

manifest::DType dtype_of_run(const manifest::Manifest& model) {
  const Training training(model);
  const Value* value = training.fact("dtype");
  const auto* name = value ? value->get<std::string>() : nullptr;
  if (!name) return manifest::DType::UNSPECIFIED;
  return *name == "bf16"   ? manifest::DType::BF16
         : *name == "fp16" ? manifest::DType::F16
         : *name == "fp32" ? manifest::DType::F32
                           : manifest::DType::UNSPECIFIED;
}

std::string tag_of_run(const manifest::Manifest& model) {
  const Training training(model);
  return cat("global_step",
             training.has_begun() ? std::max<int64_t>(training.count("global_steps"), 0) : 0);
}

void put_value(PickleWriter& p, const Value& value, std::string_view key) {
  if (const auto* flag = value.get<bool>()) return p.put(*flag);
  if (const auto* number = value.get<int64_t>()) return p.put(*number);
  if (const auto* real = value.get<double>()) return p.put(*real);
  if (const auto* text = value.get<std::string>()) return p.put(*text);
  if (const auto* list = value.get<manifest::ValueList>()) {
    const auto items = [&] {
      for (const Value& item : list->values) put_value(p, item);
    };
    if (key == "betas") return p.tuple(items);
    return p.list(items);
  }
  if (const auto* map = value.get<manifest::ValueMap>()) {
    return p.dict([&] {
      for (const auto& [name, inner] : map->entries) {
        p.put(name);
        put_value(p, inner, name);
      }
    });
  }
  p.put(None{});
}

void put_scheduler_state(PickleWriter& p, const Training& training) {
  const Value* state = training.fact("lr_scheduler");
  if (training.has_begun() && state) return put_value(p, *state);
  // DeepSpeed's own take the iteration, torch's LambdaLR pops lr_lambdas, and those that hold other
  // schedulers pop _schedulers.
  p.dict([&] {
    p.entry("last_batch_iteration", -1);
    p.entry("lr_lambdas", EmptyList{});
    p.entry("_schedulers", EmptyList{});
  });
}

const Value* loss_scaler_value(const Training& training, std::string_view name) {
  const Value* scaler = training.has_begun() ? training.fact("loss_scaler") : nullptr;
  const auto* map = scaler ? scaler->get<manifest::ValueMap>() : nullptr;
  if (!map) return nullptr;
  const auto find = [&](std::string_view key) -> const Value* {
    const auto it = std::find_if(map->entries.begin(), map->entries.end(),
                                 [&](const manifest::KeyValue& e) { return e.key == key; });
    return it == map->entries.end() ? nullptr : &it->value;
  };
  const Value* dynamic = find("dynamic");
  if (!dynamic || !dynamic->get<bool>() || !*dynamic->get<bool>()) return nullptr;
  const Value* out = find(name);
  return out && (out->get<bool>() || out->get<int64_t>() || out->get<double>()) ? out : nullptr;
}

void put_counters(PickleWriter& p, const Training& training) {
  for (const char* key : {"skipped_steps", "global_steps", "global_samples"})
    p.entry(key, training.has_begun() ? training.count(key) : int64_t{0});
}

void put_client_state(PickleWriter& p, const Training& training) {
  const Value* state = training.fact("client_state");
  const auto* map = state ? state->get<manifest::ValueMap>() : nullptr;
  if (!training.has_begun() || !map) return;
  for (const auto& [name, value] : map->entries) {
    p.put(name);
    put_value(p, value, name);
  }
}

void put_hyper_parameters(PickleWriter& p, const manifest::ParameterGroup& group) {
  for (const auto& [name, value] : group.hyper_parameters) {
    p.put(name);
    put_value(p, value, name);
  }
}

}  // namespace crossdock::torch_write
