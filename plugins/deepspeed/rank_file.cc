// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/rank_file.h"

#include "plugins/common/file_names.h"
#include "plugins/common/quote.h"

#include <algorithm>
#include <charconv>
#include <string>

namespace crossdock::deepspeed {

namespace {

constexpr std::string_view kEnding = ".pt";

// Takes `literal`, or a number, off the front of a name.
bool skip(std::string_view& name, std::string_view literal) {
  if (!name.starts_with(literal)) return false;
  name.remove_prefix(literal.size());
  return true;
}
bool skip(std::string_view& name, uint64_t& number) {
  const char* const end = name.data() + std::min<size_t>(name.size(), 9);
  const auto [after, error] = std::from_chars(name.data(), end, number);
  name.remove_prefix(static_cast<size_t>(after - name.data()));
  return error == std::errc();
}

}  // namespace

std::optional<RankFile> rank_file(std::string_view name) {
  constexpr std::string_view kModel = "_model_states.pt", kOptimizer = "_optim_states.pt";
  if (!name.ends_with("model_states.pt") && !name.ends_with(kOptimizer)) return std::nullopt;
  if (name.starts_with("expp_rank_") || name.starts_with("expert_") ||
      (name.starts_with("layer_") && name.find("_expert_") != name.npos))
    return RankFile{FileKind::kExpert};
  RankFile out{FileKind::kWholeModel};
  if (skip(name, "layer_")) {
    // layer_03-model_states.pt, or layer_03-model_01-model_states.pt of a tensor-parallel rank.
    out.kind = FileKind::kLayer;
    if (!skip(name, out.layer)) return std::nullopt;
    if (name != "-model_states.pt" &&
        !(skip(name, "-model_") && skip(name, out.model_parallel_rank) &&
          name == "-model_states.pt"))
      return RankFile{FileKind::kOtherLayer};
    return out;
  }
  if (skip(name, "mp_rank_")) {
    if (skip(name, out.model_parallel_rank) && name == kModel) return out;
    return std::nullopt;
  }
  // Which optimizer wrote it, not more: the states themselves say of what type they are.
  const bool has_prefix = skip(name, "bf16_") || skip(name, "fp16_");
  const bool has_ranks = skip(name, "zero_pp_rank_") && skip(name, out.rank) &&
                         skip(name, "_mp_rank_") && skip(name, out.model_parallel_rank);
  if (!has_ranks) return std::nullopt;
  out.kind = name == kOptimizer ? FileKind::kOptimizerStates : FileKind::kModelStates;
  return name == kOptimizer || (name == kModel && !has_prefix) ? std::optional(out) : std::nullopt;
}

Result<void> check_own_name(std::string_view name, std::string_view root) {
  const auto named = rank_file(common::base_name(name)),
             saved = rank_file(std::string(root).append(kEnding));
  if (!named || !saved || *named == *saved) return {};
  return corrupt(
      cat("expected the file that was saved under this name, found the one that was "
          "saved as ",
          common::in_quotes(cat(root, kEnding)),
          ": files were renamed or copied over each other, copy them again from where "
          "they were saved"));
}

}  // namespace crossdock::deepspeed
