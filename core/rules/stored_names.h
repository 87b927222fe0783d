// SPDX-License-Identifier: Apache-2.0

// The names of a layout's rules, with '#' for the number of a layer and '##' for that of an expert,
// and the stored tensors that have them.
#pragma once

#include "core/rules/numbers.h"
#include "core/rules/variables.h"

#include <map>
#include <optional>
#include <unordered_map>

namespace crossdock::rules {

bool has_layer(const std::string& name);
bool has_expert(const std::string& name);

// Of one source and layout, which outlive it. [thread-confined]
class StoredNames {
 public:
  StoredNames(const pb::Layout& layout, const std::vector<manifest::Tensor>& tensors);

  // That the layers of the tensors are those of the layout's `layers`.
  Result<void> check_layers(const Variables& variables) const;
  // By a tensor's own name; the index.
  std::optional<uint64_t> find(const std::string& name) const;
  // By a rule's name, of expert 0.
  std::optional<uint64_t> find(const std::string& name, uint64_t layer) const;
  bool has(const std::string& name, uint64_t layer) const { return find(name, layer).has_value(); }
  // All that a rule's name may stand in: those that tensors of such names are in, at least one; or
  // no layer alone.
  std::vector<uint64_t> layers_of(const std::string& name) const;

 private:
  uint64_t count_layers(const std::string& name) const;
  const pb::Layout& layout_;
  std::unordered_map<std::string, uint64_t> by_name_;
  mutable std::map<std::string, uint64_t> counts_;  // by what a name has around the layer's number
};

}  // namespace crossdock::rules
