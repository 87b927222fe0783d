// SPDX-License-Identifier: Apache-2.0
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

// What lies beside models under their suffixes and is none: heads of reward models, embeddings,
// projectors, training state.
constexpr std::string_view kStrays[] = {"value_head",
                                        "v_head",
                                        "learned_embeds",
                                        "mm_projector",
                                        "non_lora_trainables",
                                        "pytorch_lora_weights",
                                        "optimizer",
                                        "scheduler",
                                        "random_states",
                                        "training_args",
                                        "scaler",
                                        "rng_state",
                                        "openvino_model",
                                        "ip_adapter"};

bool is_any_of(std::string_view name, std::span<const std::string_view> beginnings) {
  return std::any_of(beginnings.begin(), beginnings.end(),
                     [&](std::string_view b) { return name.starts_with(b); });
}

// Files of weights in the folder itself: those in its subfolders belong to something else
// ("original/"). An adapter counts only where there is nothing else.
Names weight_files(std::span<const std::string> names, const WeightNames& kind) {
  Names out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out), [&](const std::string& name) {
    return name.find('/') == std::string::npos && !is_index_name(name) && has_suffix(name, kind) &&
           !is_any_of(name, kStrays);
  });
  if (out.size() > 1) std::erase(out, kind.adapter);
  return out;
}

Names indexes(std::span<const std::string> names, const WeightNames& kind) {
  Names out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out), [&](const std::string& name) {
    return name.find('/') == std::string::npos && is_index_name(name) && has_suffix(name, kind);
  });
  return out;
}

// transformers and diffusers put the variant before the last dot, older tools before the suffix.
Names index_names(std::string_view stem, const WeightNames& kind, const std::string& variant) {
  if (variant.empty()) return {cat(stem, kind.suffix, ".index.json")};
  return {cat(stem, kind.suffix, ".index.", variant, ".json"),
          cat(stem, ".", variant, kind.suffix, ".index.json")};
}
std::string single_name(std::string_view stem, const WeightNames& kind,
                        const std::string& variant) {
  return variant.empty() ? cat(stem, kind.suffix) : cat(stem, ".", variant, kind.suffix);
}

// The file or index of a stem that opens the model; empty when there is neither.
std::string opening_file(const Host& host, std::span<const std::string> names,
                         std::string_view stem, const WeightNames& kind,
                         const std::string& variant) {
  const std::string single = single_name(stem, kind, variant);
  std::string index;
  for (const std::string& name : index_names(stem, kind, variant)) {
    if (index.empty() && has(names, name)) index = name;
  }
  if (!has(names, single)) return index;
  if (!index.empty())
    host.log(XD_LOG_WARN, cat("found both ", single, " and ", index, ": reading ", single,
                              ", as transformers does"));
  return single;
}

// Parts of one whole, by their names.
struct PartSet {
  Names there, missing;  // of the missing the first few
  uint64_t total = 0;
  std::string before;  // the number: "model-"
  bool complete() const { return missing.empty(); }
};

// `files`: of one whole, sorted by number.
PartSet part_set(std::span<const PartName> parts) {
  PartSet out{{}, {}, parts[0].total, std::string(parts[0].before)};
  uint64_t expected = parts[0].number == 0 ? 0 : 1;
  const uint64_t end = expected + out.total;
  const auto miss = [&](uint64_t until) {
    for (; expected < until && out.missing.size() < kMaxListed; ++expected)
      out.missing.push_back(parts[0].sibling(expected));
  };
  for (const PartName& part : parts) {
    miss(std::min(part.number, end));
    out.there.push_back(part.sibling(part.number));
    expected = part.number + 1;
  }
  miss(end);
  return out;
}

