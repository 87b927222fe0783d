// SPDX-License-Identifier: Apache-2.0

// What training programs call the parts of the nested dicts that they save.
#pragma once

#include <algorithm>
#include <string_view>

namespace crossdock::common {

namespace detail {
inline constexpr std::string_view kModelKeys[] = {
    "state_dict",     "model_state_dict",
    "net_state_dict", "network_state_dict",
    "model",          "module",
    "model_state",    "model_dict",
    "model_weights",  "net",
    "network",        "params",
    "weight",         "weights",
    "generator",
};
// MosaicML's Composer has {"state": {"model": ...}}, torch's tutorial of distributed checkpoints
// {"app": {"model": ..., "optim": ...}}.
inline constexpr std::string_view kWrapperKeys[] = {"state", "checkpoint", "ckpt", "app"};
// Losses, settings, Lightning's callbacks, DeepSpeed's parts of frozen parameters.
inline constexpr std::string_view kBesideKeys[] = {"criterion",
                                                   "loss",
                                                   "loss_fn",
                                                   "args",
                                                   "cfg",
                                                   "config",
                                                   "hparams",
                                                   "hyper_parameters",
                                                   "callbacks",
                                                   "loops",
                                                   "frozen_param_fragments"};
template <size_t N>
bool is_one_of(const std::string_view (&list)[N], std::string_view key) {
  return std::find(std::begin(list), std::end(list), key) != std::end(list);
}
}  // namespace detail

// Of the model.
inline bool is_model_key(std::string_view key) {
  return detail::is_one_of(detail::kModelKeys, key);
}
// Of a dict around the model's.
inline bool is_wrapper_key(std::string_view key) {
  return detail::is_one_of(detail::kWrapperKeys, key);
}
// Of a dict in which names of parameters are not the model's.
inline bool is_key_beside_model(std::string_view key) {
  return detail::is_one_of(detail::kBesideKeys, key);
}
// Of an average of the model, with "ema" as a word of its own: model_ema, ema_state_dict.
inline bool is_average_key(std::string_view key) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  for (size_t at = key.find("ema"); at != std::string_view::npos; at = key.find("ema", at + 1)) {
    const bool begins = at == 0 || !is_letter(key[at - 1]);
    if (begins && (at + 3 == key.size() || !is_letter(key[at + 3]))) return true;
  }
  return false;
}
// Of an optimizer: optim, optimizer, optimizer_states.
inline bool is_optimizer_key(std::string_view key) {
  return key.find("optim") != std::string_view::npos;
}

}  // namespace crossdock::common
