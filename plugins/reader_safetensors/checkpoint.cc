#include "plugins/reader_safetensors/checkpoint.h"

#include "plugins/common/hf_folder.h"
#include "plugins/common/quote.h"

#include <algorithm>
#include <set>

namespace crossdock::reader_safetensors {

namespace {

using common::in_quotes;
using common::ShardIndex;

constexpr std::string_view kSuffix = ".safetensors";
constexpr std::string_view kIndexSuffix = ".json";
constexpr size_t kMaxListed = 8;  // names in one message

bool has(std::span<const std::string> names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The folder's own *.safetensors: those of subfolders belong to something else ("original/").
std::vector<std::string> weight_files(std::span<const std::string> names) {
  std::vector<std::string> out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out),
               [](const std::string& name) { return name.ends_with(kSuffix) && name.find('/') == std::string::npos; });
  return out;
}

std::string listed(std::span<const std::string> names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < kMaxListed; ++i) out += cat(i == 0 ? "" : ", ", names[i]);
  if (names.size() > kMaxListed) out += cat(" and ", names.size() - kMaxListed, " more");
  return out;
}

// transformers inserts the variant before the last dot, and older tools before ".safetensors".
std::vector<std::string> index_names(const std::string& variant) {
  if (variant.empty()) return {"model.safetensors.index.json"};
  return {cat("model.safetensors.index.", variant, ".json"), cat("model.", variant, ".safetensors.index.json")};
}

// With no file of the expected name: the only one there is, or a message about those there are.
Result<std::string> choose_other(const Host& host, std::span<const std::string> weights, bool alone) {
  if (weights.empty()) {
    return Error{XD_NOT_FOUND,
                 "expected model.safetensors or model.safetensors.index.json, found no .safetensors file: name the "
                 "model's folder"};
  }
  if (weights.size() > 1) {
    return invalid(
        cat("expected model.safetensors, or model.safetensors.index.json to say which tensor is where, found ",
            weights.size(), " files without it (", listed(weights),
            "): download the index too, name one of the files, or choose by --variant"));
  }
  const auto shard = common::shard_number(weights[0]);
  if (shard && shard->total != 1) {
    return invalid(cat("expected a whole model, found ", weights[0], ", which is one part of ", shard->total, ": ",
                       alone ? "name the folder that holds all parts and model.safetensors.index.json"
                             : "download the other parts and model.safetensors.index.json"));
  }
  if (weights[0] == "adapter_model.safetensors") {
    host.log(XD_LOG_WARN,
             cat(weights[0],
                 " holds an adapter (LoRA), not a whole model: merge it into its model first to train on from it"));
  }
  return weights[0];
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

// Both ways: each tensor of the index lies in the shard it names, and each tensor of a shard is in the index.
Result<void> check_against_index(const Checkpoint& checkpoint, const ShardIndex& index) {
  constexpr uint32_t kNowhere = UINT32_MAX;
  constexpr std::string_view kSaveAgain = ": the files are of different saves, download or save the model again";
  const auto file = [&](uint32_t i) { return checkpoint.files[i].name; };

  std::vector<uint32_t> found(index.weight_map.size(), kNowhere);
  for (const StoredTensor& t : checkpoint.tensors) {
    const ShardIndex::Entry* entry = index.find(t.name);
    if (!entry) {
      return corrupt(cat("expected the index to list every tensor, found ", in_quotes(t.name), " of ", file(t.file),
                         " not in it", kSaveAgain));
    }
    uint32_t& where = found[static_cast<size_t>(entry - index.weight_map.data())];
    if (where != kNowhere) {
      return corrupt(cat("expected tensor ", in_quotes(t.name), " in one file, found it in ", file(where), " and ",
                         file(t.file), kSaveAgain));
    }
    where = t.file;
  }
  for (size_t i = 0; i < found.size(); ++i) {
    const ShardIndex::Entry& entry = index.weight_map[i];
    if (found[i] == entry.shard) continue;
    return corrupt(cat("expected tensor ", in_quotes(entry.tensor), " in ", file(entry.shard), ", found it in ",
                       found[i] == kNowhere ? "no file" : file(found[i]), kSaveAgain));
  }
  return {};
}

// total_size is nobody's rule: transformers does not read it, and merged, cast or stripped models keep an old one.
void compare_total_size(const Host& host, const Checkpoint& checkpoint, const ShardIndex& index,
                        const std::string& name) {
  uint64_t n_bytes = 0;
  for (const StoredTensor& t : checkpoint.tensors) n_bytes += t.n_bytes;
  if (!index.total_size || *index.total_size == n_bytes) return;
  host.log(XD_LOG_WARN, cat(name, ": its total_size is ", *index.total_size, ", but the tensors have ", n_bytes,
                            " bytes; every tensor is where the index says, so this is ignored"));
}

using Pairs = std::set<std::pair<std::string, std::string>>;

// `seen`: the metadata of the files before; each shard repeats {"format": "pt"}.
Result<void> add_file(const Host& host, const Input& input, const std::string& name, Checkpoint& out, Pairs& seen) {
  XD_TRY_SET(const Source source, input.open(host, name));
  auto header = read_header(host, source);
  if (!header) return common::in_file(name, std::move(header).error());
  const auto file = static_cast<uint32_t>(out.files.size());
  out.files.push_back({name, source.size(host), source});
  for (StoredTensor& t : header->tensors) {
    t.file = file;
    out.tensors.push_back(std::move(t));
  }
  for (const auto& pair : header->metadata) {
    if (seen.insert(pair).second) out.metadata.push_back(pair);
  }
  return {};
}

}  // namespace

Result<std::string> choose_file(const Host& host, std::span<const std::string> names, const std::string& variant) {
  const std::string single = variant.empty() ? "model.safetensors" : cat("model.", variant, kSuffix);
  const auto weights = weight_files(names);
  std::string index;
  for (const std::string& name : index_names(variant)) {
    if (index.empty() && has(names, name)) index = name;
  }
  if (has(names, single)) {
    if (!index.empty())
      host.log(XD_LOG_WARN, cat("found both ", single, " and ", index, ": reading ", single, ", as transformers does"));
    return single;
  }
  if (!index.empty()) return index;
  if (variant.empty()) return choose_other(host, weights, names.size() == 1);
  return Error{XD_NOT_FOUND,
               cat("expected ", single, " or ", index_names(variant)[0], ", found ",
                   weights.empty() ? "no .safetensors file" : listed(weights), ": give another --variant, or none")};
}

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input, std::span<const std::string> names,
                                   const std::string& variant) {
  XD_TRY_SET(const std::string first, choose_file(host, names, variant));
  Checkpoint out;
  Pairs seen;
  if (!first.ends_with(kIndexSuffix)) {
    XD_TRY(add_file(host, input, first, out, seen));
    return out;
  }
  XD_TRY_SET(const ShardIndex index, common::read_shard_index(host, input, first));
  if (auto all = check_shards_exist(index, names); !all) return common::in_file(first, std::move(all).error());
  for (const std::string& shard : index.shards) {
    if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    XD_TRY(add_file(host, input, shard, out, seen));
  }
  if (auto same = check_against_index(out, index); !same) return common::in_file(first, std::move(same).error());
  compare_total_size(host, out, index, first);
  return out;
}

int score(std::span<const std::string> names) {
  if (has(names, "model.safetensors") || has(names, "model.safetensors.index.json")) return 100;
  const auto weights = weight_files(names);
  if (weights.size() == 1) return 90;
  return weights.empty() ? 0 : 10;  // nobody else reads them either: let open() say what is missing
}

}  // namespace crossdock::reader_safetensors
