// SPDX-License-Identifier: Apache-2.0
#include "core/rules/stored_names.h"

#include <algorithm>
#include <charconv>
#include <numeric>

namespace crossdock::rules {

namespace {

// Where the one '#' is that does not belong to '##'.
size_t layer_at(const std::string& name) {
  for (size_t at = 0; (at = name.find('#', at)) != std::string::npos; at += 2) {
    if (at + 1 == name.size() || name[at + 1] != '#') return at;
  }
  return std::string::npos;
}

}  // namespace

bool has_layer(const std::string& name) { return has_number(name, 0); }
bool has_expert(const std::string& name) { return has_number(name, 1); }

StoredNames::StoredNames(const pb::Layout& layout, const std::vector<manifest::Tensor>& tensors)
    : layout_(layout) {
  for (uint64_t i = 0; i < tensors.size(); ++i) by_name_.emplace(tensors[i].name, i);
}

std::optional<uint64_t> StoredNames::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? std::nullopt : std::optional(it->second);
}

std::optional<uint64_t> StoredNames::find(const std::string& name, uint64_t layer) const {
  return find(with_numbers(name, Numbers{layer, 0}));
}

// One more than the greatest number in the place of '#', of those that are below the number of all
// tensors: a layer has one at least.
uint64_t StoredNames::count_layers(const std::string& name) const {
  const size_t at = layer_at(name);
  const std::string around = name.substr(0, at + 2);  // and the character behind it
  if (const auto it = counts_.find(around); it != counts_.end()) return it->second;
  const std::string_view before = std::string_view(around).substr(0, at),
                         behind = std::string_view(around).substr(at + 1);
  uint64_t out = 0;
  for (const auto& [stored, tensor] : by_name_) {
    if (!stored.starts_with(before)) continue;
    const char* const end = stored.data() + stored.size();
    uint64_t layer = 0;
    const auto [rest, error] = std::from_chars(stored.data() + at, end, layer);
    const bool ends_so = behind.empty() ? rest == end : rest != end && *rest == behind[0];
    if (error == std::errc() && ends_so && layer < by_name_.size()) out = std::max(out, layer + 1);
  }
  return counts_[around] = out;
}

Result<void> StoredNames::check_layers(const Variables& variables) const {
  for (const pb::Layers& layers : layout_.layers()) {
    if (!has_layer(layers.from()))
      return invalid(cat("layers: expected '#' in the name, found ", layers.from()));
    XD_TRY_SET(const uint64_t n, variables.number(layers.number()));
    const uint64_t found = count_layers(layers.from());
    if (n == found) continue;
    return corrupt(
        cat("expected ", n, " layers ", layers.from(), ", which is what the metadata says (",
            layers.number(), "), found the tensors of ", found,
            found < n ? ": the file is incomplete, download or convert it again"
                      : ": the tensors are not this metadata's, convert the model again"));
  }
  return {};
}

std::vector<uint64_t> StoredNames::layers_of(const std::string& name) const {
  if (!has_layer(name)) return {kNoLayer};
  std::vector<uint64_t> out(std::max<uint64_t>(count_layers(name), 1));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

}  // namespace crossdock::rules
