// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/rank_file.h"

#include "tests/catch.h"

#include <string>

using namespace crossdock;
using deepspeed::check_own_name;
using deepspeed::FileKind;
using deepspeed::rank_file;
using deepspeed::RankFile;

// The names are those that DeepSpeed 0.19.8 saved.
TEST_CASE("deepspeed: whose a file is, by its name") {
  CHECK(rank_file("zero_pp_rank_3_mp_rank_01_optim_states.pt") ==
        RankFile{FileKind::kOptimizerStates, 3, 1});
  CHECK(rank_file("bf16_zero_pp_rank_12_mp_rank_00_optim_states.pt") ==
        RankFile{FileKind::kOptimizerStates, 12, 0});
  CHECK(rank_file("zero_pp_rank_1_mp_rank_00_model_states.pt") ==
        RankFile{FileKind::kModelStates, 1, 0});
  CHECK(rank_file("mp_rank_02_model_states.pt") == RankFile{FileKind::kWholeModel, 0, 2});
  CHECK(rank_file("layer_03-model_01-model_states.pt") == RankFile{FileKind::kLayer, 0, 1, 3});
  for (const char* other : {"", "model.pt", "mp_rank_x_model_states.pt", "fp32.pt",
                            "zero_pp_rank_0_mp_rank_00_optim_states"}) {
    CAPTURE(other);
    CHECK_FALSE(rank_file(other));
  }
}

TEST_CASE("deepspeed: a file that was saved under another rank's name") {
  const std::string name = "step7/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt";
  for (const char* root :
       {"bf16_zero_pp_rank_1_mp_rank_00_optim_states", "zero_pp_rank_1_mp_rank_00_optim_states",
        "archive", "", "model", "rank_0", "zero_pp_rank_0_mp_rank_00"}) {
    CAPTURE(root);
    CHECK(check_own_name(name, root));
  }
  CHECK(check_own_name("weights.pt", "zero_pp_rank_1_mp_rank_00_optim_states"));
  for (const char* root :
       {"bf16_zero_pp_rank_0_mp_rank_00_optim_states", "zero_pp_rank_1_mp_rank_01_optim_states",
        "zero_pp_rank_1_mp_rank_00_model_states", "mp_rank_00_model_states",
        "layer_01-model_states"}) {
    CAPTURE(root);
    const auto checked = check_own_name(name, root);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().code == XD_CORRUPT);
    CHECK(checked.error().message ==
          "expected the file that was saved under this name, found the one that was saved as \"" +
              std::string(root) +
              ".pt\": files were renamed or copied over each other, copy them again from where "
              "they were saved");
  }
}
