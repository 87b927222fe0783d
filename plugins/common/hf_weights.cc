#include "plugins/common/hf_weights.h"

#include "plugins/common/quote.h"

#include <algorithm>

namespace crossdock::common {

namespace {

constexpr size_t kMaxListed = 8;  // names in one message

bool has(std::span<const std::string> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_weights(std::string_view name, const WeightNames& kind) {
  const auto ends = [&](std::string_view suffix) { return name.ends_with(suffix); };
  if (name.find('/') != std::string_view::npos) return false;  // subfolders belong to something else ("original/")
  if (!ends(kind.suffix) && std::none_of(kind.others.begin(), kind.others.end(), ends)) return false;
  return std::none_of(kind.not_weights.begin(), kind.not_weights.end(),
                      [&](std::string_view prefix) { return name.starts_with(prefix); });
}

std::vector<std::string> weight_files(std::span<const std::string> names, const WeightNames& kind) {
  std::vector<std::string> out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out),
               [&](const std::string& name) { return is_weights(name, kind); });
  return out;
}

std::string listed(std::span<const std::string> names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < kMaxListed; ++i) out += cat(i == 0 ? "" : ", ", names[i]);
  if (names.size() > kMaxListed) out += cat(" and ", names.size() - kMaxListed, " more");
  return out;
}

// transformers inserts the variant before the last dot, and older tools before the suffix.
std::vector<std::string> index_names(const WeightNames& kind, const std::string& variant) {
  if (variant.empty()) return {cat(kind.stem, kind.suffix, ".index.json")};
  return {cat(kind.stem, kind.suffix, ".index.", variant, ".json"),
          cat(kind.stem, ".", variant, kind.suffix, ".index.json")};
}

// With no file of the expected name: the only one there is, or a message about those there are.
Result<std::string> choose_other(const Host& host, std::span<const std::string> weights, const WeightNames& kind,
                                 bool alone) {
  const std::string single = cat(kind.stem, kind.suffix), index = index_names(kind, "")[0];
  if (weights.empty()) {
    return Error{XD_NOT_FOUND,
                 cat("expected ", single, " or ", index, ", found no ", kind.suffix, " file: name the model's folder")};
  }
  if (weights.size() > 1) {
    return invalid(cat("expected ", single, ", or ", index, " to say which tensor is where, found ", weights.size(),
                       " files without it (", listed(weights),
                       "): download the index too, name one of the files, or choose by --variant"));
  }
  const auto shard = shard_number(weights[0]);
  if (shard && shard->total != 1) {
    return invalid(cat("expected a whole model, found ", weights[0], ", which is one part of ", shard->total, ": ",
                       alone ? "name the folder that holds all parts and " : "download the other parts and ", index));
  }
  if (weights[0] == kind.adapter) {
    host.log(XD_LOG_WARN,
             cat(weights[0],
                 " holds an adapter (LoRA), not a whole model: merge it into its model first to train on from it"));
  }
  return weights[0];
}

}  // namespace

Result<std::string> choose_file(const Host& host, std::span<const std::string> names, const WeightNames& kind,
                                const std::string& variant) {
  const std::string single = variant.empty() ? cat(kind.stem, kind.suffix) : cat(kind.stem, ".", variant, kind.suffix);
  const auto weights = weight_files(names, kind);
  std::string index;
  for (const std::string& name : index_names(kind, variant)) {
    if (index.empty() && has(names, name)) index = name;
  }
  if (has(names, single)) {
    if (!index.empty())
      host.log(XD_LOG_WARN, cat("found both ", single, " and ", index, ": reading ", single, ", as transformers does"));
    return single;
  }
  if (!index.empty()) return index;
  if (variant.empty()) return choose_other(host, weights, kind, names.size() == 1);
  return Error{XD_NOT_FOUND, cat("expected ", single, " or ", index_names(kind, variant)[0], ", found ",
                                 weights.empty() ? cat("no ", kind.suffix, " file") : listed(weights),
                                 ": give another --variant, or none")};
}

int score(std::span<const std::string> names, const WeightNames& kind, int best) {
  if (has(names, cat(kind.stem, kind.suffix)) || has(names, index_names(kind, "")[0])) return best;
  const auto weights = weight_files(names, kind);
  if (weights.size() == 1) return best - 10;
  return weights.empty() ? 0 : best / 10;  // perhaps nobody else reads them either: let open() say what is missing
}

Result<void> check_shards_exist(const ShardIndex& index, std::span<const std::string> names) {
  std::vector<std::string> missing;
  for (const std::string& shard : index.shards) {
    if (!std::binary_search(names.begin(), names.end(), shard)) missing.push_back(shard);
  }
  if (missing.empty()) return {};
  return Error{XD_NOT_FOUND,
               cat("expected all ", index.shards.size(), " files that it lists beside it, found ", missing.size(),
                   " missing (", listed(missing), "): name the folder that holds them, or run `hf download` again")};
}

Result<void> check_against_index(const ShardIndex& index, std::span<const PlacedTensor> tensors,
                                 std::span<const std::string> files) {
  constexpr uint32_t kNowhere = UINT32_MAX;
  constexpr std::string_view kSaveAgain = ": the files are of different saves, download or save the model again";
  std::vector<uint32_t> found(index.weight_map.size(), kNowhere);
  for (const PlacedTensor& t : tensors) {
    const ShardIndex::Entry* entry = index.find(t.name);
    if (!entry) {
      return corrupt(cat("expected the index to list every tensor, found ", in_quotes(t.name), " of ", files[t.file],
                         " not in it", kSaveAgain));
    }
    uint32_t& where = found[static_cast<size_t>(entry - index.weight_map.data())];
    if (where != kNowhere) {
      return corrupt(cat("expected tensor ", in_quotes(t.name), " in one file, found it in ", files[where], " and ",
                         files[t.file], kSaveAgain));
    }
    where = t.file;
  }
  for (size_t i = 0; i < found.size(); ++i) {
    const ShardIndex::Entry& entry = index.weight_map[i];
    if (found[i] == entry.shard) continue;
    return corrupt(cat("expected tensor ", in_quotes(entry.tensor), " in ", files[entry.shard], ", found it in ",
                       found[i] == kNowhere ? "no file" : files[found[i]], kSaveAgain));
  }
  return {};
}

void compare_total_size(const Host& host, const ShardIndex& index, uint64_t n_bytes, const std::string& index_name) {
  if (!index.total_size || *index.total_size == n_bytes) return;
  host.log(XD_LOG_WARN, cat(index_name, ": its total_size is ", *index.total_size, ", but the tensors have ", n_bytes,
                            " bytes; every tensor is where the index says, so this is ignored"));
}

}  // namespace crossdock::common
