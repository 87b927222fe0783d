// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/file_names.h"

#include <algorithm>
#include <charconv>

namespace crossdock::common {

namespace {

// How programs call the files of one model's ranks or parts. '#' stands for the file's number, '*'
// for any text.
struct KnownRankFile {
  std::string_view pattern;
  // The number of the first file, which may be the only one; none: a file of this name is always a
  // part.
  std::optional<uint64_t> first;
  std::string_view what, advice;
};

constexpr std::string_view kZero = "one rank's share of a DeepSpeed ZeRO checkpoint";
constexpr std::string_view kZeroAdvice =
    "name the folder that holds `latest`, or the one that the file lies in";
constexpr std::string_view kMeta = "one model-parallel part of a model in Meta's own format";
constexpr std::string_view kMetaAdvice =
    "convert the folder with transformers' convert_llama_weights_to_hf.py";
constexpr std::string_view kRank = "one rank's share of a sharded checkpoint (verl, FSDP)";
constexpr std::string_view kMergeAdvice =
    "merge the files with the program that saved them, as with verl's model_merger; a whole model "
    "under such a name "
    "needs "
    "another";
constexpr std::string_view kUniversal =
    "the values of one parameter of a DeepSpeed Universal checkpoint";
constexpr std::string_view kUniversalAdvice =
    "convert from the model that the checkpoint was made of";
constexpr KnownRankFile kRankFiles[] = {
    {"zero_pp_rank_#_*_states.pt", {}, kZero, kZeroAdvice},
    {"*_zero_pp_rank_#_*_states.pt", {}, kZero, kZeroAdvice},
    {"mp_rank_#_model_states.pt", 0, "one model-parallel part of a DeepSpeed checkpoint",
     kZeroAdvice},
    {"layer_#-*_states.pt", {}, "one layer of a DeepSpeed pipeline checkpoint", kMergeAdvice},
    {"layer_#_expert_*_states.pt", {}, "one expert of a DeepSpeed checkpoint", kMergeAdvice},
    {"fp32.pt", {}, kUniversal, kUniversalAdvice},
    {"exp_avg.pt", {}, kUniversal, kUniversalAdvice},
    {"exp_avg_sq.pt", {}, kUniversal, kUniversalAdvice},
    {"model_optim_rng.pt",
     {},
     "one rank's share of a Megatron-LM checkpoint",
     "export it with Megatron's own tools"},
    {"model_rng.pt",
     {},
     "one rank's share of a Megatron-LM checkpoint",
     "export it with Megatron's own tools"},
    {"consolidated.0#.pth", 0, kMeta, kMetaAdvice},
    {"consolidated.1#.pth", {}, kMeta, kMetaAdvice},
    {"consolidated.0#.pt", 0, kMeta, kMetaAdvice},
    {"consolidated.0#.safetensors", 0, kMeta, kMetaAdvice},
    {"hf_model_#_*.pt", 1, "one part of a model that torchtune saved",
     "load all parts in Python and save them together"},
    {"*_world_size_#_rank_*.pt", {}, kRank, kMergeAdvice},
    {"*_fsdp_rank#.bin", {}, kRank, kMergeAdvice},
    {"rank_#.pt", 0, kRank, kMergeAdvice},
    {"rank#.pt", 0, kRank, kMergeAdvice},
    {"rank_#.safetensors", 0, kRank, kMergeAdvice},
    {"rank#.safetensors", 0, kRank, kMergeAdvice},
    {"model-part-#.safetensors", 0, "one part of a model", kMergeAdvice},
    {"model.part#.safetensors", 1, "one part of a model", kMergeAdvice},
    {"*_part-#.pt", 0, "one part of a model (metaseq)", kMergeAdvice},
    {"*-shard#.pt", 0, "one shard of a model (fairseq)", kMergeAdvice},
    {"weights.0#.safetensors", 0, "one part of a model (MLX)", kMergeAdvice},
    {"model#-mp*.safetensors",
     {},
     "one model-parallel part of a model in DeepSeek's own format",
     kMergeAdvice},
};

// Where '#' of the pattern stands in the name, from `at` on; an empty place for a pattern without
// '#'.
std::optional<std::pair<size_t, size_t>> find_number(std::string_view pattern,
                                                     std::string_view name, size_t at = 0) {
  if (pattern.empty()) return name.size() == at ? std::optional(std::pair(at, at)) : std::nullopt;
  const std::string_view rest = pattern.substr(1);
  if (pattern[0] == '*') {
    for (size_t end = at; end <= name.size(); ++end) {
      if (const auto found = find_number(rest, name, end)) return found;
    }
    return std::nullopt;
  }
  if (pattern[0] == '#') {
    const size_t end = std::min(name.find_first_not_of("0123456789", at), name.size());
    const bool fits = end > at && end - at <= 9 && find_number(rest, name, end);
    return fits ? std::optional(std::pair(at, end)) : std::nullopt;
  }
  return at < name.size() && name[at] == pattern[0] ? find_number(rest, name, at + 1)
                                                    : std::nullopt;
}

}  // namespace

std::string listed(std::span<const std::string> names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < kMaxListed; ++i)
    out += cat(i == 0 ? "" : ", ", names[i]);
  if (names.size() > kMaxListed) out += cat(" and ", names.size() - kMaxListed, " more");
  return out;
}

bool is_portable_name(std::string_view name) {
  const auto is_control = [](char c) { return c == 0x7f || static_cast<unsigned char>(c) < 0x20; };
  const bool has_drive = name.size() > 1 && name[1] == ':';
  return is_safe_name(name) && !has_drive && std::none_of(name.begin(), name.end(), is_control);
}

std::optional<RankFile> rank_file(std::string_view name) {
  for (const KnownRankFile& known : kRankFiles) {
    const auto place = find_number(known.pattern, name);
    if (!place) continue;
    const auto [begin, end] = *place;
    RankFile out{std::string(known.what), std::string(known.advice), ""};
    uint64_t number = 0;
    std::from_chars(name.data() + begin, name.data() + end, number);
    if (!known.first || number != *known.first) return out;
    const std::string next = std::to_string(number + 1);
    const size_t zeros = end - begin > next.size() ? end - begin - next.size() : 0;
    out.sibling = cat(name.substr(0, begin), std::string(zeros, '0'), next, name.substr(end));
    return out;
  }
  return std::nullopt;
}

}  // namespace crossdock::common
