#include "core/rules/renumber.h"

#include "core/base/text.h"

#include <optional>
#include <vector>

namespace crossdock::rules {

using manifest::Manifest;
using transform::Expression;

namespace {

// The new index of each of the source's tensors that is still there as it was.
std::vector<std::optional<uint64_t>> new_places(std::span<const Expression> made,
                                                const Manifest& m) {
  std::vector<std::optional<uint64_t>> out(m.tensors.size());
  for (uint64_t i = 0; i < made.size(); ++i) {
    const uint64_t stored = made[i].tensors()[0];
    if (!out[stored] && made[i] == transform::stored_tensor(stored, m.tensors[stored]))
      out[stored] = i;
  }
  return out;
}

}  // namespace

Result<void> renumber(std::span<const Expression> made, Manifest& m) {
  const bool refers = !m.alias_groups.empty() || !m.module.empty() || !m.training.groups.empty() ||
                      !m.training.moments.empty();
  if (!refers) return {};
  const auto places = new_places(made, m);
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

}  // namespace crossdock::rules
