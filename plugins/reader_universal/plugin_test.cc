// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_universal/checkpoints_for_test.h"

using namespace crossdock;
using namespace crossdock::reader_universal::recipe;
using manifest::DType;
using manifest::Role;
using manifest::Training;
using manifest::Value;
using test::has;
using test::open;

namespace {

using Shape = std::vector<uint64_t>;

const Values kMasters{
    {"a.weight", elements('a', 0, 6)},    {"tied", elements('a', 0, 6)},
    {"b", elements('b', 0, 5)},           {"seen", elements('s', 0, 2)},
    {"held", elements('h', 0, 3)},        {"exp_avg/a.weight", elements('c', 0, 6)},
    {"exp_avg/b", elements('d', 0, 5)},   {"exp_avg_sq/a.weight", elements('e', 0, 6)},
    {"exp_avg_sq/b", elements('f', 0, 5)}};

}  // namespace

TEST_CASE("universal: who it is") {
  test::MemoryHost host;
  const xd_plugin_desc& desc = test::linked_plugin(host);
  CHECK(std::string(desc.id) == "org.crossdock.reader.universal");
  CHECK(std::string(desc.formats[0]) == "universal");
  CHECK(desc.caps == (XD_CAP_CONCURRENT | XD_CAP_TRAINING_STATE));
}

TEST_CASE("universal: how sure it is, by names") {
  const auto score = test::probe_names;
  CHECK(score({"latest_universal", "step7/zero/optimizer_state.pt"}) == 80);
  CHECK(score({"mp_rank_00_model_states.pt", "zero/a.weight/fp32.pt"}) == 80);
  CHECK(score({"step7/zero/a.weight/fp32.pt"}) == 80);
  CHECK(score({"step7/zero/a.weight/exp_avg.pt", "latest_universal"}) == 0);
  CHECK(score({"mp_rank_00_model_states.pt"}) == 0);
  CHECK(score({"x/step7/zero/optimizer_state.pt"}) == 0);
  CHECK(score({"model.safetensors"}) == 0);
  // Beside one of ZeRO nobody knows which is meant.
  CHECK(score({"latest_universal", "step8/zero/optimizer_state.pt", "latest",
               "step7/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"}) == 60);
}

TEST_CASE("universal: of stages 1 and 2, every tensor") {
  test::MemoryHost host;
  put(host, {});
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(names_in(m) ==
        "a.weight seen b held tied exp_avg/a.weight exp_avg/b exp_avg_sq/a.weight exp_avg_sq/b");
  CHECK(values_of(**reader) == kMasters);
  for (const auto& t : m.tensors) CHECK(t.dtype == DType::F32);
  CHECK(find(m, "a.weight").shape == Shape{2, 3});
  CHECK(find(m, "tied").shape == Shape{2, 3});
  CHECK(find(m, "exp_avg/a.weight").shape == Shape{2, 3});
  CHECK(host.logs.empty());
}

TEST_CASE("universal: of stage 3, whose states are flat") {
  test::MemoryHost host;
  put(host, stage3());
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(values_of(**reader) == kMasters);
  CHECK(find(m, "a.weight").shape == Shape{2, 3});
  CHECK(find(m, "exp_avg_sq/a.weight").shape == Shape{2, 3});
  CHECK(find(m, "held").extents.size() == 2);
  CHECK(number_in(m, "zero_stage") == 3);
  CHECK(m.training.step == 4);
  CHECK(m.source.files.size() == 9);
}

