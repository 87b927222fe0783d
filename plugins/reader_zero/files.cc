// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/files.h"

#include "plugins/common/file_names.h"
#include "plugins/common/hf_folder.h"
#include "plugins/common/quote.h"
#include "plugins/deepspeed/folders.h"
#include "plugins/deepspeed/rank_file.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace crossdock::reader_zero {

namespace {

using common::in_quotes;
using deepspeed::FileKind;
using deepspeed::listed_tags;
using deepspeed::rank_file;
using deepspeed::RankFile;

constexpr std::string_view kLatest = "latest";
constexpr std::string_view kMakeUniversal =
    "make a universal checkpoint of it with DeepSpeed's ds_to_universal.py, which puts them "
    "together";

// With the slash.
std::string_view folder_of(std::string_view name) {
  const size_t slash = name.rfind('/');
  return name.substr(0, slash == name.npos ? 0 : slash + 1);
}

// The folders that hold optimizer states, in the input itself or one below.
std::set<std::string> folders_of_states(std::span<const std::string> names) {
  std::set<std::string> out;
  for (const std::string& name : names) {
    const std::string_view folder = folder_of(name);
    const auto part = rank_file(std::string_view(name).substr(folder.size()));
    if (part && part->kind == FileKind::kOptimizerStates &&
        std::count(folder.begin(), folder.end(), '/') < 2)
      out.emplace(folder);
  }
  return out;
}

bool has_latest(std::span<const std::string> names) {
  return std::find(names.begin(), names.end(), kLatest) != names.end();
}

// The tag that is meant; empty where the files lie in SRC itself.
Result<std::string> choose_tag(const Host& host, const Input& input,
                               std::span<const std::string> names, const std::string& given) {
  const auto folders = folders_of_states(names);
  const auto check = [&](const std::string& tag, const std::string& by) -> Result<std::string> {
    const std::string folder = tag + '/';
    const auto is_of_it = [&](const std::string& name) { return name.starts_with(folder); };
    if (std::any_of(names.begin(), names.end(), is_of_it)) return tag;
    return Error{XD_NOT_FOUND,
                 cat("expected the folder ", deepspeed::quoted_tag(tag), by, ", found ",
                     folders.empty() ? "no folder with optimizer states" : listed_tags(folders),
                     folders.empty() ? "" : ": --from-tag TAG chooses one")};
  };
  if (!given.empty()) {
    if (!common::is_portable_name(given))
      return invalid(cat("--from-tag: expected a folder's name, found ", in_quotes(given)));
    if (folders.contains("") && !folders.contains(given + '/'))
      return deepspeed::no_tags_in_src(given);
    return check(given, " that --from-tag names");
  }
  if (folders.contains("")) return std::string();
  if (has_latest(names)) {
    XD_TRY_SET(const std::string tag, deepspeed::read_tag(host, input, std::string(kLatest)));
    return check(tag, " that `latest` names");
  }
  if (folders.size() == 1) return listed_tags(folders);
  if (folders.empty())
    return Error{XD_NOT_FOUND,
                 "expected a DeepSpeed checkpoint (`latest` and a folder with "
                 "*zero_pp_rank_0_mp_rank_00_optim_states.pt), found no optimizer states: of a job "
                 "without ZeRO name the file mp_rank_00_model_states.pt"};
  return invalid(
      cat("expected the file `latest`, which says which checkpoint is meant, found none "
          "and several checkpoints (",
          listed_tags(folders), "): --from-tag TAG chooses one"));
}

Result<void> refuse(const RankFile& part, std::string_view name) {
  if (part.kind == FileKind::kExpert)
    return unsupported(cat("expected a model whose experts are in no files of their own, found ",
                           name, ": ", kMakeUniversal));
  if (part.kind == FileKind::kOtherLayer)
    return unsupported(
        cat("expected layers of a pipeline as layer_00-model_states.pt or "
            "layer_00-model_00-model_states.pt, found ",
            name, ": ", kMakeUniversal));
  return {};
}

Result<void> add(const RankFile& part, const std::string& name, CheckpointFiles& out) {
  XD_TRY(refuse(part, name));
  if (part.kind == FileKind::kLayer) {
    out.layers.push_back({part.layer, part.model_parallel_rank, name});
    return {};
  }
  PartFiles& of_part = out.parts[part.model_parallel_rank];
  if (part.kind == FileKind::kWholeModel) {
    of_part.whole_model = name;
    return {};
  }
  auto& files =
      part.kind == FileKind::kModelStates ? of_part.model_states : of_part.optimizer_states;
  const auto [it, is_new] = files.emplace(part.rank, name);
  if (is_new) return {};
  return invalid(cat("expected one file of rank ", part.rank, ", found ", it->second, " and ", name,
                     ": they are of two saves, take those of one away"));
}

}  // namespace

