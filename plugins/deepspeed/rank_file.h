// SPDX-License-Identifier: Apache-2.0

// What the names of DeepSpeed's files say: what a file holds, and whose it is.
#pragma once

#include <crossdock/result.hpp>

#include <cstdint>
#include <optional>
#include <string_view>

namespace crossdock::deepspeed {

enum class FileKind {
  kOptimizerStates,  // of one rank
  kModelStates,      // of one rank: stage 3
  kWholeModel,       // of one model-parallel rank: stages 1 and 2
  kLayer,            // of a pipeline
  kOtherLayer,       // of one in another way
  kExpert,
};

struct RankFile {
  FileKind kind;
  uint64_t rank = 0, model_parallel_rank = 0, layer = 0;
  bool operator==(const RankFile&) const = default;
};

// `name`: without its folder. Nothing: it is none of DeepSpeed's files.
std::optional<RankFile> rank_file(std::string_view name);

// That a file is the one that was saved under its name. torch.save(state, PATH) calls the root of
// its zip after PATH: where `root` is the name of another rank's file, files were renamed or
// copied over each other, and weights would be put together of the wrong parts. `name` may have
// folders; any other root tells nothing.
Result<void> check_own_name(std::string_view name, std::string_view root);

}  // namespace crossdock::deepspeed