TEST_CASE("universal: what the tensors are") {
  for (const Universal& recipe : {Universal(), stage3()}) {
    CAPTURE(recipe.stage);
    test::MemoryHost host;
    put(host, recipe);
    const auto reader = open(host);
    REQUIRE(reader);
    const auto& m = (*reader)->manifest;
    const auto is = [&](std::string_view name, Role role, Training train) {
      return find(m, name).role == role && find(m, name).train == train;
    };
    CHECK(is("a.weight", Role::kParameter, Training::kTrainable));
    CHECK(is("tied", Role::kParameter, Training::kTrainable));
    CHECK(is("held", Role::kParameter, Training::kFrozen));
    CHECK(is("seen", Role::kBuffer, Training::kUnspecified));
    CHECK(is("exp_avg/b", Role::kOptimizerState, Training::kUnspecified));
    CHECK(m.alias_groups == std::vector<manifest::AliasGroup>{{{0, 4}}});
    CHECK(m.module == std::vector<manifest::ModuleName>{
                          {"a.weight", 0}, {"b", 2}, {"held", 3}, {"tied", 0}, {"seen", 1}});
    CHECK(m.source.format == "universal");
  }
}

TEST_CASE("universal: the state of the training") {
  test::MemoryHost host;
  put(host, {});
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(m.training.step == 4);
  CHECK(m.training.optimizer == "torch.optim.AdamW");
  REQUIRE(m.training.groups.size() == 1);
  CHECK(m.training.groups[0].tensors == std::vector<uint64_t>{0, 2});
  CHECK(
      m.training.groups[0].hyper_parameters ==
      std::vector<manifest::KeyValue>{{"lr", Value{0.5}}, {"decoupled_weight_decay", Value{true}}});
  CHECK(m.training.moments ==
        std::vector<manifest::Moment>{
            {"exp_avg", 0, 5}, {"exp_avg", 2, 6}, {"exp_avg_sq", 0, 7}, {"exp_avg_sq", 2, 8}});
  CHECK(number_in(m, "zero_stage") == 2);
  CHECK(number_in(m, "dp_world_size") == 2);
  CHECK(number_in(m, "mp_world_size") == 1);
  CHECK(number_in(m, "global_steps") == 7);
  CHECK(number_in(m, "global_samples") == 28);
  CHECK(number_in(m, "skipped_steps") == 1);
  CHECK(*metadata(m, "tag") == Value{std::string("step7")});
  CHECK(*metadata(m, "ds_version") == Value{std::string("0.19.8")});
  CHECK(*metadata(m, "optimizer") == Value{std::string("torch.optim.AdamW")});
  CHECK(*metadata(m, "lr_scheduler")->get<manifest::ValueMap>()->find("last_batch_iteration") ==
        Value{int64_t{6}});
  CHECK(*metadata(m, "loss_scaler")->get<manifest::ValueMap>()->find("cur_scale") == Value{1.0});
  CHECK(*metadata(m, "client_state") == Value{manifest::ValueMap{{{"epoch", Value{1.5}}}}});
  CHECK(*metadata(m, "universal_checkpoint_info") ==
        Value{manifest::ValueMap{{{"universal_checkpoint_version", Value{0.25}}}}});
  CHECK_FALSE(metadata(m, "parameter_layout"));
}

TEST_CASE("universal: steps that no step.pt tells") {
  const auto steps = [](const std::string& inner) {
    test::MemoryHost host;
    Universal recipe = stage3();
    recipe.inner = inner;
    put(host, recipe);
    const auto reader = open(host);
    return reader ? (*reader)->manifest.training.step : 999;
  };
  CHECK(steps(dict({text("state"), dict({number(0), dict({text("step"), number(9)})})})) == 9);
  CHECK(steps(dict({text("state"), dict({})})) == 6);  // of the job, without those it skipped
}

TEST_CASE("universal: masters or the job's own copy") {
  test::MemoryHost host;
  put(host, {});
  const auto copy = open(host, {{"weights", "model"}});
  REQUIRE(copy);
  Values expected = kMasters;
  expected["a.weight"] = expected["tied"] = elements('A', 0, 6);
  expected["b"] = elements('B', 0, 5);
  CHECK(values_of(**copy) == expected);
  test::MemoryHost of_stage3;
  put(of_stage3, stage3());
  CHECK(has(outcome(of_stage3, {{"weights", "model"}}),
            "--weights model: expected a ds_config in the checkpoint"));
}

