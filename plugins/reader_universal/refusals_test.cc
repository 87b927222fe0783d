// SPDX-License-Identifier: Apache-2.0

// What is no checkpoint that can be read, and what the user is told of it.
#include "plugins/reader_universal/checkpoints_for_test.h"

using namespace crossdock;
using namespace crossdock::reader_universal::recipe;
using test::has;

TEST_CASE("universal: files that are missing") {
  CHECK(with("zero/b/fp32.pt", "") ==
        "expected step7/zero/b/fp32.pt, the values of \"b\", found none: copy the whole folder");
  CHECK(with("zero/b/exp_avg_sq.pt", "") ==
        "expected step7/zero/b/exp_avg_sq.pt, since \"a.weight\" has its exp_avg_sq, found none: "
        "copy the whole folder");
  CHECK(with("zero/a.weight/exp_avg.pt", "") ==
        "expected step7/zero/a.weight/exp_avg.pt, since \"b\" has its exp_avg, found none: copy "
        "the whole folder");
  CHECK(with("zero/optimizer_state.pt", "") ==
        "expected step7/zero/optimizer_state.pt, which has the optimizer's groups, found none: "
        "copy the whole folder");
  CHECK(has(with("mp_rank_00_model_states.pt", ""),
            "expected step7/mp_rank_00_model_states.pt or zero_pp_rank_0_mp_rank_00_model_states."
            "pt, which has the parameters' order, found none"));
  const std::string rank = Universal().model_file();
  CHECK(has(with("mp_rank_02_model_states.pt", rank),
            "expected the model states of all ranks, found none of step7/mp_rank_1 beside "
            "step7/mp_rank_02_model_states.pt"));
  CHECK(has(with("zero_pp_rank_1_mp_rank_00_model_states.pt", "", stage3()),
            "expected the model states of 2 ranks (dp_world_size), which have a part of each "
            "frozen parameter, found 1"));
  CHECK(has(of([](Universal& r) { r.dp_world_size = number(3); }, stage3()),
            "expected the model states of 3 ranks (dp_world_size)"));
}

TEST_CASE("universal: files that are none of a universal checkpoint") {
  CHECK(has(with("zero/stray.pt", "x"),
            "expected optimizer_state.pt and folders of parameters in step7/zero, found "
            "\"step7/zero/stray.pt\": take the file away"));
  CHECK(has(with("zero/b/stray.pt", bare(elements('x', 0, 4))),
            "step7/zero/b/stray.pt: expected 5 elements as the param_shapes of the model states "
            "say, found 4"));
  const auto fp32 = [](const std::string& value) {
    return with("zero/b/fp32.pt", torch_zip(value, {}));
  };
  const std::string in = "step7/zero/b/fp32.pt: ";
  CHECK(
      has(fp32(number(3)), in + "expected a tensor, or a dict with one under \"param\", found an"));
  CHECK(has(fp32(dict({text("param"), "N"})), in + "expected \"param\", found none"));
  CHECK(has(fp32(dict({})), in + "expected \"param\", found none"));
  const std::string foreign = call(global("evil", "Loader"), {text("rm -rf")});
  CHECK(has(fp32(foreign),
            in + "expected a tensor, or a dict with one under \"param\", found evil.Loader: the"));
  CHECK(has(fp32(dict({text("param"), foreign})), "found evil.Loader there: the file is none"));
  CHECK(has(with("zero/b/fp32.pt", torch_zip(tensor(storage("0", 5, "LongStorage"), 0, {5}, {1}),
                                             {{"0", std::string(40, 'x')}})),
            in + "expected floating-point values, found I64"));
  CHECK(has(with("zero/b/fp32.pt", "garbage"), in + "expected a file of torch.save, found other"));
  const std::string whole = bare(elements('b', 0, 5));
  for (const size_t n : {size_t{1}, size_t{30}, whole.size() / 2, whole.size() - 1})
    CHECK(has(with("zero/b/fp32.pt", whole.substr(0, n)), in + "expected"));
  CHECK(has(with("zero/optimizer_state.pt", torch_zip(dict({}), {})),
            "step7/zero/optimizer_state.pt: expected the optimizer's state of a universal "
            "checkpoint (a dict with param_groups), found another object"));
  CHECK(has(with("mp_rank_00_model_states.pt", torch_zip(dict({}), {})),
            "step7/mp_rank_00_model_states.pt: expected DeepSpeed's model states (a dict with "
            "param_shapes and dp_world_size), found another object"));
  CHECK(has(of([](Universal& r) { r.zero_stage = number(4); }),
            "expected a zero_stage of 1, 2 or 3, found 4"));
  CHECK(of([](Universal& r) { r.zero_stage = ""; }) == "read");  // BF16_Optimizer's
}

