// SPDX-License-Identifier: Apache-2.0

// What is no checkpoint that can be read, and what the user is told of it.
#include "plugins/reader_zero/checkpoints_for_test.h"

using namespace crossdock;
using namespace crossdock::reader_zero::recipe;
using test::has;

TEST_CASE("zero: files that are missing, or too many") {
  const auto without = [](const std::string& name) {
    test::MemoryHost host;
    put_stage3(host);
    host.inputs.erase(name);
    return outcome(host);
  };
  CHECK(without(optimizer_name(1)) ==
        "expected the optimizer states of 2 ranks, found none of rank 1: copy the files of all "
        "ranks");
  CHECK(has(without(optimizer_name(0)), "found none of rank 0"));
  CHECK(has(without(model_name(0)), "expected the model states of 2 ranks, found none of rank 0"));
  CHECK(has(without(model_name(1)), "expected the model states of 2 ranks, found none of rank 1"));
  const auto with = [](const std::string& name) {
    test::MemoryHost host;
    put_stage3(host);
    host.inputs[name] = host.inputs[optimizer_name(0)];
    return outcome(host);
  };
  CHECK(has(with(optimizer_name(2)),
            "expected the optimizer states of 2 ranks, found 3, as "
            "step7/bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt: the "
            "folder holds a save of another number of ranks too"));
  CHECK(has(with("step7/zero_pp_rank_1_mp_rank_00_optim_states.pt"),
            "expected one file of rank 1, found"));
  CHECK(has(with("step7/zero_pp_rank_0_mp_rank_01_optim_states.pt"),
            "expected the files of 1 model-parallel ranks, found some of mp_rank_01: the folder "
            "holds a save of another number of ranks too"));
  CHECK(has(with("step7/layer_00-expert_00-model_00-model_states.pt"),
            "expected layers of a pipeline as layer_00-model_states.pt or"));
  CHECK(has(with("step7/layer_0_expert_3_mp_rank_00_model_states.pt"), "whose experts are in no"));
  CHECK(has(with("step7/expp_rank_0_mp_rank_00_optim_states.pt"), "whose experts are in no"));
  CHECK(has(with("step7/offloaded_tensors/rank00/x.tensor.swp"), "NVMe offload"));
  test::MemoryHost host;
  put_stage12(host);
  host.inputs.erase("step7/mp_rank_00_model_states.pt");
  CHECK(has(outcome(host), "expected step7/mp_rank_00_model_states.pt"));
}

TEST_CASE("zero: files of different saves") {
  const auto second = [](const std::function<void(Stage3&)>& change) {
    return of_stage3([&](Stage3& r) {
      if (r.rank == 1) change(r);
    });
  };
  const std::string kOptimizer = "step7/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt: ",
                    kModel = "step7/zero_pp_rank_1_mp_rank_00_model_states.pt: ",
                    kSaves = ": the files are of different saves";
  CHECK(second([](Stage3& r) { r.step = 5; }) ==
        kOptimizer + "expected in group 0 step 4 as rank 0 has, found 5" + kSaves);
  CHECK(second([](Stage3& r) { r.global_steps = number(8); }) ==
        kModel + "expected global_steps 7 as rank 0 has, found 8" + kSaves);
  CHECK(second([](Stage3& r) { r.dp_world_size = number(4); }) ==
        kModel + "expected dp_world_size 2 as rank 0 has, found 4" + kSaves);
  CHECK(second([](Stage3& r) { r.partition_count = number(4); }) ==
        kOptimizer + "expected partition_count 2 as rank 0 has, found 4" + kSaves);
  const auto second_of_stage2 = [](const std::string& partition_count) {
    return of_stage12([&](Stage12& r) {
      if (r.rank == 1) r.partition_count = partition_count;
    });
  };
  CHECK(second_of_stage2(list({number(2), number(2)})) ==
        kOptimizer +
            "expected a partition_count with a number of groups of 1 as rank 0 has, found 2" +
            kSaves);
  CHECK(second_of_stage2(list({number(3)})) ==
        kOptimizer + "expected partition_count 2 as rank 0 has, found 3" + kSaves);
  CHECK(has(second([](Stage3& r) { r.master = elements('a', 0, 7); }),
            kOptimizer + "expected 6 elements in flat group 0, this rank's part of the parameters "
                         "of param_shapes, found 7"));
  CHECK(has(second([](Stage3& r) { r.exp_avg = elements('c', 0, 7); }),
            kOptimizer + "expected \"exp_avg\" of flat group 0 with a value for each element, as "
                         "rank 0 has it"));
  CHECK(has(of_stage3([](Stage3& r) { r.dp_world_size = number(4); }),
            "expected dp_world_size 2, the partition_count of the optimizer states, found 4"));
  CHECK(has(of_stage3([](Stage3& r) {
              r.param_shapes = list({"}", "}"});
            }),
            "expected param_shapes of 1 groups, as the optimizer states have, found 2"));
  CHECK(has(of_stage3([](Stage3& r) {
              r.param_shapes = list({dict({text("a.weight"), shape({7, 3})})});
            }),
            "expected 11 elements in flat group 0"));
  CHECK(has(of_stage12([](Stage12& r) { r.master = elements('a', 0, 3); }),
            "flat group 0 of the optimizer states, and param_shapes: expected 11 elements, as many "
            "as its parameters have, found 6"));
  CHECK(has(of_stage12([](Stage12& r) {
              r.partition_count = list({number(2), number(1)});
            }),
            "expected all groups cut over 2 ranks, found one cut over 1, as of experts"));
}