std::vector<PartSet> part_sets(const Names& files) {
  std::vector<PartName> parts;
  for (const std::string& file : files) {
    if (const auto part = part_name(file)) parts.push_back(*part);
  }
  const auto whole = [](const PartName& p) { return std::pair(p.before, p.behind); };
  std::sort(parts.begin(), parts.end(), [&](const PartName& a, const PartName& b) {
    return whole(a) != whole(b) ? whole(a) < whole(b) : a.number < b.number;
  });
  std::vector<PartSet> out;
  for (size_t begin = 0, end = 0; begin < parts.size(); begin = end) {
    while (end < parts.size() && parts[end].is_sibling(parts[begin])) ++end;
    out.push_back(part_set(std::span(parts).subspan(begin, end - begin)));
  }
  return out;
}

Error part_alone(std::string_view name, uint64_t total) {
  return invalid(cat("expected a whole model, found ", name, ", which is one part of ", total,
                     ": name the folder that holds all parts"));
}

Error rank_alone(std::string_view name, const RankFile& rank) {
  return invalid(cat("expected a whole model, found ", name, ", ", rank.what,
                     rank.sibling.empty() ? "" : cat(" (beside it lies ", rank.sibling, ")"), ": ",
                     rank.advice));
}

Error parts_missing(const PartSet& set) {
  return Error{XD_NOT_FOUND,
               cat("expected all ", set.total, " parts of a model, found ", set.there.size(), " (",
                   listed(set.there), ") and not ", listed(set.missing),
                   set.total - set.there.size() > set.missing.size() ? ", ..." : "",
                   ": download the others, and their index if there is one")};
}

// A file of the same name with the next number in it, or the one before. It may be another part of
// one model, or the same model of another epoch: its name alone does not tell.
std::string numbered_neighbour(const Host& host, const Input& input, const std::string& name) {
  constexpr std::string_view kDigits = "0123456789";
  for (size_t begin = name.find_first_of(kDigits); begin != std::string::npos;) {
    const size_t end = std::min(name.find_first_not_of(kDigits, begin), name.size());
    const PartName place{std::string_view(name).substr(0, begin), end - begin,
                         std::string_view(name).substr(end)};
    const uint64_t number = end - begin < 10 ? std::stoull(name.substr(begin, end - begin)) : 0;
    for (const uint64_t other : {number + 1, number - 1}) {
      if (end - begin >= 10 || other == UINT64_MAX) continue;
      if (std::string neighbour = place.sibling(other); input.open(host, neighbour))
        return neighbour;
    }
    begin = name.find_first_of(kDigits, end);
  }
  return {};
}

// Whether a file whose name says that it may be one of several is the only one.
Result<void> check_alone(const Host& host, const Input& input, const std::string& name) {
  if (const auto part = part_name(name); part && part->total != 1)
    return part_alone(name, part->total);
  const auto rank = rank_file(name);
  if (const std::string other = rank ? "" : numbered_neighbour(host, input, name); !other.empty()) {
    host.log(XD_LOG_WARN, cat(name, " is taken for a whole model; ", other,
                              " beside it is not read: if both are parts of "
                              "one model, put them together first"));
  }
  if (!rank) return {};
  if (rank->sibling.empty()) return rank_alone(name, *rank);
  if (const auto second = input.open(host, rank->sibling);
      second || second.error().code != XD_NOT_FOUND)
    return rank_alone(name, *rank);
  host.log(XD_LOG_WARN,
           cat(name, " is called as ", rank->what, "; it is taken for the whole model, since no ",
               rank->sibling, " lies beside it"));
  return {};
}

