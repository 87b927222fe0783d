// SPDX-License-Identifier: Apache-2.0
#include "core/model/config.h"

#include <cmath>

namespace crossdock::model {

namespace {

// transformers writes null for "the default", which is as good as no key.
const manifest::Value* not_null(const manifest::Value* value) {
  return value && !value->get<manifest::Null>() ? value : nullptr;
}

}  // namespace

const manifest::Value* config_value(const manifest::Manifest& m, std::string_view key) {
  const auto* config = m.source.config.get<manifest::ValueMap>();
  if (!config) return nullptr;
  if (const auto* value = not_null(config->find(key))) return value;
  const auto* nested = config->find("text_config");
  const auto* map = nested ? nested->get<manifest::ValueMap>() : nullptr;
  return map ? not_null(map->find(key)) : nullptr;
}

const std::string* text_of(const manifest::Value* value) {
  return value ? value->get<std::string>() : nullptr;
}

std::optional<uint64_t> number_of(const manifest::Value* value) {
  if (const auto* real = value ? value->get<double>() : nullptr;
      real && *real >= 0 && *real < 0x1p53 && *real == std::floor(*real))
    return static_cast<uint64_t>(*real);  // 2.0
  const auto* number = value ? value->get<int64_t>() : nullptr;
  return number && *number >= 0 ? std::optional(static_cast<uint64_t>(*number)) : std::nullopt;
}

ModelClass model_class(const manifest::Manifest& m) {
  ModelClass out;
  const auto* config = m.source.config.get<manifest::ValueMap>();
  if (!config) return out;
  if (const std::string* type = text_of(config->find("model_type"))) out.model_type = *type;
  const auto* classes = config->find("architectures");
  const auto* list = classes ? classes->get<manifest::ValueList>() : nullptr;
  if (const std::string* first =
          list && !list->values.empty() ? text_of(&list->values[0]) : nullptr)
    out.architecture = *first;
  return out;
}

}  // namespace crossdock::model
