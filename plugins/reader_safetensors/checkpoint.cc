// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_safetensors/checkpoint.h"

#include "plugins/common/hf_weights.h"
#include "plugins/common/quote.h"
#include "plugins/reader_safetensors/ranks.h"

#include <crossdock/bytes.hpp>

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <span>

namespace crossdock::reader_safetensors {

namespace {

// Those of transformers, diffusers, and Mistral's own.
constexpr std::string_view kStems[] = {"model", "diffusion_pytorch_model", "consolidated"};
constexpr common::WeightNames kNames{kStems, ".safetensors", {}, "adapter_model.safetensors", 100,
                                     75};

using Pairs = std::set<std::pair<std::string, std::string>>;

// `seen`: the metadata of the files before; each shard repeats {"format": "pt"}.
Result<void> add_file(const Host& host, const std::string& name, const Source& source,
                      std::span<const std::byte> beginning, Checkpoint& out, Pairs& seen) {
  auto header = read_header(host, source, beginning);
  if (!header) return common::in_file(name, std::move(header).error());
  if (auto found = find_begins(*header); !found) return std::move(found).error().in(name);
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

// Opens some shards and reads their beginnings at once, in which most have all of their header: on
// a network's disk each read waits, and a model may have a hundred of them.
Result<void> add_files(const Host& host, const Input& input, std::span<const std::string> names,
                       Checkpoint& out, Pairs& seen) {
  constexpr uint64_t kBeginning = 32 << 10;  // which is little beside a file of kLarge bytes
  constexpr uint64_t kLarge = 64 << 20;
  std::vector<Source> sources;
  std::vector<uint64_t> sizes;  // of what is read of each
  for (const std::string& name : names) {
    XD_TRY_SET(const Source source, input.open(host, name));
    const uint64_t size = source.size(host);
    sizes.push_back(std::min(size, size < kLarge ? kLengthBytes : kBeginning));
    sources.push_back(source);
  }
  XD_TRY_SET(const Buffer buffer,
             Buffer::make(host, std::accumulate(sizes.begin(), sizes.end(), uint64_t{0})));
  std::vector<SourceRead> reads;
  for (uint64_t i = 0, at = 0; i < sources.size(); at += sizes[i++])
    reads.push_back({sources[i], 0, buffer.span().subspan(at, sizes[i])});
  XD_TRY(read_many(host, reads));
  for (size_t i = 0; i < names.size(); ++i) {
    if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    XD_TRY(add_file(host, names[i], sources[i], reads[i].out, out, seen));
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

// A folder of ranks' files, without the whole model's beside them. Else what people know.
Result<common::WeightFiles> choose_files(const Host& host, const Input& input,
                                         const std::string& variant, const std::string& wanted) {
  const auto names = input.names(host);
  const auto ranks = rank_files(names);
  if (const std::string named = input.named(host); !rank_files({named}).empty())
    return unsupported(cat("expected a whole model, found ", named,
                           ", which is one rank's part of a distributed checkpoint of torch: name "
                           "the folder that it lies in"));
  const bool has_whole = std::ranges::any_of(names, [](const std::string& name) {
    return name == "model.safetensors" || name == "model.safetensors.index.json";
  });
  const bool asks = !wanted.empty() || !variant.empty() || !input.named(host).empty();
  if (ranks.empty() || has_whole || asks)
    return common::choose_files(host, input, kNames, variant, wanted);
  XD_TRY(check_ranks(ranks));
  common::WeightFiles out;
  out.files = ranks;
  return out;
}

// Puts together what ranks wrote.
Result<void> join_ranks(const Host& host, Checkpoint& out) {
  const auto is_of_rank = [](const HeaderTensor& t) { return t.begin.has_value(); };
  if (std::ranges::none_of(out.tensors, is_of_rank)) return {};
  XD_TRY(join_boxes(out.tensors));
  host.log(XD_LOG_WARN,
           cat("the tensors of ", out.files.size(),
               " files of a distributed checkpoint of torch are put together; no file tells how "
               "many ranks there were, so it is not noticed when the last one's lacks"));
  return {};
}

}  // namespace

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input,
                                   const manifest::Value& config, const std::string& variant) {
  XD_TRY_SET(const std::string wanted, wanted_file(config));
  XD_TRY_SET(const auto chosen, choose_files(host, input, variant, wanted));
  Checkpoint out;
  constexpr size_t kAtOnce = 64;
  Pairs seen;
  for (std::span<const std::string> left = chosen.files; !left.empty();) {
    const auto some = left.first(std::min(kAtOnce, left.size()));
    XD_TRY(add_files(host, input, some, out, seen));
    left = left.subspan(some.size());
  }
  XD_TRY(join_ranks(host, out));
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
  const auto names = input.names(host);
  if (name.empty())
    return std::max(common::score(names, kNames),
                    rank_files(names).empty() ? 0 : kNames.other_score);
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