TEST_CASE("universal: crossdock's own folders") {
  test::MemoryHost host;
  Universal recipe;
  recipe.zero_stage = number(3);
  recipe.groups =
      list({dict({text("lr"), real(0.5), text("params"), "]"}),
            dict({text("lr"), real(0.25), text("params"), "]"}), dict({text("params"), "]"})});
  const std::string groups =
      text("param_names") + list({list({text("b")}), list({text("a.weight")})});
  recipe.more_optimizer = groups;
  recipe.module = ordered_dict({text("seen"), tensor(storage("2", 2), 0, {2}, {1})});
  put(host, recipe);
  // Zeros that one stored zero stands for.
  host.inputs["step7/zero/b/exp_avg.pt"] = saved("0000", {5}, {0});
  host.inputs["step7/zero/a.weight/exp_avg.pt"] = saved("0000", {6}, {0});
  // Without module_names param_shapes may have any order.
  CHECK((*open(host))->manifest.module.empty());
  recipe.more_optimizer = groups + text("module_names") +
                          list({text("b"), text("left.out"), text("tied"), text("a.weight"),
                                text("seen"), text("held")});
  host.inputs["step7/zero/optimizer_state.pt"] = recipe.optimizer_file();
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(m.module == std::vector<manifest::ModuleName>{
                        {"b", 2}, {"tied", 1}, {"a.weight", 1}, {"held", 3}, {"seen", 0}});
  REQUIRE(m.training.groups.size() == 2);
  CHECK(m.training.groups[0].tensors == std::vector<uint64_t>{2});
  CHECK(m.training.groups[1].tensors == std::vector<uint64_t>{1});
  CHECK(m.training.groups[1].hyper_parameters ==
        std::vector<manifest::KeyValue>{{"lr", Value{0.25}}});
  CHECK(find(m, "exp_avg/b").strides == std::vector<int64_t>{0});
  CHECK(find(m, "exp_avg/a.weight").strides == std::vector<int64_t>{0, 0});
  CHECK(find(m, "exp_avg/a.weight").shape == Shape{2, 3});
  CHECK(values_of(**reader).at("exp_avg/b") == "0000");
  recipe.more_optimizer = text("module_names") + list({text("b")});
  host.inputs["step7/zero/optimizer_state.pt"] = recipe.optimizer_file();
  CHECK((*open(host))->manifest.module.empty());  // not all of them
  recipe.more_optimizer = text("module_names") + list({number(3)});
  CHECK(has(of([&](Universal& r) { r = recipe; }), "module_names: expected names, found an"));
  recipe.more_optimizer = text("param_names") + list({list({text("x")})});
  CHECK(has(of([&](Universal& r) { r = recipe; }),
            "zero/optimizer_state.pt: expected a parameter of the checkpoint in param_names, "
            "found \"x\""));
}

TEST_CASE("universal: of DeepSpeed 0.14.0, without groups and steps") {
  test::MemoryHost host;
  put(host, {});
  host.inputs["step7/zero/optimizer_state.pt"] = torch_zip(
      dict({text("partition_count"), list({number(2)}), text("zero_stage"), number(1)}), {});
  for (const char* name : {"a.weight", "b"})
    host.inputs.erase(cat("step7/zero/", name, "/step.pt"));
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK(values_of(**reader) == kMasters);
  CHECK((*reader)->manifest.training.step == 6);  // of the job, without those it skipped
  REQUIRE((*reader)->manifest.training.groups.size() == 1);
  CHECK((*reader)->manifest.training.groups[0].tensors == std::vector<uint64_t>{0, 2});
  CHECK((*reader)->manifest.training.optimizer.empty());
  CHECK(host.logs.empty());
}

TEST_CASE("universal: hyper-parameters of groups that are not known") {
  test::MemoryHost host;
  Universal recipe;
  recipe.groups = list({dict({text("lr"), real(0.5), text("params"), "]"})});
  put(host, recipe);
  const auto reader = open(host);
  REQUIRE(reader);
  REQUIRE((*reader)->manifest.training.groups.size() == 1);
  CHECK((*reader)->manifest.training.groups[0].hyper_parameters.empty());
  REQUIRE(host.logs.size() == 1);
  CHECK(has(host.logs[0].second, "hyper-parameters are left out"));
}

