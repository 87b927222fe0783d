// SPDX-License-Identifier: Apache-2.0

// The variables of a layout's texts (rules.proto, Layout): facts of the source, and names of `let`.
#pragma once

#include <crossdock/result.hpp>
#include "core/rules/facts.h"
#include "core/rules/rules.pb.h"

#include <string>
#include <vector>

namespace crossdock::rules {

namespace pb = rules::v1;

// Of what is in no layer: a list must say the same for all.
inline constexpr uint64_t kNoLayer = UINT64_MAX;

// The element of a list for the layer; of kNoLayer the one that all are equal to. A value that is
// no list is for all. nullptr: an empty list. Errors: a layer that the list does not reach,
// elements that differ.
Result<const manifest::Value*> in_layer(const Fact& fact, uint64_t layer);

// Whether all conditions hold for the source.
bool all_hold(const google::protobuf::RepeatedPtrField<pb::Condition>& conditions,
              const Facts& facts, uint64_t layer = kNoLayer);

class Variables {
 public:
  // Both outlive it.
  Variables(const Facts& facts, const pb::Layout& layout) : facts_(facts), lets_(layout.let()) {}

  // The first of the keys of "a|b" that there is.
  std::optional<Fact> find(std::string_view keys) const;
  // A number such as "3*{a|b}/{c}+2"; of a value that is a list, as in_layer. Errors: an unbound
  // variable, a value that is no integer of 0 or more, a division that leaves a rest.
  Result<uint64_t> number(const std::string& text, uint64_t layer = kNoLayer) const;

 private:
  using Lets =
      std::vector<Result<uint64_t>>;  // the first ones of the layout; each knows those before it
  Result<uint64_t> sum(const std::string& text, uint64_t layer, const Lets& lets) const;
  Result<uint64_t> product(const std::string& text, uint64_t layer, const Lets& lets) const;
  Result<uint64_t> value(const std::string& name, uint64_t layer, const Lets& lets) const;
  const Facts& facts_;
  const google::protobuf::RepeatedPtrField<pb::Variable>& lets_;
};

}  // namespace crossdock::rules