// With neither standard name nor index: a whole set of parts, or the only file that there is.
Result<Names> choose_others(const Host& host, const Input& input, const Names& weights,
                            const WeightNames& kind, const std::string& variant) {
  const std::string single = single_name(kind.stems[0], kind, variant);
  const std::string index = index_names(kind.stems[0], kind, variant)[0];
  if (weights.empty()) {
    return Error{XD_NOT_FOUND, cat("expected ", single, " or ", index, ", found no ", kind.suffix,
                                   " file of a whole model: name the model's folder, or the file")};
  }
  // Of several, that of the standard stem; another one only where there is nothing else.
  auto sets = part_sets(weights);
  std::erase_if(sets, [&](const PartSet& set) {
    const bool is_standard =
        set.before.starts_with(single.substr(0, single.size() - kind.suffix.size()) + "-");
    return !is_standard &&
           (set.there.size() != weights.size() ||
            (!variant.empty() && set.before.find("." + variant) == std::string::npos));
  });
  if (sets.size() == 1) {
    if (!sets[0].complete()) return parts_missing(sets[0]);
    if (sets[0].total > 1)
      host.log(XD_LOG_WARN, cat("found all ", sets[0].total, " parts and no ", index, ": reading ",
                                listed(sets[0].there)));
    return std::move(sets[0].there);
  }
  if (weights.size() > 1 || !variant.empty()) {
    return invalid(cat("expected ", single, ", or ", index, " to say which tensor is where, found ",
                       listed(weights), ": name the file that holds the whole model, ",
                       variant.empty() ? "or choose by --variant" : "or another --variant"));
  }
  XD_TRY(check_alone(host, input, weights[0]));
  return weights;
}

void warn_of_adapter(const Host& host, std::span<const std::string> names, const Names& read,
                     const WeightNames& kind) {
  if (has(read, kind.adapter)) {
    host.log(XD_LOG_WARN, cat(kind.adapter,
                              " holds an adapter (LoRA), not a whole model: merge it into its "
                              "model first to train on from it"));
    return;
  }
  const auto adapter = std::find_if(names.begin(), names.end(), [](const std::string& name) {
    return name.starts_with("adapter_model.");
  });
  if (adapter != names.end()) {
    host.log(XD_LOG_WARN,
             cat(*adapter,
                 " beside the model is an adapter (LoRA), which is not in the result, while "
                 "transformers loads it with the model: merge it first where it is wanted"));
  }
}

// Every shard that the index lists, or in their place a whole set of parts that is there.
Result<void> find_shards(const Host& host, std::span<const std::string> names,
                         const WeightNames& kind, WeightFiles& out) {
  Names missing;
  for (const std::string& shard : out.index->shards) {
    if (!has(names, shard)) missing.push_back(shard);
  }
  out.files = out.index->shards;
  if (missing.empty()) return {};
  auto sets = part_sets(weight_files(names, kind));
  std::erase_if(sets, [](const PartSet& set) { return !set.complete(); });
  if (missing.size() == out.index->shards.size() && sets.size() == 1) {
    host.log(XD_LOG_WARN,
             cat(out.index_name, " is of another save: it lists ", listed(missing),
                 ", which are not there; reading ", listed(sets[0].there), " instead"));
    out.files = std::move(sets[0].there);
    out.index_is_stale = true;
    return {};
  }
  return Error{XD_NOT_FOUND, cat(out.index_name, ": expected all ", out.index->shards.size(),
                                 " files that it lists beside it, found ", missing.size(),
                                 " missing (", listed(missing),
                                 "): name the folder that holds them, or run `hf download` again")};
}

}  // namespace