TEST_CASE("universal: a scalar that got a dimension, and one that has none") {
  for (const bool is_bare : {false, true}) {
    test::MemoryHost host;
    Universal recipe;
    recipe.param_shapes =
        list({ordered_dict({text("a.weight"), shape({2, 3}), text("b"), shape({})})});
    put(host, recipe);
    for (const char* key : {"fp32", "exp_avg", "exp_avg_sq"})
      host.inputs[cat("step7/zero/b/", key, ".pt")] =
          is_bare ? bare("b000") : saved("b000", {1}, {1});
    const auto reader = open(host);
    REQUIRE(reader);
    CHECK(find((*reader)->manifest, "b").shape.empty());
    CHECK(find((*reader)->manifest, "exp_avg/b").shape.empty());
    CHECK(values_of(**reader).at("b") == "b000");
  }
}

TEST_CASE("universal: parts that were joined have the shape of the file") {
  const std::string half =
      list({ordered_dict({text("a.weight"), shape({1, 3}), text("b"), shape({5})})});
  Universal recipe;
  recipe.param_shapes = half;
  recipe.module = ordered_dict({text("seen"), tensor(storage("2", 2), 0, {2}, {1})});
  test::MemoryHost host;
  put(host, recipe);
  CHECK(has(outcome(host), "step7/zero/a.weight/fp32.pt: expected 3 elements as the param_shapes"));
  const std::string model = host.inputs["step7/mp_rank_00_model_states.pt"];
  host.inputs["step7/mp_rank_01_model_states.pt"] = model;
  CHECK(has(outcome(host), "found \"held\", of which it has the parts of 2 ranks"));
  recipe.more = text("frozen_param_shapes") + "N";
  put(host, recipe);
  host.inputs["step7/mp_rank_01_model_states.pt"] = recipe.model_file();
  const std::string object = global("deepspeed.checkpoint.universal_checkpoint", "SubparamShape") +
                             ")\x81" + dict({text("partition_dim"), number(1)}) + "b";
  host.inputs["step7/zero/a.weight/fp32.pt"] =
      saved(elements('a', 0, 6), {2, 3}, {3, 1},
            text("cat_dim") + number(1) + text("sub_param_shape") + object);
  host.inputs["step7/zero/held/fp32.pt"] = saved("h000", {1}, {1});
  for (const char* key : {"exp_avg", "exp_avg_sq"})
    host.inputs[cat("step7/zero/held/", key, ".pt")] = saved("h001", {1}, {1});
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(find(m, "a.weight").shape == Shape{2, 3});
  CHECK(find(m, "exp_avg/a.weight").shape == Shape{2, 3});
  using Map = manifest::ValueMap;
  CHECK(*metadata(m, "parameter_layout") ==
        Value{Map{
            {{"a.weight", Value{Map{{{"cat_dim", Value{int64_t{1}}},
                                     {"sub_param_shape",
                                      Value{Map{{{"partition_dim", Value{int64_t{1}}}}}}}}}}}}}});
  // A folder of no name of the model states.
  CHECK(find(m, "held").train == Training::kTrainable);
  CHECK(m.module.empty());
  REQUIRE(host.logs.size() >= 1);
  CHECK(has(host.logs.back().second,
            "1 folders of zero/ are no names of the model states: \"held\": they are read"));
}

