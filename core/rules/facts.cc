// SPDX-License-Identifier: Apache-2.0
#include "core/rules/facts.h"

#include "core/model/config.h"

#include <algorithm>

namespace crossdock::rules {

using manifest::Value;

namespace {

// Behind the key that `value` has.
const Value* at_path(const Value* value, std::string_view path) {
  while (value && !path.empty()) {
    const size_t end = std::min(path.find('.'), path.size());
    const auto* map = value->get<manifest::ValueMap>();
    value = map ? map->find(path.substr(0, end)) : nullptr;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return value && !value->get<manifest::Null>() ? value : nullptr;
}

}  // namespace

std::optional<Fact> Facts::find(std::string_view key) const {
  constexpr std::string_view kConfig = "config.";
  if (key.starts_with(kConfig)) {
    const std::string_view path = key.substr(kConfig.size());
    const size_t end = std::min(path.find('.'), path.size());
    const Value* value = at_path(model::config_value(m_, path.substr(0, end)),
                                 path.substr(std::min(end + 1, path.size())));
    if (value) return Fact{key, value};
  }
  const auto& metadata = m_.source.metadata;
  const auto it = std::find_if(metadata.begin(), metadata.end(),
                               [key](const auto& entry) { return entry.key == key; });
  return it == metadata.end() ? std::nullopt : std::optional(Fact{it->key, &it->value});
}

}  // namespace crossdock::rules
