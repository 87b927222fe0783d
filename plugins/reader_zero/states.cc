#include "plugins/reader_zero/states.h"

#include "plugins/common/hf_folder.h"
#include "plugins/reader_zero/files.h"

namespace crossdock::reader_zero {

namespace {

constexpr std::string_view kOtherSave = ": the files are of different saves";

// That a rank's optimizer states are of the same save as those of the first.
Result<void> check_like(const OptimizerStates& a, const OptimizerStates& b) {
  const auto differ = [](std::string_view what, uint64_t expected, uint64_t found) {
    return corrupt(
        cat("expected ", what, ' ', expected, " as rank 0 has, found ", found, kOtherSave));
  };
  if (a.stage != b.stage) return differ("zero_stage", a.stage, b.stage);
  if (a.partition_counts != b.partition_counts)
    return differ("partition_count", a.n_ranks(), b.n_ranks());
  if (a.flat_groups.size() != b.flat_groups.size())
    return differ("a number of flat groups of", a.flat_groups.size(), b.flat_groups.size());
  for (size_t i = 0; i < a.flat_groups.size(); ++i) {
    const FlatGroup &of_a = a.flat_groups[i], &of_b = b.flat_groups[i];
    if (of_a.master.dtype != of_b.master.dtype)
      return corrupt(cat("expected group ", i, " in ", manifest::name(of_a.master.dtype),
                         " as rank 0 has it, found ", manifest::name(of_b.master.dtype),
                         kOtherSave));
    if (of_a.step && of_b.step && *of_a.step != *of_b.step)
      return differ(cat("in group ", i, " step"), *of_a.step, *of_b.step);
  }
  return {};
}

Result<void> read_optimizers(const CheckpointFiles& files, Opener& opener, States& out) {
  uint64_t n_ranks = 0;
  for (const auto& [rank, name] : files.optimizer_states) {
    XD_TRY_SET(OptimizerStates one, opener.read(name, [&](const FileInput& in) {
      return read_optimizer_states(in, out.optimizer.empty());
    }));
    if (out.optimizer.empty()) {
      n_ranks = one.n_ranks();
      if (n_ranks == 0)
        return common::in_file(name, corrupt("expected a partition_count of 1 or more, found 0"));
      XD_TRY(check_ranks(files.optimizer_states, n_ranks, "the optimizer states"));
      for (const uint64_t n : one.partition_counts) {
        if (n != n_ranks)
          return common::in_file(
              name, unsupported(cat("expected all groups cut over ", n_ranks,
                                    " ranks, found one cut over ", n, ", as of experts")));
      }
    } else if (auto same = check_like(out.optimizer[0], one); !same) {
      return common::in_file(name, std::move(same).error());
    }
    out.optimizer.push_back(std::move(one));
  }
  return {};
}

Result<void> check_model(const States& states) {
  const ModelStates& model = states.model;
  if (model.mp_world_size && *model.mp_world_size > 1)
    return unsupported(cat("expected a checkpoint of one model-parallel rank, found mp_world_size ",
                           *model.mp_world_size,
                           ": make a universal checkpoint of it with DeepSpeed's "
                           "ds_to_universal.py, which puts the parts together"));
  if (model.rank.dp_world_size && *model.rank.dp_world_size != states.n_ranks())
    return corrupt(cat("expected dp_world_size ", states.n_ranks(),
                       ", the partition_count of the optimizer states, found ",
                       *model.rank.dp_world_size, kOtherSave));
  if (model.groups.size() != states.optimizer[0].flat_groups.size())
    return corrupt(cat("expected param_shapes of ", states.optimizer[0].flat_groups.size(),
                       " groups, as the optimizer states have, found ", model.groups.size(),
                       kOtherSave));
  return {};
}

Result<void> check_rank(const RankStates& first, const RankStates& rank) {
  const auto check = [&](std::string_view what, const std::optional<uint64_t>& expected,
                         const std::optional<uint64_t>& found) -> Result<void> {
    if (expected == found) return {};
    const auto text = [](const std::optional<uint64_t>& n) { return n ? cat(*n) : "none"; };
    return corrupt(cat("expected ", what, ' ', text(expected), " as rank 0 has, found ",
                       text(found), kOtherSave));
  };
  XD_TRY(check("global_steps", first.global_steps, rank.global_steps));
  return check("dp_world_size", first.dp_world_size, rank.dp_world_size);
}

Result<void> read_models(const CheckpointFiles& files, Opener& opener, States& out) {
  const bool is_stage3 = out.stage() == 3;
  if (is_stage3) XD_TRY(check_ranks(files.model_states, out.n_ranks(), "the model states"));
  if (!is_stage3 && files.whole_model.empty())
    return Error{XD_NOT_FOUND, cat("expected ", files.folder,
                                   "mp_rank_00_model_states.pt, which has the parameters' names "
                                   "and shapes, found none: copy the whole folder")};
  const std::string& first = is_stage3 ? files.model_states.at(0) : files.whole_model;
  XD_TRY_SET(out.model, opener.read(first, [](const FileInput& in) {
    return read_model_states(in.host, in.torch, in.file);
  }));
  if (auto fits = check_model(out); !fits) return common::in_file(first, std::move(fits).error());
  if (!is_stage3) return {};
  for (const auto& [rank, name] : files.model_states) {
    if (rank == 0) {
      out.ranks.push_back(out.model.rank);
      continue;
    }
    XD_TRY_SET(RankStates one, opener.read(name, [](const FileInput& in) {
      return read_rank_states(in.torch, in.file);
    }));
    if (auto same = check_rank(out.model.rank, one); !same)
      return common::in_file(name, std::move(same).error());
    out.ranks.push_back(std::move(one));
  }
  return {};
}

}  // namespace

Result<States> read_states(const Host& host, const Input& input, const std::string& tag) {
  States out;
  XD_TRY_SET(const CheckpointFiles files, find_files(host, input, tag));
  out.tag = files.tag;
  Opener opener(host, input, out.opened);
  XD_TRY(read_optimizers(files, opener, out));
  XD_TRY(read_models(files, opener, out));
  return out;
}

}  // namespace crossdock::reader_zero
