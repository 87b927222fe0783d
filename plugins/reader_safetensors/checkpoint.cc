#include "plugins/reader_safetensors/checkpoint.h"

#include "plugins/common/hf_weights.h"
#include "plugins/common/quote.h"

#include <crossdock/bytes.hpp>

#include <algorithm>
#include <array>
#include <set>

namespace crossdock::reader_safetensors {

namespace {

// Those of transformers, diffusers, and Mistral's own.
constexpr std::string_view kStems[] = {"model", "diffusion_pytorch_model", "consolidated"};
constexpr common::WeightNames kNames{kStems, ".safetensors", {}, "adapter_model.safetensors", 100,
                                     75};

// The metadata of torch's HuggingFaceStorageWriter for tensors that are cut over several files.
constexpr std::string_view kDcpShards = "DCP_SHARDING_INFO";

using Pairs = std::set<std::pair<std::string, std::string>>;

// `seen`: the metadata of the files before; each shard repeats {"format": "pt"}.
Result<void> add_file(const Host& host, const Input& input, const std::string& name,
                      Checkpoint& out, Pairs& seen) {
  XD_TRY_SET(const Source source, input.open(host, name));
  auto header = read_header(host, source);
  if (!header) return common::in_file(name, std::move(header).error());
  for (const auto& [key, value] : header->metadata) {
    if (key == kDcpShards) {
      return unsupported(
          cat(name,
              ": expected whole tensors, found the share of one rank, as torch's distributed "
              "checkpoints keep it: consolidate them with torch.distributed.checkpoint first"));
    }
  }
  const auto file = static_cast<uint32_t>(out.files.size());
  out.files.push_back({name, source.size(host), source});
  for (HeaderTensor& t : header->tensors) {
    t.file = file;
    out.tensors.push_back(std::move(t));
  }
  for (const auto& pair : header->metadata) {
    if (seen.insert(pair).second) out.metadata.push_back(pair);
  }
  return {};
}

// The name of a file that config.json asks for; empty without one.
Result<std::string> wanted_file(const manifest::Value& config) {
  const auto* map = config.get<manifest::ValueMap>();
  const auto* value = map ? map->find("transformers_weights") : nullptr;
  const auto* name = value ? value->get<std::string>() : nullptr;
  if (!name) return std::string();
  if (common::is_portable_name(*name) && common::has_suffix(*name, kNames)) return *name;
  return invalid(cat(
      "config.json: expected transformers_weights to be the name of a .safetensors file, found ",
      common::in_quotes(*name)));
}

}  // namespace

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input,
                                   const manifest::Value& config, const std::string& variant) {
  XD_TRY_SET(const std::string wanted, wanted_file(config));
  XD_TRY_SET(const auto chosen, common::choose_files(host, input, kNames, variant, wanted));
  Checkpoint out;
  Pairs seen;
  for (const std::string& file : chosen.files) {
    if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    XD_TRY(add_file(host, input, file, out, seen));
  }
  std::vector<common::PlacedTensor> placed;
  uint64_t n_bytes = 0;
  for (const HeaderTensor& t : out.tensors) {
    placed.push_back({t.name, t.file});
    n_bytes += t.n_bytes;
  }
  XD_TRY(common::check_placed(host, chosen, placed));
  common::compare_total_size(host, chosen, n_bytes);
  return out;
}

int score(const Host& host, const Input& input) {
  const std::string name = input.named(host);
  if (name.empty()) return common::score(input.names(host), kNames);
  if (is_index_name(name)) return common::has_suffix(name, kNames) ? kNames.standard_score : 0;
  // The content tells, whatever the name: the length of the header, and JSON behind it.
  std::array<std::byte, kLengthBytes + 1> head;
  const auto source = input.open(host, name);
  if (source && source->size(host) >= head.size() && source->read(host, 0, head)) {
    const auto length = Cursor(head).le<uint64_t>();
    const uint64_t rest = source->size(host) - kLengthBytes;
    if (static_cast<char>(head.back()) == '{' && length <= std::min(rest, kMaxHeaderBytes))
      return 90;
  }
  return common::has_suffix(name, kNames) ? 10 : 0;  // what is wrong with it is ours to say
}

}  // namespace crossdock::reader_safetensors
