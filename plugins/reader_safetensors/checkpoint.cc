#include "plugins/reader_safetensors/checkpoint.h"

#include "plugins/common/hf_weights.h"

#include <set>

namespace crossdock::reader_safetensors {

namespace {

constexpr common::WeightNames kNames{"model", ".safetensors", {}, {}, "adapter_model.safetensors"};

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

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input, std::span<const std::string> names,
                                   const std::string& variant) {
  XD_TRY_SET(const std::string first, common::choose_file(host, names, kNames, variant));
  Checkpoint out;
  Pairs seen;
  if (!common::is_index(first)) {
    XD_TRY(add_file(host, input, first, out, seen));
    return out;
  }
  XD_TRY_SET(const auto index, common::read_shard_index(host, input, first));
  if (auto all = common::check_shards_exist(index, names); !all)
    return common::in_file(first, std::move(all).error());
  for (const std::string& shard : index.shards) {
    if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    XD_TRY(add_file(host, input, shard, out, seen));
  }
  std::vector<common::PlacedTensor> placed;
  uint64_t n_bytes = 0;
  for (const StoredTensor& t : out.tensors) {
    placed.push_back({t.name, t.file});
    n_bytes += t.n_bytes;
  }
  if (auto same = common::check_against_index(index, placed, index.shards); !same)
    return common::in_file(first, std::move(same).error());
  common::compare_total_size(host, index, n_bytes, first);
  return out;
}

int score(std::span<const std::string> names) { return common::score(names, kNames, 100); }

}  // namespace crossdock::reader_safetensors