TEST_CASE("universal: experts are whole") {
  test::MemoryHost host;
  Universal recipe;
  recipe.param_shapes =
      list({ordered_dict({text("a.weight"), shape({1, 3}), text("b"), shape({5})})});
  recipe.module = ordered_dict({text("seen"), tensor(storage("2", 2), 0, {2}, {1})});
  put(host, recipe);
  const auto expert = [](char letter) {
    return saved(elements(letter, 0, 6), {2, 3}, {3, 1}, text("is_expert_param") + "\x88");
  };
  host.inputs["step7/zero/a.weight/fp32.pt"] = expert('a');
  host.inputs["step7/zero/a.weight/exp_avg.pt"] = expert('c');
  host.inputs["step7/zero/a.weight/exp_avg_sq.pt"] = expert('e');
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK(find((*reader)->manifest, "a.weight").shape == Shape{2, 3});
  CHECK(values_of(**reader).at("exp_avg_sq/a.weight") == elements('e', 0, 6));
}

TEST_CASE("universal: a padded vocabulary is cut to its size") {
  test::MemoryHost host;
  Universal recipe;
  recipe.info = dict({text("original_vocab_size"), number(1)});
  put(host, recipe);
  const auto padded = [](char letter) {
    return saved(elements(letter, 0, 6), {2, 3}, {3, 1}, text("vocab_tensor") + "\x88");
  };
  host.inputs["step7/zero/a.weight/fp32.pt"] = padded('a');
  host.inputs["step7/zero/a.weight/exp_avg.pt"] = padded('c');
  host.inputs["step7/zero/a.weight/exp_avg_sq.pt"] = padded('e');
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK(find((*reader)->manifest, "a.weight").shape == Shape{1, 3});
  CHECK(find((*reader)->manifest, "exp_avg/a.weight").shape == Shape{1, 3});
  CHECK(values_of(**reader).at("a.weight") == elements('a', 0, 3));
}

TEST_CASE("universal: pipeline stages have names of their own") {
  test::MemoryHost host;
  Universal first, second;
  first.param_shapes = list({ordered_dict({text("b"), shape({5})})});
  second.param_shapes = list({ordered_dict({text("a.weight"), shape({2, 3})})});
  first.module = second.module = "N";
  first.more = second.more = text("shared_params") + dict({}) + text("frozen_param_shapes") + "N" +
                             text("buffer_names") + "N";
  put(host, first);
  host.inputs["step7/mp_rank_01_model_states.pt"] = second.model_file();
  for (const char* name : {"seen", "tied", "held"})
    host.inputs.erase(cat("step7/zero/", name, "/fp32.pt"));
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(names_in(m) == "b a.weight exp_avg/b exp_avg/a.weight exp_avg_sq/b exp_avg_sq/a.weight");
  CHECK(m.module.empty());  // no stage knows the order of all
  CHECK(m.training.groups[0].tensors == std::vector<uint64_t>{0, 1});
}

TEST_CASE("universal: parameters that never got a gradient") {
  test::MemoryHost host;
  put(host, {});
  for (const char* key : {"exp_avg", "exp_avg_sq", "step"})
    host.inputs.erase(cat("step7/zero/b/", key, ".pt"));
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK(names_in((*reader)->manifest) ==
        "a.weight seen b held tied exp_avg/a.weight exp_avg_sq/a.weight");
  REQUIRE(host.logs.size() == 1);
  CHECK(has(host.logs[0].second, "1 parameters have no moments"));
}

