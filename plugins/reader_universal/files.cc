// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_universal/files.h"

#include "plugins/common/file_names.h"
#include "plugins/common/quote.h"
#include "plugins/deepspeed/folders.h"
#include "plugins/deepspeed/rank_file.h"

#include <algorithm>

namespace crossdock::reader_universal {

namespace {

using common::in_quotes;
using deepspeed::FileKind;

// The second is what a folder that people renamed or copied has.
constexpr const char* kLatest[] = {"latest_universal", "latest"};

// ---- the tag
// The tag that is meant; empty where the files lie in SRC itself.
class TagChoice {
 public:
  TagChoice(const Host& host, const Input& input, std::span<const std::string> names)
      : host_(host), input_(input), names_(names), folders_(deepspeed::universal_folders(names)) {}

  Result<std::string> choose(const std::string& given) const {
    if (!given.empty()) {
      if (!common::is_portable_name(given))
        return invalid(cat("--from-tag: expected a folder's name, found ", in_quotes(given)));
      if (folders_.contains("") && !folders_.contains(given + '/'))
        return deepspeed::no_tags_in_src(given);
      return check(given, "--from-tag");
    }
    if (folders_.contains("")) return std::string();
    if (is_there(kLatest[0])) {
      XD_TRY_SET(const std::string tag, deepspeed::read_tag(host_, input_, kLatest[0]));
      return check(tag, cat('`', kLatest[0], '`'));
    }
    if (is_there(kLatest[1])) {  // which may mean a checkpoint of ZeRO beside ours
      XD_TRY_SET(std::string tag, deepspeed::read_tag(host_, input_, kLatest[1]));
      if (folders_.contains(tag + '/')) return tag;
    }
    if (folders_.size() == 1) return deepspeed::listed_tags(folders_);
    if (folders_.empty())
      return Error{XD_NOT_FOUND,
                   "expected a universal checkpoint (`latest_universal` and a folder with "
                   "zero/NAME/fp32.pt), found none"};
    return invalid(
        cat("expected the file `latest_universal`, which says which checkpoint is meant, found "
            "none and several checkpoints (",
            deepspeed::listed_tags(folders_), "): --from-tag TAG chooses one"));
  }

 private:
  bool is_there(std::string_view name) const {
    return std::find(names_.begin(), names_.end(), name) != names_.end();
  }

  Result<std::string> check(const std::string& tag, const std::string& by) const {
    if (folders_.contains(tag + '/')) return tag;
    return Error{XD_NOT_FOUND,
                 cat("expected a universal checkpoint in the folder ", deepspeed::quoted_tag(tag),
                     " that ", by, " names, found ",
                     folders_.empty() ? "none in any folder"
                                      : cat("one in ", deepspeed::listed_tags(folders_),
                                            ": --from-tag TAG chooses one"))};
  }

  const Host& host_;
  const Input& input_;
  std::span<const std::string> names_;
  std::set<std::string> folders_;
};

// ---- the files
// `name`: without the folder.
void add_model_states(std::string_view name, const std::string& whole, CheckpointFiles& out) {
  const auto file = deepspeed::rank_file(name);
  if (!file) return;
  const bool is_whole = file->kind == FileKind::kWholeModel;
  if (!is_whole && file->kind != FileKind::kModelStates) return;
  out.n_model_parallel = std::max(out.n_model_parallel, file->model_parallel_rank + 1);
  if (is_whole) {
    out.whole_models.emplace(file->model_parallel_rank, whole);
  } else if (file->model_parallel_rank == 0) {
    out.rank_models.emplace(file->rank, whole);
  }
}

// What lies in zero/, `name` without it.
Result<void> add_state(std::string_view name, const std::string& whole, CheckpointFiles& out) {
  constexpr std::string_view kEnding = ".pt";
  if (name == "optimizer_state.pt") {
    out.optimizer_state = whole;
    return {};
  }
  if (!name.ends_with(kEnding)) return {};
  const size_t slash = name.rfind('/');
  if (slash == name.npos)
    return corrupt(cat("expected optimizer_state.pt and folders of parameters in ", out.folder,
                       "zero, found ", in_quotes(whole), ": take the file away"));
  const std::string_view key = name.substr(slash + 1, name.size() - slash - 1 - kEnding.size());
  out.parameters[std::string(name.substr(0, slash))].emplace_back(key);
  return {};
}

Result<void> check_complete(const CheckpointFiles& files) {
  const auto missing = [&](const std::string& expected, std::string_view what) {
    return Error{XD_NOT_FOUND, cat("expected ", files.folder, expected, ", which has ", what,
                                   ", found none: copy the whole folder")};
  };
  if (files.optimizer_state.empty())
    return missing("zero/optimizer_state.pt", "the optimizer's groups");
  if (files.whole_models.empty() && files.rank_models.empty())
    return missing("mp_rank_00_model_states.pt or zero_pp_rank_0_mp_rank_00_model_states.pt",
                   "the parameters' order");
  const auto check = [&](const auto& models, std::string_view prefix) -> Result<void> {
    uint64_t expected = 0;
    for (const auto& [rank, name] : models) {
      if (rank != expected)
        return Error{XD_NOT_FOUND,
                     cat("expected the model states of all ranks, found none of ", files.folder,
                         prefix, expected, " beside ", name, ": copy the whole folder")};
      ++expected;
    }
    return {};
  };
  XD_TRY(check(files.whole_models, "mp_rank_"));
  return check(files.rank_models, "zero_pp_rank_");
}

}  // namespace

Result<CheckpointFiles> find_files(const Host& host, const Input& input, const std::string& tag) {
  if (const std::string named = input.named(host); !named.empty())
    return invalid(cat("expected the folder of a universal checkpoint, found the file ",
                       in_quotes(named), ": name the folder that has the folder zero"));
  const auto names = input.names(host);
  CheckpointFiles out;
  XD_TRY_SET(out.tag, TagChoice(host, input, names).choose(tag));
  out.folder = out.tag.empty() ? "" : out.tag + '/';
  for (const std::string& name : names) {
    if (!name.starts_with(out.folder)) continue;
    constexpr std::string_view kZero = "zero/";
    const std::string_view rest = std::string_view(name).substr(out.folder.size());
    if (rest.starts_with(kZero)) {
      XD_TRY(add_state(rest.substr(kZero.size()), name, out));
    } else {
      add_model_states(rest, name, out);
    }
  }
  XD_TRY(check_complete(out));
  return out;
}

int score(const Host& host, const Input& input) {
  if (!input.named(host).empty()) return 0;
  const auto names = input.names(host);
  if (deepspeed::universal_folders(names).empty()) return 0;
  // Beside a checkpoint of ZeRO, which may be of another step, nobody knows which is meant.
  return deepspeed::has_optimizer_states(names) ? 60 : 80;
}

}  // namespace crossdock::reader_universal
