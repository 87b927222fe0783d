// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_safetensors/ranks.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "plugins/common/json.h"
#include "plugins/common/quote.h"

namespace crossdock::reader_safetensors {
namespace {

using common::in_quotes;
namespace dom = simdjson::dom;

constexpr std::string_view kShardingInfo = "DCP_SHARDING_INFO";
constexpr std::string_view kShard = "shard-", kModel = "-model-", kSuffix = ".safetensors";

// The number of the rank, from 1; 0: it is no file of one.
uint64_t rank_of(std::string_view name) {
  const size_t model = name.find(kModel);
  if (!name.starts_with(kShard) || !name.ends_with(kSuffix) || model == name.npos) return 0;
  const std::string_view digits = name.substr(kShard.size(), model - kShard.size());
  uint64_t out = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  return error == std::errc() && end == digits.data() + digits.size() ? out : 0;
}

Result<std::vector<uint64_t>> offsets_of(dom::element info, const HeaderTensor& t) {
  std::vector<uint64_t> out;
  dom::array offsets;
  if (info[t.name]["saved_offsets"].get(offsets) != simdjson::SUCCESS)
    return corrupt("expected its saved_offsets, found none");
  for (const dom::element offset : offsets) {
    uint64_t n = 0;
    if (offset.get(n) != simdjson::SUCCESS)
      return corrupt("expected saved_offsets of 0 or more, found another value");
    out.push_back(n);
  }
  if (out.size() == t.shape.size()) return out;
  return corrupt(cat("expected ", t.shape.size(), " saved_offsets, one for each dimension, found ",
                     out.size()));
}

// The whole tensor of its boxes.
Result<HeaderTensor> join(const std::vector<const HeaderTensor*>& parts, uint64_t& pairs) {
  HeaderTensor out = *parts[0];
  if (manifest::info(out.dtype).bits % 8 != 0)
    return unsupported(cat("expected elements of whole bytes, found ", manifest::name(out.dtype)));
  for (const HeaderTensor* part : parts) {
    if (part->dtype != out.dtype || part->shape.size() != out.shape.size())
      return corrupt("expected one type and number of dimensions in all files, found two");
    for (size_t d = 0; d < out.shape.size(); ++d) {
      const auto end = checked_add((*part->begin)[d], part->shape[d]);
      if (!end) return corrupt("expected saved_offsets below 2^64, found larger ones");
      out.shape[d] = part == parts[0] ? *end : std::max(out.shape[d], *end);
    }
    if (part->n_elems > 0)
      out.boxes.push_back({*part->begin, part->shape, part->file, part->offset});
  }
  XD_TRY(common::check_tiling(out.shape, out.boxes, pairs));
  out.n_elems = *checked_product(out.shape);
  const auto n_bytes = manifest::dense_bytes(out.dtype, out.n_elems);
  if (!n_bytes) return corrupt("expected a size whose bytes fit 64 bits, found a larger one");
  out.n_bytes = *n_bytes;
  if (out.boxes.size() == 1) out.boxes.clear();  // which is all of it
  return out;
}

}  // namespace

std::vector<std::string> rank_files(const std::vector<std::string>& names) {
  std::vector<std::string> out;
  std::ranges::copy_if(names, std::back_inserter(out),
                       [](auto& name) { return rank_of(name) > 0; });
  std::ranges::sort(out);
  return out;
}

Result<void> check_ranks(const std::vector<std::string>& files) {
  std::vector<uint64_t> ranks;
  for (const std::string& file : files) ranks.push_back(rank_of(file));
  std::ranges::sort(ranks);
  uint64_t wanted = 1;
  for (const uint64_t rank : ranks) {
    if (rank > wanted)
      return Error{XD_NOT_FOUND,
                   cat("expected the files of all ranks, found none of shard-", wanted, " beside ",
                       in_quotes(files.back()), ": copy the whole folder")};
    wanted = rank + 1;
  }
  return {};
}

Result<void> find_begins(Header& header) {
  const auto info = std::ranges::find(header.metadata, kShardingInfo,
                                      &std::pair<std::string, std::string>::first);
  if (info == header.metadata.end()) return {};
  auto json = common::parse_json(info->second);
  if (!json) return std::move(json).error().in(kShardingInfo);
  for (HeaderTensor& t : header.tensors) {
    auto begin = offsets_of(json->root(), t);
    if (!begin)
      return std::move(begin).error().in(cat(kShardingInfo, ": tensor ", in_quotes(t.name)));
    t.begin = *std::move(begin);
  }
  std::erase_if(header.metadata, [](auto& pair) { return pair.first == kShardingInfo; });
  return {};
}

Result<void> join_boxes(std::vector<HeaderTensor>& tensors) {
  if (std::ranges::none_of(tensors, [](auto& t) { return t.begin.has_value(); })) return {};
  std::map<std::string_view, std::vector<const HeaderTensor*>> parts;
  std::vector<HeaderTensor> out;
  for (const HeaderTensor& t : tensors) {
    if (t.begin) parts[t.name].push_back(&t);
  }
  uint64_t pairs = common::kMaxPairs;
  for (const HeaderTensor& t : tensors) {
    const auto it = t.begin ? parts.find(t.name) : parts.end();
    if (t.begin && it->second[0] != &t) continue;  // made with the first
    if (!t.begin) {
      out.push_back(t);
      continue;
    }
    auto whole = join(it->second, pairs);
    if (!whole) return std::move(whole).error().in(cat("tensor ", in_quotes(t.name)));
    out.push_back(*std::move(whole));
  }
  tensors = std::move(out);
  return {};
}

}  // namespace crossdock::reader_safetensors
