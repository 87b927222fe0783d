// SPDX-License-Identifier: Apache-2.0

// Reading config.json as a manifest has it.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace crossdock::model {

// A key of config.json, or of its text_config, where composite models keep it. null is as none.
const manifest::Value* config_value(const manifest::Manifest& m, std::string_view key);

// The value as a text or a whole number of 0 or more; `value` may be nullptr.
const std::string* text_of(const manifest::Value* value);
std::optional<uint64_t> number_of(const manifest::Value* value);

// The class that config.json names.
struct ModelClass {
  std::string model_type,
      architecture;  // "llama", "LlamaForCausalLM"; empty where config.json lacks the key
};
ModelClass model_class(const manifest::Manifest& m);

}  // namespace crossdock::model