Result<CheckpointFiles> find_files(const Host& host, const Input& input, const std::string& tag) {
  if (const std::string named = input.named(host); !named.empty())
    return invalid(cat("expected the folder of a DeepSpeed checkpoint, found the file ",
                       in_quotes(named), ": name the folder that it lies in"));
  const auto names = input.names(host);
  CheckpointFiles out;
  XD_TRY_SET(out.tag, choose_tag(host, input, names, tag));
  out.folder = out.tag.empty() ? "" : out.tag + '/';
  for (const std::string& name : names) {
    if (!name.starts_with(out.folder)) continue;
    const std::string_view rest = std::string_view(name).substr(out.folder.size());
    if (rest.starts_with("offloaded_tensors/"))
      return unsupported(
          cat("expected optimizer states in the checkpoint's own files, found those of an NVMe "
              "offload, as ",
              in_quotes(name), ": load the checkpoint and save it again without the offload"));
    const auto part = rest.find('/') == rest.npos ? rank_file(rest) : std::nullopt;
    if (part) XD_TRY(add(*part, name, out));
  }
  std::sort(out.layers.begin(), out.layers.end(), [](const LayerFile& a, const LayerFile& b) {
    return std::tie(a.layer, a.tensor_rank) < std::tie(b.layer, b.tensor_rank);
  });
  const auto has_states = [](const auto& part) { return !part.second.optimizer_states.empty(); };
  if (std::any_of(out.parts.begin(), out.parts.end(), has_states)) return out;
  const std::string whole = out.parts.empty() ? "" : out.parts.begin()->second.whole_model;
  return Error{
      XD_NOT_FOUND,
      cat("expected ", out.folder,
          "*zero_pp_rank_0_mp_rank_00_optim_states.pt, found no optimizer states",
          whole.empty() ? std::string() : cat(": of a job without ZeRO name the file ", whole))};
}

Result<void> check_ranks(const std::map<uint64_t, std::string>& files, uint64_t n,
                         std::string_view what) {
  std::vector<std::string> missing;
  for (uint64_t rank = 0; rank < n && missing.size() <= common::kMaxListed; ++rank) {
    if (!files.contains(rank)) missing.push_back(cat(rank));
  }
  if (!missing.empty())
    return Error{XD_NOT_FOUND, cat("expected ", what, " of ", n, " ranks, found none of rank ",
                                   common::listed(missing), ": copy the files of all ranks")};
  if (files.size() == n) return {};
  return invalid(cat("expected ", what, " of ", n, " ranks, found ", files.size(), ", as ",
                     files.rbegin()->second,
                     ": the folder holds a save of another number of ranks too, take its files "
                     "away"));
}

int score(const Host& host, const Input& input) {
  if (!input.named(host).empty()) return 0;
  const auto names = input.names(host);
  const auto folders = folders_of_states(names);
  if (folders.empty()) return 0;
  // Beside a universal checkpoint, which may be of another step, nobody knows which is meant.
  if (!deepspeed::universal_folders(names).empty()) return 60;
  return folders.contains("") || has_latest(names) ? 80 : 60;
}

}  // namespace crossdock::reader_zero
