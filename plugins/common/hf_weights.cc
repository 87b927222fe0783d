#include "plugins/common/hf_weights.h"

#include "plugins/common/file_names.h"
#include "plugins/common/quote.h"

#include <algorithm>

namespace crossdock::common {

namespace {

using Names = std::vector<std::string>;

bool has(std::span<const std::string> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_any_of(std::string_view name, std::span<const std::string_view> beginnings) {
  return std::any_of(beginnings.begin(), beginnings.end(), [&](std::string_view b) { return name.starts_with(b); });
}

// Files of weights in the folder itself: those in its subfolders belong to something else ("original/").
Names weight_files(std::span<const std::string> names, const WeightNames& kind) {
  Names out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out), [&](const std::string& name) {
    return name.find('/') == std::string::npos && !is_index(name) && has_suffix(name, kind) &&
           !is_any_of(name, kind.not_weights);
  });
  return out;
}

Names indexes(std::span<const std::string> names, const WeightNames& kind) {
  Names out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out), [&](const std::string& name) {
    return name.find('/') == std::string::npos && is_index(name) && has_suffix(name, kind);
  });
  return out;
}

// transformers and diffusers put the variant before the last dot, older tools before the suffix.
Names index_names(std::string_view stem, const WeightNames& kind, const std::string& variant) {
  if (variant.empty()) return {cat(stem, kind.suffix, ".index.json")};
  return {cat(stem, kind.suffix, ".index.", variant, ".json"), cat(stem, ".", variant, kind.suffix, ".index.json")};
}
std::string single_name(std::string_view stem, const WeightNames& kind, const std::string& variant) {
  return variant.empty() ? cat(stem, kind.suffix) : cat(stem, ".", variant, kind.suffix);
}

// The file or index of a stem that opens the model; empty when there is neither.
std::string opening_file(const Host& host, std::span<const std::string> names, std::string_view stem,
                         const WeightNames& kind, const std::string& variant) {
  const std::string single = single_name(stem, kind, variant);
  std::string index;
  for (const std::string& name : index_names(stem, kind, variant)) {
    if (index.empty() && has(names, name)) index = name;
  }
  if (!has(names, single)) return index;
  if (!index.empty())
    host.log(XD_LOG_WARN, cat("found both ", single, " and ", index, ": reading ", single, ", as transformers does"));
  return single;
}

// Parts of one whole, by their names.
struct PartSet {
  Names there, missing;
  uint64_t total = 0;
  std::string before;  // the number: "model-"
  bool complete() const { return missing.empty(); }
};
std::vector<PartSet> part_sets(std::span<const std::string> files) {
  std::vector<PartSet> out;
  std::vector<bool> done(files.size());
  for (size_t i = 0; i < files.size(); ++i) {
    const auto part = part_name(files[i]);
    if (!part || done[i]) continue;
    PartSet set{{}, {}, part->total, std::string(part->before)};
    bool from_zero = false;
    for (size_t k = i; k < files.size(); ++k) {
      const auto other = part_name(files[k]);
      if (!other || !other->is_sibling(*part)) continue;
      done[k] = true;
      set.there.push_back(files[k]);
      from_zero = from_zero || other->number == 0;
    }
    for (uint64_t n = 0; n < part->total && set.missing.size() < kMaxListed; ++n) {
      const std::string name = part->sibling(n + (from_zero ? 0 : 1));
      if (!has(set.there, name)) set.missing.push_back(name);
    }
    out.push_back(std::move(set));
  }
  return out;
}

Error part_alone(std::string_view name, uint64_t total) {
  return invalid(cat("expected a whole model, found ", name, ", which is one part of ", total,
                     ": name the folder that holds all parts"));
}

Error rank_alone(std::string_view name, const RankFile& rank) {
  return invalid(cat("expected a whole model, found ", name, ", ", rank.what,
                     rank.sibling.empty() ? "" : cat(" (beside it lies ", rank.sibling, ")"), ": ", rank.advice));
}

Error parts_missing(const PartSet& set) {
  return Error{XD_NOT_FOUND,
               cat("expected all ", set.total, " parts of a model, found ", set.there.size(), " (", listed(set.there),
                   ") and not ", listed(set.missing), ": download the others, and their index if there is one")};
}