TEST_CASE("universal: which checkpoint of a folder") {
  test::MemoryHost host;
  put(host, {});
  CHECK(outcome(host) == "read");
  CHECK(outcome(host, {{"from-tag", "step7"}}) == "read");
  CHECK(
      outcome(host, {{"from-tag", "step8"}}) ==
      "expected a universal checkpoint in the folder \"step8\" that --from-tag names, found one in "
      "step7: --from-tag TAG chooses one");
  CHECK(outcome(host, {{"from-tag", "../x"}}) ==
        "--from-tag: expected a folder's name, found \"../x\"");
  host.inputs["latest_universal"] = " step7\n";
  CHECK(outcome(host) == "read");
  host.inputs["latest_universal"] = "/etc";
  CHECK(has(outcome(host), "latest_universal: expected a folder's name, found \"/etc\""));
  host.inputs["latest_universal"] = "/" + std::string(5000, 'x');
  CHECK(has(outcome(host), "found \"/" + std::string(79, 'x') + "...\": --from-tag TAG names"));
  host.inputs["latest_universal"] = std::string(200, 'x');
  CHECK(has(outcome(host),
            "the folder \"" + std::string(80, 'x') + "...\" that `latest_universal` names"));
  host.inputs["latest_universal"] = std::string("a\0\x1b", 3) + std::string(5000, '\x80');
  CHECK(outcome(host).size() < 250);
  host.inputs["latest_universal"] = "step8";
  CHECK(has(outcome(host), "in the folder \"step8\" that `latest_universal` names, found one in"));
  host.inputs.erase("latest_universal");
  CHECK(outcome(host) == "read");  // the only one
  host.inputs["step9/zero/optimizer_state.pt"] = "";
  CHECK(outcome(host) ==
        "expected the file `latest_universal`, which says which checkpoint is meant, found none "
        "and several checkpoints (step7, step9): --from-tag TAG chooses one");
  host.inputs["latest"] = "step7";
  CHECK(outcome(host) == "read");
  host.inputs["latest"] = "native";  // of ZeRO
  CHECK(has(outcome(host), "several checkpoints (step7, step9)"));
  host.named = "step7/mp_rank_00_model_states.pt";
  CHECK(has(outcome(host), "expected the folder of a universal checkpoint, found the file"));
  test::MemoryHost none;
  none.inputs["latest"] = "x";
  CHECK(has(outcome(none), "expected a universal checkpoint (`latest_universal` and a folder"));
}

TEST_CASE("universal: the folder of one checkpoint as SRC") {
  test::MemoryHost host;
  put(host, {}, "");
  host.inputs["config.json"] = R"({"model_type": "llama"})";
  host.inputs["tokenizer.json"] = "{}";
  CHECK(outcome(host, {{"from-tag", "step7"}}) ==
        "--from-tag: expected a folder that has the folder \"step7\", found SRC to be one "
        "checkpoint's own folder: leave the flag out, or name the folder around it");
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK(values_of(**reader) == kMasters);
  CHECK_FALSE(metadata((*reader)->manifest, "tag"));
  CHECK((*reader)->manifest.source.config.get<manifest::ValueMap>());
  CHECK((*reader)->manifest.aux_files.size() == 2);
}

TEST_CASE("universal: --verify-crc names the file and the record") {
  for (const auto& [name, bytes] :
       {std::pair{"zero/b/fp32.pt", "b000"}, std::pair{"zero/a.weight/exp_avg.pt", "c000"},
        std::pair{"mp_rank_00_model_states.pt", "s000"}}) {
    CAPTURE(name);
    test::MemoryHost host;
    put(host, {});
    CHECK(outcome(host, {{"verify-crc", "true"}}) == "read");
    std::string& file = host.inputs[cat("step7/", name)];
    file[file.find(bytes)] ^= 1;
    CHECK(outcome(host) == "read");  // torch can leave them wrong on purpose
    const std::string said = outcome(host, {{"verify-crc", "true"}});
    CHECK(has(said, cat("step7/", name, ": expected record \"archive/data/")));
    CHECK(has(said, "to have the CRC that the zip directory says, found another"));
  }
}

TEST_CASE("universal: every call of the host may fail") {
  for (const Universal& recipe : {Universal(), stage3()}) {
    const uint64_t n_calls =
        test::check_every_fault([&](test::MemoryHost& host) -> Result<std::string> {
          put(host, recipe);
          const auto reader = open(host);
          if (!reader) return reader.error();
          std::string out;
          for (uint64_t i = 0; i < (*reader)->manifest.tensors.size(); ++i) {
            const auto& t = (*reader)->manifest.tensors[i];
            const uint64_t n = t.strides.empty() ? *checked_product(t.shape) : t.storage_elements;
            XD_TRY_SET(const std::string bytes, (*reader)->read(dense_range(i, 0, n), 4 * n));
            out += bytes;
          }
          return out;
        });
    CHECK(n_calls > 40);
  }
}
