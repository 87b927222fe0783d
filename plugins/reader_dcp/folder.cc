// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_dcp/folder.h"

#include <algorithm>

#include "plugins/common/quote.h"
#include "plugins/reader_dcp/metadata.h"

namespace crossdock::reader_dcp {
namespace {

constexpr std::string_view kSuffix = ".distcp";
// accelerate's, and NeMo's and others'.
constexpr std::string_view kModelFolders[] = {"", "pytorch_model_fsdp_0/", "model/"};
constexpr int kScores[] = {90, 85, 80};
constexpr std::string_view kOptimizer = "optimizer_0/";
constexpr uint64_t kMaxJsonBytes = 64 << 10;

using Names = std::vector<std::string>;

bool has(const Names& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

bool is_in(std::string_view name, std::string_view folder) {
  return name.starts_with(folder) && name.find('/', folder.size()) == name.npos;
}

bool has_shards(const Names& names, std::string_view folder) {
  return std::ranges::any_of(
      names, [&](const std::string& n) { return is_in(n, folder) && n.ends_with(kSuffix); });
}

bool is_checkpoint(const Names& names, std::string_view folder) {
  return has(names, cat(folder, kMetadataFile)) && has_shards(names, folder);
}

// Megatron-Core's torch_dist is a DCP of other tensors: layers stacked, projections fused.
Result<void> refuse_megatron(const Host& host, const Input& input, const Names& names,
                             const std::string& folder) {
  const std::string file = folder + "metadata.json";
  std::string text;
  if (has(names, file)) {
    XD_TRY_SET(const Source source, input.open(host, file));
    text.resize(std::min(source.size(host), kMaxJsonBytes));
    XD_TRY(source.read(host, 0, std::as_writable_bytes(std::span(text))));
  }
  if (text.find("\"sharded_backend\"") == text.npos && !has(names, folder + "common.pt")) return {};
  return unsupported(
      "expected a checkpoint with the names of the model's own parameters, found one of "
      "Megatron-Core (torch_dist), whose layers are stacked and whose projections are fused: "
      "export it to Hugging Face's format with Megatron's or Megatron-Bridge's own tools");
}

// .metadata is written last.
Error no_metadata(const Names& names, std::string_view folder) {
  const auto rank = std::ranges::find_if(names, [&](const std::string& n) {
    return is_in(n, folder) && n.ends_with(kMetadataFile) &&
           n.size() > folder.size() + kMetadataFile.size();
  });
  if (rank != names.end())
    return unsupported(
        cat("expected one .metadata of all ranks, found ", common::in_quotes(*rank),
            ", as each rank writes its own without collectives: load it with as many "
            "ranks and save it with collectives"));
  return {XD_NOT_FOUND,
          cat("expected ", folder, ".metadata, which torch writes last, beside ", folder,
              "*.distcp, found none: the save did not end, or the copy left hidden files out")};
}

}  // namespace

Result<Folders> find_folders(const Host& host, const Input& input) {
  const Names names = input.names(host);
  const std::string named = input.named(host);
  if (!named.empty() && named != kMetadataFile)
    return unsupported(cat("expected a whole checkpoint, found ", named,
                           ", which is one shard of it: name the folder that it lies in"));
  for (const std::string_view folder : kModelFolders) {
    if (!is_checkpoint(names, folder)) continue;
    Folders out{std::string(folder), std::nullopt};
    XD_TRY(refuse_megatron(host, input, names, out.model));
    const bool is_accelerate = folder.ends_with("fsdp_0/");
    if (is_accelerate && is_checkpoint(names, kOptimizer)) out.optimizer = kOptimizer;
    if (is_accelerate && is_checkpoint(names, "pytorch_model_fsdp_1/"))
      host.log(XD_LOG_WARN,
               "pytorch_model_fsdp_0 is read, the first of several models: name the folder of "
               "another to read that");
    return out;
  }
  for (const std::string_view folder : kModelFolders) {
    if (has_shards(names, folder)) return no_metadata(names, folder);
  }
  if (has(names, kMetadataFile))
    return Error{XD_NOT_FOUND,
                 "expected shards (*.distcp) beside .metadata, found none: copy the whole folder"};
  return unsupported(
      "expected .metadata and *.distcp in the folder, or in pytorch_model_fsdp_0 or model inside "
      "it, found neither: name the folder that they lie in");
}

int score(const Host& host, const Input& input) {
  const std::string named = input.named(host);
  const Names names = input.names(host);
  if (!named.empty() && named != kMetadataFile) return named.ends_with(kSuffix) ? 95 : 0;
  for (size_t i = 0; i < std::size(kModelFolders); ++i) {
    if (is_checkpoint(names, kModelFolders[i])) return kScores[i];
  }
  if (!named.empty()) return 90;
  // What is wrong with it is ours to say.
  return has_shards(names, "") || has_shards(names, kModelFolders[1]) ? 60 : 0;
}

}  // namespace crossdock::reader_dcp