// Whether a file whose name says that it may be one of several is the only one.
Result<void> check_alone(const Host& host, const Input& input, const std::string& name) {
  if (const auto part = part_name(name); part && part->total != 1) return part_alone(name, part->total);
  const auto rank = rank_file(name);
  if (!rank) return {};
  if (rank->sibling.empty() || input.open(host, rank->sibling)) return rank_alone(name, *rank);
  host.log(XD_LOG_WARN, cat(name, " is called as ", rank->what, "; it is taken for the whole model, since no ",
                            rank->sibling, " lies beside it"));
  return {};
}

// With neither standard name nor index: a whole set of parts, or the only file that there is.
Result<Names> choose_others(const Host& host, const Input& input, const Names& weights, const WeightNames& kind,
                            const std::string& variant) {
  const std::string single = single_name(kind.stems[0], kind, variant);
  const std::string index = index_names(kind.stems[0], kind, variant)[0];
  if (weights.empty()) {
    return Error{XD_NOT_FOUND,
                 cat("expected ", single, " or ", index, ", found no ", kind.suffix, " file: name the model's folder")};
  }
  auto sets = part_sets(weights);
  if (sets.size() > 1) {
    std::erase_if(sets, [&](const PartSet& set) {
      return !set.before.starts_with(single.substr(0, single.size() - kind.suffix.size()) + "-");
    });
  }
  if (sets.size() == 1 && (variant.empty() || sets[0].before.find("." + variant) != std::string::npos)) {
    if (!sets[0].complete()) return parts_missing(sets[0]);
    host.log(XD_LOG_WARN,
             cat("found all ", sets[0].total, " parts and no ", index, ": reading ", listed(sets[0].there)));
    return std::move(sets[0].there);
  }
  if (weights.size() > 1 || !variant.empty()) {
    return invalid(cat("expected ", single, ", or ", index, " to say which tensor is where, found ", listed(weights),
                       ": name one of the files, ",
                       variant.empty() ? "or choose by --variant" : "or another --variant"));
  }
  XD_TRY(check_alone(host, input, weights[0]));
  return weights;
}

void warn_of_adapter(const Host& host, std::span<const std::string> names, const Names& read, const WeightNames& kind) {
  if (has(read, kind.adapter)) {
    host.log(XD_LOG_WARN,
             cat(kind.adapter,
                 " holds an adapter (LoRA), not a whole model: merge it into its model first to train on from it"));
    return;
  }
  const auto adapter = std::find_if(names.begin(), names.end(),
                                    [](const std::string& name) { return name.starts_with("adapter_model."); });
  if (adapter != names.end()) {
    host.log(XD_LOG_WARN, cat(*adapter,
                              " beside the model is an adapter (LoRA), which is not in the result, while "
                              "transformers loads it with the model: merge it first where it is wanted"));
  }
}

// Every shard that the index lists, or in their place a whole set of parts that is there.
Result<void> find_shards(const Host& host, std::span<const std::string> names, const WeightNames& kind,
                         WeightFiles& out) {
  Names missing;
  for (const std::string& shard : out.index->shards) {
    if (!has(names, shard)) missing.push_back(shard);
  }
  out.files = out.index->shards;
  if (missing.empty()) return {};
  auto sets = part_sets(weight_files(names, kind));
  std::erase_if(sets, [](const PartSet& set) { return !set.complete(); });
  if (missing.size() == out.index->shards.size() && sets.size() == 1) {
    host.log(XD_LOG_WARN, cat(out.index_name, " is of another save: it lists ", listed(missing),
                              ", which are not there; reading ", listed(sets[0].there), " instead"));
    out.files = std::move(sets[0].there);
    out.index_is_stale = true;
    return {};
  }
  return Error{XD_NOT_FOUND, cat(out.index_name, ": expected all ", out.index->shards.size(),
                                 " files that it lists beside it, found ", missing.size(), " missing (",
                                 listed(missing), "): name the folder that holds them, or run `hf download` again")};
}

}  // namespace

bool has_suffix(std::string_view name, const WeightNames& kind) {
  if (is_index(name)) return name.find(cat(kind.suffix, ".index.")) != std::string_view::npos;
  const auto ends = [&](std::string_view suffix) { return name.ends_with(suffix); };
  return ends(kind.suffix) || std::any_of(kind.others.begin(), kind.others.end(), ends);
}

