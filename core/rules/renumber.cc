// SPDX-License-Identifier: Apache-2.0
#include "core/rules/renumber.h"

#include "core/base/text.h"
#include "core/model/check.h"

#include <utility>
#include <vector>

namespace crossdock::rules {

using manifest::Manifest;
using manifest::Tensor;

namespace {

Result<void> renumber(std::span<const std::optional<uint64_t>> places, Manifest& m) {
  for (manifest::AliasGroup& group : m.alias_groups) {
    std::vector<uint64_t> kept;
    for (const uint64_t i : group.tensors) {
      if (places[i]) kept.push_back(*places[i]);
    }
    group.tensors = std::move(kept);
  }
  std::erase_if(m.alias_groups, [](const auto& group) { return group.tensors.size() < 2; });
  const auto move = [&](uint64_t& i) -> Result<void> {
    if (!places[i])
      return unsupported(
          cat("expected rules that leave the tensors of a training state as they "
              "are, found one that changes ",
              base::printable(m.tensors[i].name)));
    i = *places[i];
    return {};
  };
  for (manifest::ParameterGroup& group : m.training.groups) {
    for (uint64_t& i : group.tensors) XD_TRY(move(i));
  }
  for (manifest::Moment& moment : m.training.moments) {
    XD_TRY(move(moment.parameter));
    XD_TRY(move(moment.state));
  }
  for (manifest::ModuleName& entry : m.module) XD_TRY(move(entry.tensor));
  return {};
}

}  // namespace

Result<std::vector<Tensor>> replace_tensors(std::span<const std::optional<uint64_t>> places,
                                            std::vector<Tensor> tensors, Manifest& m) {
  // Of a large model a second list of tensors takes tens of megabytes, so only the rest is copied.
  auto old = std::move(m.tensors);
  Manifest before = m;
  m.tensors = std::move(old);
  auto changed = renumber(places, m);
  old = std::move(m.tensors);
  if (changed) {
    m.tensors = std::move(tensors);
    changed = model::check(m);
  }
  if (changed) return old;
  m = std::move(before);
  m.tensors = std::move(old);
  return std::move(changed).error();
}

}  // namespace crossdock::rules
