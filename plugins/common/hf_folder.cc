// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/hf_folder.h"

#include "plugins/common/file_names.h"
#include "plugins/common/json.h"
#include "plugins/common/magic.h"
#include "plugins/common/quote.h"

#include <crossdock/aux_names.hpp>

#include <algorithm>
#include <cmath>

namespace crossdock::common {

namespace {

// Only a number of bytes counts: some tools write null, a string, or nothing. A double (1.5e10)
// does too.
std::optional<uint64_t> byte_count(simdjson::dom::element element) {
  if (element.is<uint64_t>()) return uint64_t(element);
  if (!element.is<double>()) return std::nullopt;
  const double value(element);
  return value >= 0 && value < 0x1p63 && value == std::floor(value)
             ? std::optional(static_cast<uint64_t>(value))
             : std::nullopt;
}

// "./a" is "a".
std::string_view without_dot(std::string_view name) {
  while (name.starts_with("./")) name.remove_prefix(2);
  return name;
}

Result<ShardIndex> shard_index(simdjson::dom::element root) {
  simdjson::dom::object top, map, metadata;
  if (root.get(top))
    return corrupt(cat("expected an object with a \"weight_map\", found ", kind_of(root)));
  XD_TRY(check_unique_keys(top, "the index"));
  simdjson::dom::element member;
  if (top["weight_map"].get(member))
    return corrupt(
        "expected a \"weight_map\" in the index, found none: download or save the index again");
  if (member.get(map))
    return corrupt(cat("expected \"weight_map\" to be an object, found ", kind_of(member)));
  if (map.begin() == map.end())
    return corrupt(
        "expected tensors in \"weight_map\", found none: download or save the index again");
  XD_TRY(check_unique_keys(map, "\"weight_map\""));

  ShardIndex out;
  if (!top["metadata"].get(metadata) && !metadata["total_size"].get(member))
    out.total_size = byte_count(member);
  std::vector<std::string_view> shards;
  for (const auto& [tensor, file] : map) {
    std::string_view name;
    if (file.get(name))
      return corrupt(cat("tensor ", in_quotes(tensor), ": expected the name of its shard, found ",
                         kind_of(file)));
    name = without_dot(name);
    if (!shards.empty() && shards.back() == name) continue;  // neighbours mostly share a shard
    if (!is_portable_name(name)) {
      return corrupt(cat("tensor ", in_quotes(tensor),
                         ": expected the relative name of a shard in this folder, found ",
                         in_quotes(name)));
    }
    shards.push_back(name);
  }
  std::sort(shards.begin(), shards.end());
  shards.erase(std::unique(shards.begin(), shards.end()), shards.end());
  out.shards.assign(shards.begin(), shards.end());
  out.weight_map.reserve(map.size());
  for (const auto& [tensor, file] : map) {
    const auto shard =
        std::lower_bound(shards.begin(), shards.end(), without_dot(std::string_view(file)));
    out.weight_map.push_back({std::string(tensor), static_cast<uint32_t>(shard - shards.begin())});
  }
  const auto by_name = [](const auto& a, const auto& b) { return a.tensor < b.tensor; };
  if (!std::is_sorted(out.weight_map.begin(), out.weight_map.end(), by_name)) {
    std::sort(out.weight_map.begin(), out.weight_map.end(), by_name);
  }
  return out;
}

// Opens a text file of bounded size; a size over the limit is told before memory is asked for.
Result<Source> open_text(const Host& host, const Input& input, const std::string& name,
                         uint64_t limit) {
  XD_TRY_SET(const Source source, input.open(host, name));
  const uint64_t size = source.size(host);
  if (size > limit)
    return unsupported(cat(name, ": expected at most ", limit, " bytes of JSON, found ", size));
  return source;
}

Result<manifest::Value> parse_config(std::string_view text) {
  XD_TRY_SET(const auto doc, parse_json(text, JsonDialect::kPython));
  if (!doc.root().is_object())
    return corrupt(cat("expected an object, found ", kind_of(doc.root())));
  return json_value(doc.root());
}

}  // namespace

Error in_file(std::string_view name, Error error) {
  return error.held_by_host ? error : std::move(error).in(name);
}

std::vector<manifest::AuxFile> aux_files(std::span<const std::string> names) {
  std::vector<manifest::AuxFile> out;
  for (const std::string& name : names) {
    if (const auto kind = aux_kind(name)) out.push_back({*kind, name, name});
  }
  return out;
}

Result<manifest::Value> read_config(const Host& host, const Input& input,
                                    std::span<const std::string> names) {
  const std::string name = "config.json";
  if (std::find(names.begin(), names.end(), name) == names.end()) return manifest::Value();
  XD_TRY_SET(const Source source, open_text(host, input, name, kMaxConfigBytes));
  XD_TRY_SET(const Buffer text, Buffer::make(host, source.size(host)));
  XD_TRY(source.read(host, 0, text.span()));
  if (const std::string_view what = what_begins_with(as_text(text.span())); !what.empty())
    return corrupt(cat(name, ": expected JSON, found ", what));
  if (as_text(text.span()).starts_with("\xef\xbb\xbf"))
    host.log(XD_LOG_WARN,
             "config.json begins with a byte order mark (BOM), which transformers does not read: "
             "save it without");
  auto config = parse_config(as_text(text.span()));
  if (!config)
    return std::move(config).error().in(
        cat(name, " (`python3 -m json.tool` shows where it breaks)"));
  return config;
}

const ShardIndex::Entry* ShardIndex::find(std::string_view tensor) const {
  const auto it = std::lower_bound(
      weight_map.begin(), weight_map.end(), tensor,
      [](const Entry& entry, std::string_view name) { return entry.tensor < name; });
  return it != weight_map.end() && it->tensor == tensor ? &*it : nullptr;
}

Result<ShardIndex> parse_shard_index(std::string_view text) {
  XD_TRY_SET(const auto doc, parse_json(text));
  return shard_index(doc.root());
}

Result<ShardIndex> read_shard_index(const Host& host, const Input& input, const std::string& name) {
  XD_TRY_SET(const Source source, open_text(host, input, name, kMaxIndexBytes));
  auto doc = read_json(host, source, 0, source.size(host));
  if (!doc) return in_file(name, std::move(doc).error());
  auto index = shard_index(doc->root());
  if (!index) return in_file(name, std::move(index).error());
  return index;
}

}  // namespace crossdock::common
