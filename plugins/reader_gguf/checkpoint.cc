// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_gguf/checkpoint.h"

#include <algorithm>
#include <array>
#include <unordered_set>

#include <crossdock/part_name.hpp>

#include "plugins/common/hf_folder.h"
#include "plugins/common/quote.h"

namespace crossdock::reader_gguf {

namespace {

using common::in_quotes;

constexpr std::string_view kSuffix = ".gguf";
constexpr std::string_view kOfSplits = "split.";  // the metadata that is each part's own
constexpr uint64_t kMaxParts = 9999;

// A projector or an importance matrix beside a model is not the model.
bool is_model_file(std::string_view name) {
  const size_t slash = name.rfind('/');
  const std::string_view base = slash == std::string_view::npos ? name : name.substr(slash + 1);
  const auto holds = [&](std::string_view word) {
    return base.find(word) != std::string_view::npos;
  };
  return base.ends_with(kSuffix) && !holds("mmproj") && !holds("imatrix");
}

Result<uint64_t> integer(const Container& file, const char* key) {
  const manifest::Value* v = file.find(key);
  const int64_t* n = v ? v->get<int64_t>() : nullptr;
  if (n && *n >= 0) return static_cast<uint64_t>(*n);
  return corrupt(cat("expected ", key, " in the metadata of a part, found none"));
}

// What a part says of itself must be what its name says.
Result<void> check_part(const Container& part, uint32_t index, size_t n_parts) {
  if (n_parts == 1 && !part.find("split.count")) return {};
  XD_TRY_SET(const uint64_t count, integer(part, "split.count"));
  if (n_parts == 1 && count <= 1) return {};  // llama-gguf-split --merge leaves a count of 0 behind
  XD_TRY_SET(const uint64_t no, integer(part, "split.no"));
  if (count == n_parts && no == index) return {};
  return corrupt(cat("expected part ", index + 1, " of ", n_parts, ", found one that says it is ",
                     no + 1, " of ", count,
                     count > 1 && n_parts == 1
                         ? ": keep its name, NAME-00001-of-00002.gguf, and all parts together"
                         : ""));
}

}  // namespace

int score(const Host& host, const Input& input) {
  const std::string name = input.named(host);
  if (name.empty()) {
    const auto names = input.names(host);
    return std::any_of(names.begin(), names.end(), is_model_file) ? 60 : 0;
  }
  std::array<char, 4> magic;
  const auto source = input.open(host, name);
  const bool is_gguf = source && source->size(host) >= magic.size() &&
                       source->read(host, 0, std::as_writable_bytes(std::span(magic))) &&
                       std::string_view(magic.data(), magic.size()) == "GGUF";
  if (is_gguf) return 90;
  return name.ends_with(kSuffix) ? 10 : 0;  // what is wrong with it is ours to say
}

Result<std::string> choose_file(std::span<const std::string> names) {
  std::vector<std::string> found;
  for (const std::string& name : names) {
    if (!is_model_file(name)) continue;
    const auto part = part_name(name);
    if (!part || part->number == 1) found.push_back(name);
  }
  if (found.size() == 1) return found[0];
  if (found.empty())
    return unsupported("expected a .gguf file (the first of its parts), found none: name the file");
  std::string list;
  for (const std::string& name : found) list += (list.empty() ? "" : ", ") + in_quotes(name);
  return invalid(cat("expected one model in the folder, found ", list, ": name the file"));
}

std::vector<std::string> part_names(const std::string& name) {
  const auto part = part_name(name);
  if (!part || part->total < 2 || part->total > kMaxParts) return {name};
  std::vector<std::string> out;
  for (uint64_t i = 1; i <= part->total; ++i) out.push_back(part->sibling(i));
  return out;
}

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input) {
  std::string first = input.named(host);  // the user's own choice
  if (first.empty()) {
    XD_TRY_SET(first, choose_file(input.names(host)));
  }
  Checkpoint out;
  std::unordered_set<std::string> seen;
  const auto parts = part_names(first);
  for (uint32_t i = 0; i < parts.size(); ++i) {
    const auto where = [&](Error e) { return common::in_file(parts[i], std::move(e)); };
    auto source = input.open(host, parts[i]);
    if (!source) return where(std::move(source).error());
    CheckpointFile& file =
        out.files.emplace_back(CheckpointFile{parts[i], source->size(host), std::move(*source)});
    const ReadAt read = [&](uint64_t offset, std::span<std::byte> bytes) {
      return file.source.read(host, offset, bytes);
    };
    auto part = parse_container(read, file.size);
    if (!part) return where(std::move(part).error());
    if (auto r = check_part(*part, i, parts.size()); !r) return where(std::move(r).error());
    for (TensorInfo& t : part->tensors) {
      if (!seen.insert(t.name).second)
        return where(
            corrupt(cat("expected each tensor in one part, found ", in_quotes(t.name), " in two")));
      out.tensors.push_back({i, std::move(t)});
    }
    if (i > 0) {
      if (part->big_endian != out.big_endian)
        return where(corrupt("expected the byte order of the first part, found the other"));
      continue;
    }
    out.version = part->version;
    out.big_endian = part->big_endian;
    out.metadata = std::move(part->metadata);
  }
  const auto total = std::find_if(out.metadata.begin(), out.metadata.end(),
                                  [](const auto& v) { return v.key == "split.tensors.count"; });
  const int64_t* n = total == out.metadata.end() ? nullptr : total->value.get<int64_t>();
  if (n && static_cast<uint64_t>(*n) != out.tensors.size())
    return corrupt(cat("expected ", *n, " tensors in all parts (split.tensors.count), found ",
                       out.tensors.size()));
  std::erase_if(out.metadata, [](const auto& v) { return v.key.starts_with(kOfSplits); });
  return out;
}

}  // namespace crossdock::reader_gguf