TEST_CASE("universal: files of different checkpoints") {
  const std::string in = "step7/zero/b/";
  CHECK(has(with("zero/b/fp32.pt", saved(elements('b', 0, 6), {6}, {1})),
            in + "fp32.pt: expected 5 elements as the param_shapes of the model states say, found "
                 "6: the files are of different checkpoints"));
  CHECK(has(with("zero/b/exp_avg.pt", saved(elements('b', 0, 6), {6}, {1})),
            in + "exp_avg.pt: expected 5 elements as"));
  CHECK(with("zero/b/step.pt", step_file(5)) ==
        in + "step.pt: expected step 4 as \"a.weight\" has, found 5: the files are of different "
             "checkpoints");
  CHECK(has(with("zero/b/step.pt", step_file(1.5)),
            in + "step.pt: expected a number of steps of 0 or more, found another value"));
  CHECK(has(with("zero/b/step.pt", bare(elements('x', 0, 2))), "expected a number of steps"));
  // Where the shape is the file's, the moments have to have it too.
  Universal recipe;
  recipe.info = dict({text("original_vocab_size"), number(9)});
  const std::string longer = saved(elements('b', 0, 6), {6}, {1}, text("vocab_tensor") + "\x88");
  CHECK(has(with("zero/b/fp32.pt", longer, recipe),
            "exp_avg.pt: expected a value for each of the 6"
            " elements of fp32.pt, found 5"));
}

TEST_CASE("universal: model states under the name of another rank") {
  const auto of_root = [](const std::string& root) {
    return of([&](Universal& r) { r.model_root = root; });
  };
  CHECK(of_root("mp_rank_00_model_states") == "read");
  CHECK(has(of_root("mp_rank_01_model_states"),
            "step7/mp_rank_00_model_states.pt: expected the file that was saved under this name, "
            "found the one that was saved as \"mp_rank_01_model_states.pt\""));
}

TEST_CASE("universal: names that are there twice, or in no model states") {
  CHECK(has(of([](Universal& r) {
              r.param_shapes = list({dict({text("b"), shape({5})}), dict({text("b"), shape({5})})});
            }),
            "expected each name once, found \"b\" twice in param_shapes"));
  test::MemoryHost host;
  put(host, stage3());
  host.inputs["step7/zero/other/fp32.pt"] = bare(elements('o', 0, 4));
  CHECK(has(outcome(host),
            "step7/zero/other/fp32.pt: expected its shape in the param_shapes of the model states, "
            "found no such name"));
}

TEST_CASE("universal: views") {
  const std::string transposed = saved(elements('a', 0, 6), {3, 2}, {1, 3});
  CHECK(has(with("zero/a.weight/fp32.pt", transposed),
            "expected values in the parameter's own shape or one after the other, found a view"));
  CHECK(with("zero/a.weight/fp32.pt", saved(elements('a', 0, 6), {2, 3}, {1, 2})) == "read");
  // A few bytes that stand for any number of weights.
  Universal recipe;
  recipe.param_shapes =
      list({ordered_dict({text("a.weight"), shape({2, 3}), text("b"), shape({1 << 29})})});
  CHECK(has(with("zero/b/fp32.pt", saved("b000", {1 << 29}, {0}), recipe),
            "step7/zero/b/fp32.pt: expected a view that repeats its values to have at most "
            "1073741824 bytes, found 2147483648"));
}

TEST_CASE("universal: more files than an optimizer has states") {
  test::MemoryHost host;
  put(host, {});
  for (int i = 0; i < 40; ++i)
    host.inputs[cat("step7/zero/b/k", i, ".pt")] = bare(elements('k', 0, 5));
  CHECK(has(outcome(host), "expected at most 32 files of \"b\", found 44"));
}