TEST_CASE("zero: files under the names of other ranks") {
  const auto of_roots = [](const std::string& optimizer, const std::string& model) {
    return of_stage3([&](Stage3& r) {
      if (r.rank == 0) return;
      if (!optimizer.empty()) r.optimizer_root = optimizer;
      if (!model.empty()) r.model_root = model;
    });
  };
  const std::string kSaved =
      "expected the file that was saved under this name, found the one that "
      "was saved as ";
  CHECK(of_roots("bf16_zero_pp_rank_1_mp_rank_00_optim_states",
                 "zero_pp_rank_1_mp_rank_00_model_states") == "read");
  CHECK(has(
      of_roots("bf16_zero_pp_rank_0_mp_rank_00_optim_states", ""),
      optimizer_name(1) + ": " + kSaved + "\"bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt\""));
  CHECK(has(of_roots("", "zero_pp_rank_0_mp_rank_00_model_states"),
            model_name(1) + ": " + kSaved + "\"zero_pp_rank_0_mp_rank_00_model_states.pt\""));
  CHECK(has(of_stage12([](Stage12& r) { r.model_root = "mp_rank_01_model_states"; }),
            "step7/mp_rank_00_model_states.pt: " + kSaved + "\"mp_rank_01_model_states.pt\""));
}

TEST_CASE("zero: names that are there twice") {
  const auto of_shapes = [](const std::string& shapes) {
    return of_stage3([&](Stage3& r) { r.param_shapes = shapes; });
  };
  CHECK(has(of_shapes(list({dict({text("b"), shape({6}), text("b"), shape({5})})})),
            "expected each name once, found \"b\" twice in param_shapes"));
  CHECK(has(of_shapes(list({dict({text("frozen"), shape({6}), text("b"), shape({5})})})),
            "found \"frozen\" twice in param_shapes and frozen_param_shapes"));
  CHECK(has(of_shapes(list({dict({text("seen"), shape({6}), text("b"), shape({5})})})),
            "found \"seen\" twice in param_shapes and buffer_names"));
  const std::string none = tensor(storage("0", 0), 0, {0}, {1});
  CHECK(has(of_stage3([&](Stage3& r) {
              r.module = dict({text("b"), none, text("b"), none});
            }),
            "found \"b\" twice in module"));
}