Result<WeightFiles> choose_files(const Host& host, const Input& input, const WeightNames& kind,
                                 const std::string& variant, const std::string& wanted) {
  const Names names = input.names(host);
  const std::string named = input.named(host);
  WeightFiles out;
  std::string first = named;
  if (!named.empty()) {
    XD_TRY(check_alone(host, input, named));
  } else if (!wanted.empty()) {
    if (!has(names, wanted))
      return Error{XD_NOT_FOUND, cat("expected ", in_quotes(wanted),
                                     ", which config.json names as transformers_weights, "
                                     "found none: download it, or take the key out")};
    first = wanted;
  } else {
    for (size_t i = 0; i < kind.stems.size() && first.empty(); ++i)
      first = opening_file(host, names, kind.stems[i], kind, variant);
    const Names other_indexes = indexes(names, kind);
    if (first.empty() && variant.empty() && other_indexes.size() == 1) first = other_indexes[0];
  }
  if (first.empty()) {
    XD_TRY_SET(out.files, choose_others(host, input, weight_files(names, kind), kind, variant));
  } else if (!is_index(first)) {
    out.files = {first};
  } else {
    out.index_name = first;
    XD_TRY_SET(out.index, read_shard_index(host, input, first));
    XD_TRY(find_shards(host, names, kind, out));
  }
  warn_of_adapter(host, names, out.files, kind);
  return out;
}

int score(std::span<const std::string> names, const WeightNames& kind) {
  if (has(names, single_name(kind.stems[0], kind, "")) || has(names, index_names(kind.stems[0], kind, "")[0]))
    return kind.standard_score;
  for (const std::string_view stem : kind.stems) {
    if (has(names, single_name(stem, kind, "")) || has(names, index_names(stem, kind, "")[0])) return kind.other_score;
  }
  const Names weights = weight_files(names, kind);
  const auto sets = part_sets(weights);
  const bool is_one_set = sets.size() == 1 && sets[0].there.size() == weights.size();
  if (weights.size() == 1 || is_one_set || indexes(names, kind).size() == 1) return kind.other_score;
  return weights.empty() ? 0 : kind.standard_score / 10;  // perhaps nobody else reads them: open() says what is missing
}

Result<void> check_placed(const WeightFiles& files, std::span<const PlacedTensor> tensors) {
  constexpr std::string_view kSaveAgain = ": the files are of different saves, download or save the model again";
  const auto refuse = [&](Error e) {
    return Result<void>(files.index ? std::move(e).in(files.index_name) : std::move(e));
  };
  for (const PlacedTensor& t : tensors) {
    if (!files.index || files.index->find(t.name)) continue;
    return refuse(corrupt(cat("expected the index to list every tensor, found ", in_quotes(t.name), " of ",
                              files.files[t.file], " not in it", kSaveAgain)));
  }
  // Sorted, not hashed: the worst case of a hash table is the file's to choose.
  std::vector<PlacedTensor> sorted(tensors.begin(), tensors.end());
  const auto by_name = [](const PlacedTensor& a, const PlacedTensor& b) { return a.name < b.name; };
  std::stable_sort(sorted.begin(), sorted.end(), by_name);
  const auto twice =
      std::adjacent_find(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twice != sorted.end()) {
    return refuse(corrupt(cat("expected tensor ", in_quotes(twice->name), " in one file, found it in ",
                              files.files[twice->file], " and ", files.files[std::next(twice)->file], kSaveAgain)));
  }
  if (!files.index) return {};
  for (const ShardIndex::Entry& entry : files.index->weight_map) {
    const auto it = std::lower_bound(sorted.begin(), sorted.end(), PlacedTensor{entry.tensor, 0}, by_name);
    const bool is_there = it != sorted.end() && it->name == entry.tensor;
    const std::string& shard = files.index->shards[entry.shard];
    if (is_there && (files.index_is_stale || files.files[it->file] == shard)) continue;
    return refuse(corrupt(cat("expected tensor ", in_quotes(entry.tensor), " in ",
                              files.index_is_stale ? "one of the files" : shard, ", found it in ",
                              is_there ? files.files[it->file] : "no file", kSaveAgain)));
  }
  return {};
}

void compare_total_size(const Host& host, const WeightFiles& files, uint64_t n_bytes) {
  if (!files.index || !files.index->total_size || *files.index->total_size == n_bytes) return;
  host.log(XD_LOG_WARN,
           cat(files.index_name, ": its total_size is ", *files.index->total_size, ", but the tensors have ", n_bytes,
               " bytes; every tensor is where the index says, so this is ignored"));
}

}  // namespace crossdock::common
