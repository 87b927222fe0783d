// SPDX-License-Identifier: Apache-2.0

// What is known of a source beside its tensors, for the conditions and variables of rules: the
// metadata of its format, and config.json.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace crossdock::rules {

struct Fact {
  std::string_view key;
  const manifest::Value* value = nullptr;  // never null in a fact that was found
};

class Facts {
 public:
  // `m` outlives it.
  explicit Facts(const manifest::Manifest& m) : m_(m) {}
  // A key of the metadata; behind "config." one of config.json, where a dot leads into a map:
  // "config.rope_scaling.factor". What is in its text_config counts too, and null is as none.
  std::optional<Fact> find(std::string_view key) const;

 private:
  const manifest::Manifest& m_;
};

}  // namespace crossdock::rules