TEST_CASE("zero: foreign files") {
  const auto with = [](const std::string& name, const std::string& bytes) {
    test::MemoryHost host;
    put_stage3(host);
    host.inputs[name] = bytes;
    return outcome(host);
  };
  const std::string whole = Stage3{}.optimizer_file();
  CHECK(has(with(optimizer_name(0), whole.substr(0, whole.size() / 2)), optimizer_name(0) + ": "));
  CHECK(has(with(optimizer_name(0), ""), "found an empty file"));
  CHECK(has(with(optimizer_name(0), torch_zip(dict({}), {})),
            "expected DeepSpeed's optimizer states (a dict with optimizer_state_dict)"));
  CHECK(has(with(optimizer_name(0), torch_zip(list({}), {})), "expected DeepSpeed's optimizer"));
  CHECK(has(with(model_name(0), torch_zip(dict({text("module"), "}"}), {})),
            "expected DeepSpeed's model states (a dict with module and buffer_names)"));
  CHECK(has(with(model_name(0), torch_zip(call(global("os", "system"), {text("x")}), {})),
            "nothing was run"));
  CHECK(
      has(of_stage3([](Stage3& r) { r.zero_stage = stage_enum(2); }),
          "expected the states of ZeRO stage 1, 2 or 3, found zero_stage 2 with fp32_flat_groups"));
  CHECK(
      has(of_stage12([](Stage12& r) { r.zero_stage = number(0); }), "found zero_stage 0 without"));
  CHECK(has(of_stage3([](Stage3& r) { r.partition_count = text("2"); }),
            "optimizer_state_dict.partition_count: expected numbers of 0 or more, found a string"));
  CHECK(has(of_stage3([](Stage3& r) { r.partition_count = number(0); }),
            "expected a partition_count of 1 or more, found 0"));
  CHECK(has(of_stage3([](Stage3& r) { r.states = list({}); }),
            "optimizer_state_dict.optimizer_state_dict.state: expected a dict, found a list"));
  CHECK(has(of_stage3([](Stage3& r) {
              r.param_shapes = list({dict({text("b"), text("c")})});
            }),
            "param_shapes: expected the shape of \"b\", found other values"));
  CHECK(has(of_stage3([](Stage3& r) {
              r.param_shapes = list({dict({text("b"), shape({-1})})});
            }),
            "param_shapes: expected the shape of \"b\", found other values"));
}

TEST_CASE("zero: bytes that cannot be read in place") {
  test::MemoryHost host;
  put_stage3(host);
  File f;
  const std::string value =
      dict({text("optimizer_state_dict"),
            dict({text("zero_stage"), number(3), text("partition_count"), number(2),
                  text("fp32_flat_groups"), list({tensor(storage("0", 2), 0, {2}, {1})})})});
  host.inputs[optimizer_name(0)] = torch_zip(value, {{"0", "ABCDefgh"}}, true);
  CHECK(has(outcome(host), "expected plain bytes, found deflated ones: load the file in Python"));
  host.inputs[optimizer_name(0)] = torch_zip(value, {{"0", "ABCDefgh"}}, false, "big");
  CHECK(has(outcome(host), "expected little-endian values, found big-endian ones"));
}

TEST_CASE("zero: parts that are not read") {
  const auto more = [](const std::string& more) {
    return of_stage3([&](Stage3& r) { r.more = more; });
  };
  CHECK(has(more(text("checkpoint_parallel_dimensions") + dict({text("tp_degree"), number(2)})),
            "expected the files of 2 model-parallel ranks, found none of mp_rank_01: copy the"));
  CHECK(has(more(text("mp_world_size") + number(4)),
            "expected the files of 4 model-parallel ranks, found none of mp_rank_01, mp_rank_02, "
            "mp_rank_03"));
  CHECK(has(more(text("ds_autoep_layers") + list({dict({})})), "found one of AutoEP"));
  CHECK(more(text("ds_autoep_layers") + "N") == "read");
}

TEST_CASE("zero: sizes and numbers that no checkpoint has") {
  const auto frozen = [](int64_t size) {
    test::MemoryHost host;
    put_stage3(host, [&](Stage3& r) {
      r.more = text("frozen_param_shapes") + dict({text("frozen"), shape({size, 1 << 30})});
    });
    return outcome(host);
  };
  CHECK(frozen(int64_t{1} << 33) == "expected at most 2^56 elements in all, found more");
  CHECK(has(frozen(int64_t{1} << 34), "expected the shape of \"frozen\", found other values"));
  CHECK(has(frozen(1), "elements of \"frozen\" in the frozen_param_fragments of rank 0, found"));
  std::string keys;
  for (int i = 0; i < 40; ++i) keys += text(cat("k", i)) + tensor(storage("0", 6), 0, {6}, {1});
  CHECK(has(of_stage3([&](Stage3& r) {
              r.states = dict({number(0), "}(" + keys + "u"});
            }),
            "expected at most 32 kinds of an optimizer's state, found more"));
}