bool has_suffix(std::string_view name, const WeightNames& kind) {
  if (is_index_name(name)) return name.find(cat(kind.suffix, ".index.")) != std::string_view::npos;
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
      return invalid(cat("expected ", in_quotes(wanted),
                         ", which config.json names as transformers_weights, found none: download "
                         "it, or take the key "
                         "out"));
    first = wanted;
  } else {
    for (size_t i = 0; i < kind.stems.size() && first.empty(); ++i)
      first = opening_file(host, names, kind.stems[i], kind, variant);
    const Names other_indexes = indexes(names, kind);
    if (first.empty() && variant.empty() && other_indexes.size() == 1) first = other_indexes[0];
  }
  if (first.empty()) {
    XD_TRY_SET(out.files, choose_others(host, input, weight_files(names, kind), kind, variant));
  } else if (!is_index_name(first)) {
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
  if (has(names, single_name(kind.stems[0], kind, "")) ||
      has(names, index_names(kind.stems[0], kind, "")[0]))
    return kind.standard_score;
  for (const std::string_view stem : kind.stems) {
    if (has(names, single_name(stem, kind, "")) || has(names, index_names(stem, kind, "")[0]))
      return kind.other_score;
  }
  const Names weights = weight_files(names, kind);
  if (weights.size() == 1 && weights[0] == kind.adapter) return kind.standard_score / 10;
  const auto sets = part_sets(weights);
  const bool is_one_set = sets.size() == 1 && sets[0].there.size() == weights.size();
  if (weights.size() == 1 || is_one_set || indexes(names, kind).size() == 1)
    return kind.other_score;
  return weights.empty() ? 0
                         : kind.standard_score /
                               10;  // perhaps nobody else reads them: open() says what is missing
}

Result<void> check_placed(const Host& host, const WeightFiles& files,
                          std::span<const PlacedTensor> tensors) {
  constexpr std::string_view kSaveAgain =
      ": the files are of different saves, download or save the model again";
  const auto refuse = [&](Error e) {
    return Result<void>(files.index ? std::move(e).in(files.index_name) : std::move(e));
  };
  // Sorted, not hashed: the worst case of a hash table is the file's to choose.
  std::vector<PlacedTensor> sorted(tensors.begin(), tensors.end());
  const auto by_name = [](const PlacedTensor& a, const PlacedTensor& b) { return a.name < b.name; };
  std::stable_sort(sorted.begin(), sorted.end(), by_name);
  const auto twice = std::adjacent_find(
      sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twice != sorted.end()) {
    return refuse(corrupt(cat("expected tensor ", in_quotes(twice->name),
                              " in one file, found it in ", files.files[twice->file], " and ",
                              files.files[std::next(twice)->file], kSaveAgain)));
  }
  if (!files.index) return {};
  Names unlisted, elsewhere;
  for (const PlacedTensor& t : sorted) {
    if (!files.index->find(t.name)) unlisted.push_back(in_quotes(t.name));
  }
  if (files.index_is_stale && !unlisted.empty()) {
    return refuse(corrupt(
        cat("expected the index to list every tensor of the files read in place of its own, found ",
            listed(unlisted), " not in it", kSaveAgain)));
  }
  for (const ShardIndex::Entry& entry : files.index->weight_map) {
    const auto it =
        std::lower_bound(sorted.begin(), sorted.end(), PlacedTensor{entry.tensor, 0}, by_name);
    const bool is_there = it != sorted.end() && it->name == entry.tensor;
    const std::string& shard = files.index->shards[entry.shard];
    if (!is_there) {
      return refuse(corrupt(cat("expected tensor ", in_quotes(entry.tensor), " in ",
                                files.index_is_stale ? "one of the files" : shard,
                                ", found it in no file", kSaveAgain)));
    }
    if (!files.index_is_stale && files.files[it->file] != shard)
      elsewhere.push_back(in_quotes(entry.tensor));
  }
  const auto warn = [&](const Names& names, std::string_view what) {
    if (names.empty()) return;
    host.log(XD_LOG_WARN, cat(files.index_name, ": ", listed(names), what,
                              "; read all the same, as transformers does: it takes from the index "
                              "which files there are"));
  };
  warn(unlisted, " of the files is not in the index");
  warn(elsewhere, " is not in the file that the index says");
  return {};
}

void compare_total_size(const Host& host, const WeightFiles& files, uint64_t n_bytes) {
  if (!files.index || !files.index->total_size || *files.index->total_size == n_bytes) return;
  host.log(XD_LOG_WARN, cat(files.index_name, ": its total_size is ", *files.index->total_size,
                            ", but the tensors have ", n_bytes,
                            " bytes; every tensor is where the index says, so this is ignored"));
}

}  // namespace crossdock::common
