#include "plugins/common/file_names.h"

#include <algorithm>
#include <charconv>

namespace crossdock::common {

namespace {

struct KnownRankFile {
  std::string_view before, behind;  // the number, which stands between; both may be anywhere in the name
  // The number of the first file, which may be the only one; none: a file of this name is always a part.
  std::optional<uint64_t> first;
  std::string_view what, advice;
};

constexpr std::string_view kZeroAdvice = "get the weights with the zero_to_fp32.py that DeepSpeed left beside it";
constexpr KnownRankFile kRankFiles[] = {
    {"zero_pp_rank_", "_states.pt", {}, "one rank's share of a DeepSpeed ZeRO checkpoint", kZeroAdvice},
    {"mp_rank_", "_model_states.pt", 0, "one model-parallel part of a DeepSpeed checkpoint", kZeroAdvice},
    {"layer_",
     "_states.pt",
     {},
     "one layer of a DeepSpeed pipeline checkpoint",
     "convert the checkpoint with the program that saved it"},
    {"consolidated.", ".pth", 0, "one model-parallel part of a model in Meta's own format",
     "convert the folder with transformers' convert_llama_weights_to_hf.py"},
    {"hf_model_", ".pt", 1, "one part of a model that torchtune saved",
     "load all parts in Python and save them together"},
    {"_rank_",
     ".pt",
     {},
     "one rank's share of a sharded checkpoint (verl, FSDP)",
     "merge the ranks with the program that saved them, as with verl's model_merger"},
};
// Megatron-LM calls the file alike in each rank's folder.
constexpr std::string_view kMegatron[] = {"model_optim_rng.pt", "model_rng.pt"};

}  // namespace

std::string listed(std::span<const std::string> names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < kMaxListed; ++i) out += cat(i == 0 ? "" : ", ", names[i]);
  if (names.size() > kMaxListed) out += cat(" and ", names.size() - kMaxListed, " more");
  return out;
}

bool is_safe_name(std::string_view name) {
  const auto is_bad = [](char c) { return c == '\\' || c == 0x7f || static_cast<unsigned char>(c) < 0x20; };
  if (name.empty() || std::any_of(name.begin(), name.end(), is_bad)) return false;
  if (name.size() > 1 && name[1] == ':') return false;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

std::optional<RankFile> rank_file(std::string_view name) {
  if (std::find(std::begin(kMegatron), std::end(kMegatron), name) != std::end(kMegatron))
    return RankFile{"one rank's share of a Megatron-LM checkpoint", "export it with Megatron's own tools", ""};
  for (const KnownRankFile& known : kRankFiles) {
    const size_t at = name.find(known.before);
    // Those whose beginning is a whole word begin the name.
    if (at == std::string_view::npos || (at != 0 && known.before[0] != '_')) continue;
    const size_t begin = at + known.before.size();
    const size_t end = std::min(name.find_first_not_of("0123456789", begin), name.size());
    if (end == begin || end - begin > 9 || !name.substr(end).ends_with(known.behind)) continue;
    RankFile out{std::string(known.what), std::string(known.advice), ""};
    uint64_t number = 0;
    std::from_chars(name.data() + begin, name.data() + end, number);
    if (!known.first || number != *known.first) return out;
    const std::string next = std::to_string(number + 1);
    out.sibling =
        cat(name.substr(0, begin), std::string(end - begin > next.size() ? end - begin - next.size() : 0, '0'), next,
            name.substr(end));
    return out;
  }
  return std::nullopt;
}

}  // namespace crossdock::common
