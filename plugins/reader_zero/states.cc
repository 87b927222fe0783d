// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/states.h"

#include "plugins/common/file_names.h"
#include "plugins/common/hf_folder.h"
#include "plugins/reader_zero/pipeline.h"

#include <set>

namespace crossdock::reader_zero {

namespace {

constexpr std::string_view kOtherSave = ": the files are of different saves";

// That a rank's optimizer states are of the same save as those of the first.
Result<void> check_like(const OptimizerStates& a, const OptimizerStates& b) {
  const auto differ = [](std::string_view what, uint64_t of_a, uint64_t of_b) {
    return corrupt(cat("expected ", what, ' ', of_a, " as rank 0 has, found ", of_b, kOtherSave));
  };
  if (a.stage != b.stage) return differ("zero_stage", a.stage, b.stage);
  const auto &expected = a.partition_counts, &found = b.partition_counts;
  if (expected.size() != found.size())
    return differ("a partition_count with a number of groups of", expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] != found[i]) return differ("partition_count", expected[i], found[i]);
  }
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

// One model-parallel rank's files.
struct PartInput {
  const PartFiles& files;
  uint64_t number;
  std::string place;  // " of mp_rank_01"; empty where there is one part
  std::string folder;
  bool warns, reads_info;
};

Result<void> read_optimizers(const PartInput& in, Opener& opener, States& out) {
  uint64_t n_ranks = 0;
  if (in.files.optimizer_states.empty())
    return Error{XD_NOT_FOUND, cat("expected the optimizer states", in.place,
                                   ", found none: copy the files of all ranks")};
  for (const auto& [rank, name] : in.files.optimizer_states) {
    XD_TRY_SET(OptimizerStates one, opener.read(name, [&](const FileInput& file) {
      return read_optimizer_states(file, in.warns && out.optimizer.empty());
    }));
    if (out.optimizer.empty()) {
      n_ranks = one.n_ranks();
      if (n_ranks == 0)
        return common::in_file(name, corrupt("expected a partition_count of 1 or more, found 0"));
      XD_TRY(
          check_ranks(in.files.optimizer_states, n_ranks, cat("the optimizer states", in.place)));
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

Result<void> read_models(const PartInput& in, Opener& opener, States& out,
                         std::optional<UniversalInfo>& info) {
  const PartFiles& files = in.files;
  const bool is_stage3 = out.stage() == 3;
  if (is_stage3)
    XD_TRY(check_ranks(files.model_states, out.n_ranks(), cat("the model states", in.place)));
  if (!is_stage3 && files.whole_model.empty())
    return Error{XD_NOT_FOUND,
                 cat("expected ", in.folder, part_name(in.number),
                     "_model_states.pt, which has the parameters' names and shapes, "
                     "found none: copy the whole folder")};
  const std::string& first = is_stage3 ? files.model_states.at(0) : files.whole_model;
  XD_TRY_SET(out.model, opener.read(first, [&](const FileInput& file) -> Result<ModelStates> {
    XD_TRY_SET(ModelStates model,
               read_model_states(file.host, file.torch, file.file, Layout::kRanks, in.warns));
    if (!in.reads_info) return model;
    const Pickle& pickle = file.torch.pickle();
    XD_TRY_SET(const Dict root, Dict::of(pickle, pickle.root(), ""));
    XD_TRY_SET(info, read_universal_info(root));
    return model;
  }));
  if (auto fits = check_model(out); !fits) return common::in_file(first, std::move(fits).error());
  if (!is_stage3) return {};
  for (const auto& [rank, name] : files.model_states) {
    if (rank == 0) {
      out.ranks.push_back(out.model.rank);
      continue;
    }
    XD_TRY_SET(RankStates one, opener.read(name, [](const FileInput& file) {
      return read_rank_states(file.torch, file.file);
    }));
    if (auto same = check_rank(out.model.rank, one); !same)
      return common::in_file(name, std::move(same).error());
    out.ranks.push_back(std::move(one));
  }
  return {};
}

// How many parts there are, and how many of them share a layer.
Result<uint64_t> count_parts(const CheckpointFiles& files, SavedJob& out) {
  const ModelStates& model = out.parts[0].model;
  const uint64_t n_found = files.parts.rbegin()->first + 1;
  uint64_t n = model.mp_world_size.value_or(n_found);
  if (model.pipeline_stages || model.tensor_ranks) {
    const uint64_t degrees[] = {model.pipeline_stages.value_or(1), model.tensor_ranks.value_or(1)};
    n = checked_product(degrees).value_or(0);
    out.tensor_ranks = degrees[1];
  } else {
    // As DeepSpeed finds it out: a pipeline's layers have a file of each tensor-parallel rank.
    std::set<uint64_t> ranks;
    for (const LayerFile& layer : files.layers) ranks.insert(layer.tensor_rank);
    out.tensor_ranks = files.layers.empty() ? n : ranks.size();
  }
  if (n == 0 || out.tensor_ranks == 0 || n % out.tensor_ranks != 0)
    return corrupt(cat("expected model-parallel ranks that ", out.tensor_ranks,
                       " tensor-parallel ranks divide, found ", n));
  if (n_found > n)
    return invalid(cat("expected the files of ", n, " model-parallel ranks, found some of ",
                       part_name(n_found - 1),
                       ": the folder holds a save of another number of ranks too, take its files "
                       "away"));
  std::vector<std::string> missing;
  for (uint64_t part = 0; part < n && missing.size() <= common::kMaxListed; ++part) {
    if (!files.parts.contains(part)) missing.push_back(part_name(part));
  }
  if (missing.empty()) return n;
  return Error{XD_NOT_FOUND,
               cat("expected the files of ", n, " model-parallel ranks, found none of ",
                   common::listed(missing), ": copy the files of all ranks")};
}

// That a part is of the same save as the first.
Result<void> check_part(const States& first, const States& part) {
  const auto differ = [](std::string_view what, uint64_t expected, uint64_t found) {
    return corrupt(
        cat("expected ", what, ' ', expected, " as mp_rank_00 has, found ", found, kOtherSave));
  };
  const OptimizerStates &a = first.optimizer[0], &b = part.optimizer[0];
  if (a.stage != b.stage) return differ("zero_stage", a.stage, b.stage);
  if (a.n_ranks() != b.n_ranks()) return differ("partition_count", a.n_ranks(), b.n_ranks());
  if (a.groups.size() != b.groups.size())
    return differ("a number of parameter groups of", a.groups.size(), b.groups.size());
  const auto step = [](const OptimizerStates& o) {
    return o.flat_groups.empty() ? std::nullopt : o.flat_groups[0].step;
  };
  if (step(a) && step(b) && *step(a) != *step(b)) return differ("step", *step(a), *step(b));
  return check_rank(first.model.rank, part.model.rank);
}

}  // namespace

std::string part_name(uint64_t part) { return cat("mp_rank_", part < 10 ? "0" : "", part); }

Result<SavedJob> read_states(const Host& host, const Input& input, const std::string& tag,
                             bool verify_crc) {
  SavedJob out;
  XD_TRY_SET(const CheckpointFiles files, find_files(host, input, tag));
  out.tag = files.tag;
  Opener opener(host, input, verify_crc, out.opened);
  static const PartFiles kNone;
  uint64_t n = 1;
  for (uint64_t i = 0; i < n; ++i) {
    const auto it = files.parts.find(i);
    const PartInput in{
        it == files.parts.end() ? kNone : it->second,
        i,
        files.parts.size() > 1 || i > 0 || it == files.parts.end() ? cat(" of ", part_name(i)) : "",
        files.folder,
        i % out.tensor_ranks == 0,
        i == 0 && files.parts.size() > 1};
    States& part = out.parts.emplace_back();
    XD_TRY(read_optimizers(in, opener, part));
    XD_TRY(read_models(in, opener, part, out.info));
    if (i == 0) {
      XD_TRY_SET(n, count_parts(files, out));
    } else if (auto same = check_part(out.parts[0], part); !same) {
      return std::move(same).error().in(part_name(i));
    }
    // Only the first rank's file tells which names are of one parameter.
    if (i > 0 && i < out.tensor_ranks) part.model.tied = out.parts[0].model.tied;
  }
  const auto read_layer = [&](const LayerFile& layer) {
    return opener.read(layer.name, [&](const FileInput& file) {
      return read_layer_state(file, layer.tensor_rank == 0);
    });
  };
  XD_TRY(add_layers(files.layers, read_layer, out));
  return out;
}

}  // namespace crossdock::reader_zero
