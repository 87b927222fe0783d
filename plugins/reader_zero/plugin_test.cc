// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/checkpoints_for_test.h"

using namespace crossdock;
using namespace crossdock::reader_zero::recipe;
using manifest::DType;
using manifest::Role;
using manifest::Training;
using test::has;
using test::open;

namespace {

using Values = std::map<std::string, std::string>;
Values values_of(const test::OpenReader& reader) {
  Values out;
  const auto& tensors = reader.manifest.tensors;
  for (uint64_t i = 0; i < tensors.size(); ++i) {
    const auto& t = tensors[i];
    const uint64_t n = t.strides.empty() ? *checked_product(t.shape) : t.storage_elements;
    const auto values = reader.read(dense_range(i, 0, n), 4 * n);
    out[t.name] = values ? *values : values.error().message;
  }
  return out;
}

const manifest::Value* metadata(const manifest::Manifest& m, std::string_view key) {
  for (const auto& entry : m.source.metadata) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}
int64_t number_in(const manifest::Manifest& m, std::string_view key) {
  const auto* v = metadata(m, key);
  return v && v->get<int64_t>() ? *v->get<int64_t>() : -1;
}
std::string names_in(const manifest::Manifest& m) {
  std::string out;
  for (const auto& t : m.tensors) out += (out.empty() ? "" : " ") + t.name;
  return out;
}
const manifest::Tensor& find(const manifest::Manifest& m, std::string_view name) {
  for (const auto& t : m.tensors) {
    if (t.name == name) return t;
  }
  FAIL("no such tensor");
  return m.tensors[0];
}

}  // namespace

TEST_CASE("zero: who it is") {
  test::MemoryHost host;
  const xd_plugin_desc& desc = test::linked_plugin(host);
  CHECK(std::string(desc.id) == "org.crossdock.reader.zero");
  CHECK(std::string(desc.formats[0]) == "zero");
  CHECK(desc.caps == (XD_CAP_CONCURRENT | XD_CAP_TRAINING_STATE));
}

TEST_CASE("zero: how sure it is, by names") {
  const auto score = test::probe_names;
  CHECK(score({"latest", optimizer_name(0), model_name(0)}) == 80);
  CHECK(score({optimizer_name(0, ""), model_name(0, "")}) == 80);
  CHECK(score({"zero_pp_rank_3_mp_rank_01_optim_states.pt"}) == 80);
  CHECK(score({optimizer_name(0)}) == 60);
  CHECK(score({"latest", "out/" + optimizer_name(0)}) == 0);
  CHECK(score({"latest", "step7/mp_rank_00_model_states.pt"}) == 0);
  CHECK(score({"latest_universal", model_name(0), "step7/zero/optimizer_state.pt"}) == 0);
  // Beside a universal checkpoint nobody knows which is meant.
  CHECK(score({"latest", optimizer_name(0), "latest_universal", "step8/zero/a/fp32.pt"}) == 60);
  CHECK(score({"model.safetensors"}) == 0);
  CHECK(test::probe_file(optimizer_name(0, ""), Stage3{}.optimizer_file()) == 0);
}

TEST_CASE("zero: stage 3, every tensor") {
  test::MemoryHost host;
  put_stage3(host);
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(names_in(m) ==
        "a.weight seen b frozen tied exp_avg/a.weight exp_avg/b exp_avg_sq/a.weight exp_avg_sq/b");
  CHECK(values_of(**reader) == Values{{"a.weight", elements('a', 0, 6)},
                                      {"tied", elements('a', 0, 6)},
                                      {"b", elements('b', 0, 5)},
                                      {"seen", elements('s', 0, 6)},
                                      {"frozen", elements('z', 0, 3)},
                                      {"exp_avg/a.weight", elements('c', 0, 6)},
                                      {"exp_avg/b", elements('d', 0, 5)},
                                      {"exp_avg_sq/a.weight", elements('e', 0, 6)},
                                      {"exp_avg_sq/b", elements('f', 0, 5)}});
  for (const auto& t : m.tensors) CHECK(t.dtype == DType::F32);
  using Shape = std::vector<uint64_t>;
  CHECK(find(m, "a.weight").shape == Shape{2, 3});
  CHECK(find(m, "exp_avg/a.weight").shape == Shape{2, 3});
  CHECK(find(m, "tied").shape == Shape{2, 3});
  CHECK(find(m, "frozen").shape == Shape{3});
  const auto& seen = find(m, "seen");
  CHECK(seen.shape == Shape{3, 2});
  CHECK(seen.strides == std::vector<int64_t>{1, 3});
  CHECK(seen.storage_elements == 6);
  CHECK(find(m, "b").extents.size() == 2);
  CHECK(find(m, "b").extents[1].length == 8);
}

TEST_CASE("zero: stage 3, what the tensors are") {
  test::MemoryHost host;
  put_stage3(host);
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  const auto is = [&](std::string_view name, Role role, Training train) {
    return find(m, name).role == role && find(m, name).train == train;
  };
  CHECK(is("a.weight", Role::kParameter, Training::kTrainable));
  CHECK(is("tied", Role::kParameter, Training::kTrainable));
  CHECK(is("frozen", Role::kParameter, Training::kFrozen));
  CHECK(is("seen", Role::kBuffer, Training::kUnspecified));
  CHECK(is("exp_avg/b", Role::kOptimizerState, Training::kUnspecified));
  CHECK(m.alias_groups == std::vector<manifest::AliasGroup>{{{0, 4}}});
  CHECK(m.module == std::vector<manifest::ModuleName>{
                        {"a.weight", 0}, {"b", 2}, {"frozen", 3}, {"tied", 0}, {"seen", 1}});
  CHECK(m.source.format == "zero");
  CHECK(m.source.files.size() == 4);
}

TEST_CASE("zero: stage 3, the state of the training") {
  test::MemoryHost host;
  put_stage3(host);
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(m.training.step == 4);
  CHECK(m.training.optimizer == "torch.optim.AdamW");
  REQUIRE(m.training.groups.size() == 1);
  CHECK(m.training.groups[0].tensors == std::vector<uint64_t>{0, 2});
  using manifest::KeyValue;
  using manifest::Value;
  CHECK(m.training.groups[0].hyper_parameters ==
        std::vector<KeyValue>{{"lr", Value{0.5}},
                              {"betas", Value{manifest::ValueList{{Value{0.9}, Value{0.25}}}}},
                              {"fused", Value{manifest::Null()}},
                              {"decoupled_weight_decay", Value{true}}});
  CHECK(m.training.moments ==
        std::vector<manifest::Moment>{
            {"exp_avg", 0, 5}, {"exp_avg", 2, 6}, {"exp_avg_sq", 0, 7}, {"exp_avg_sq", 2, 8}});
  CHECK(number_in(m, "zero_stage") == 3);
  CHECK(number_in(m, "dp_world_size") == 2);
  CHECK(number_in(m, "mp_world_size") == 1);
  CHECK(number_in(m, "global_steps") == 7);
  CHECK(number_in(m, "global_samples") == 28);
  CHECK(number_in(m, "skipped_steps") == 3);
  CHECK(*metadata(m, "ds_version") == Value{std::string("0.19.8")});
  CHECK(*metadata(m, "tag") == Value{std::string("step7")});
  CHECK(*metadata(m, "optimizer") == Value{std::string("torch.optim.AdamW")});
  CHECK(*metadata(m, "lr_scheduler")->get<manifest::ValueMap>()->find("last_batch_iteration") ==
        Value{int64_t{6}});
  const auto* scaler = metadata(m, "loss_scaler")->get<manifest::ValueMap>();
  REQUIRE(scaler);
  CHECK(*scaler->find("class") ==
        Value{std::string("deepspeed.runtime.fp16.loss_scaler.LossScaler")});
  CHECK(*scaler->find("cur_scale") == Value{1.0});
  CHECK(*metadata(m, "client_state") == Value{manifest::ValueMap{{{"epoch", Value{1.5}}}}});
}

TEST_CASE("zero: ranges go over the ends of ranks") {
  test::MemoryHost host;
  put_stage3(host);
  const auto reader = open(host);
  REQUIRE(reader);
  const std::string all = elements('b', 0, 5);
  for (uint64_t begin = 0; begin <= 5; ++begin) {
    for (uint64_t end = begin; end <= 5; ++end) {
      CAPTURE(begin, end);
      const auto part = (*reader)->read(dense_range(2, begin, end - begin), 4 * (end - begin));
      REQUIRE(part);
      CHECK(*part == all.substr(4 * begin, 4 * (end - begin)));
    }
  }
  CHECK_FALSE((*reader)->read(dense_range(2, 3, 3), 12));
  CHECK_FALSE((*reader)->read(dense_range(99, 0, 0), 0));
}

TEST_CASE("zero: stage 3, the job's own weights are masters in its type") {
  const auto with_config = [](test::MemoryHost& host, const std::string& config) {
    put_stage3(host, [&](Stage3& r) { r.config = config; });
  };
  test::MemoryHost host;
  with_config(host, dict({text("bf16"), dict({text("enabled"), "\x88"})}));
  const auto reader = open(host, {{"weights", "model"}});
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(*metadata(m, "dtype") == manifest::Value{std::string("bf16")});
  for (const char* name : {"a.weight", "b", "tied"})
    CHECK(find(m, name).dtype == manifest::DType::BF16);
  CHECK(find(m, "exp_avg/b").dtype == manifest::DType::F32);
  test::MemoryHost silent;  // the files' names tell it too
  with_config(silent, dict({}));
  const auto other = open(silent, {{"weights", "model"}});
  REQUIRE(other);
  CHECK(find((*other)->manifest, "b").dtype == manifest::DType::BF16);
}

TEST_CASE("zero: stage 2, masters or the job's own copy") {
  test::MemoryHost host;
  put_stage12(host);
  const auto check = [&](const test::OptionValues& options, char a, char b) {
    const auto reader = open(host, options);
    REQUIRE(reader);
    CHECK(names_in((*reader)->manifest) ==
          "a.weight seen b held tied exp_avg/a.weight exp_avg/b exp_avg_sq/a.weight exp_avg_sq/b");
    CHECK(values_of(**reader) == Values{{"a.weight", elements(a, 0, 6)},
                                        {"tied", elements(a, 0, 6)},
                                        {"b", elements(b, 0, 5)},
                                        {"seen", elements('s', 0, 2)},
                                        {"held", elements('h', 0, 2)},
                                        {"exp_avg/a.weight", elements('c', 0, 6)},
                                        {"exp_avg/b", elements('d', 0, 5)},
                                        {"exp_avg_sq/a.weight", elements('e', 0, 6)},
                                        {"exp_avg_sq/b", elements('f', 0, 5)}});
    CHECK((*reader)->manifest.training.step == 4);
    CHECK((*reader)->manifest.training.optimizer == "torch.optim.AdamW");
    CHECK(find((*reader)->manifest, "held").train == Training::kFrozen);
  };
  check({}, 'a', 'b');
  check({{"weights", "master"}}, 'a', 'b');
  check({{"weights", "model"}}, 'A', 'B');
}

TEST_CASE("zero: forms of stages 1 and 2") {
  const auto check = [](const Change12& change, int64_t stage, size_t n_hyper_parameters) {
    test::MemoryHost host;
    put_stage12(host, change);
    const auto reader = open(host);
    REQUIRE(reader);
    const auto values = values_of(**reader);
    CHECK(values.at("a.weight") == elements('a', 0, 6));
    CHECK(values.at("b") == elements('b', 0, 5));
    CHECK(values.at("exp_avg/b") == elements('d', 0, 5));
    CHECK(number_in((*reader)->manifest, "zero_stage") == stage);
    CHECK((*reader)->manifest.training.step == 4);
    REQUIRE((*reader)->manifest.training.groups.size() == 1);
    CHECK((*reader)->manifest.training.groups[0].hyper_parameters.size() == n_hyper_parameters);
  };
  check([](Stage12& r) { r.zero_stage = number(1); }, 1, 1);
  check([](Stage12& r) { r.is_elastic = true; }, 2, 0);
  // BF16_Optimizer tells no stage, and its masters have the padding.
  check([](Stage12& r) { r.zero_stage = "", r.pads_master = true; }, 1, 1);
  check([](Stage12& r) { r.alignment = list({list({number(0), number(0)})}); }, 2, 1);
}

TEST_CASE("zero: stage 2, paddings between parameters") {
  test::MemoryHost host;
  const auto change = [](Stage12& r) {
    r.alignment = list({list({number(2), number(0)})});
    r.has_gap = true;
  };
  put_stage12(host, change);
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK(values_of(**reader).at("a.weight") == elements('a', 0, 6));
  CHECK(values_of(**reader).at("b") == elements('b', 0, 5));
  CHECK(values_of(**reader).at("exp_avg/b") == elements('d', 0, 5));
  CHECK(has(of_stage12([&](Stage12& r) {
              change(r), r.alignment = list({list({}), list({})});
            }),
            "param_alignment_paddings: expected those of 1 groups, found 2"));
}

TEST_CASE("zero: stage 2, frozen parameters") {
  const auto of = [](const std::string& shapes, const std::string& fragments) {
    test::MemoryHost host;
    put_stage12(host,
                [&](Stage12& r) { r.frozen_shapes = shapes, r.frozen_fragments = fragments; });
    const auto reader = open(host);
    return reader ? values_of(**reader).at("held") : reader.error().message;
  };
  const std::string fragment =
      dict({text("held"), tensor(storage("3", 2), 0, {2}, {1})});  // the module's own
  CHECK(of(dict({text("held"), shape({2})}), fragment) == elements('h', 0, 2));
  CHECK(has(of(dict({text("held"), shape({1, 2})}), fragment),
            "expected \"held\" in frozen_param_fragments with the shape of frozen_param_shapes, "
            "found another shape"));
  CHECK(has(of(dict({text("held"), shape({2})}), "}"), "frozen_param_shapes, found none"));
}

TEST_CASE("zero: which checkpoint of a folder") {
  test::MemoryHost host;
  put_stage3(host);
  CHECK(outcome(host) == "read");
  CHECK(outcome(host, {{"from-tag", "step7"}}) == "read");
  CHECK(outcome(host, {{"from-tag", "step8"}}) ==
        "expected the folder \"step8\" that --from-tag names, found step7: --from-tag TAG chooses "
        "one");
  CHECK(outcome(host, {{"from-tag", "../x"}}) ==
        "--from-tag: expected a folder's name, found \"../x\"");
  host.inputs["latest"] = " step7\n";
  CHECK(outcome(host) == "read");
  host.inputs["latest"] = "/etc";
  CHECK(has(outcome(host), "latest: expected a folder's name, found \"/etc\""));
  host.inputs["latest"] = "/" + std::string(5000, 'x');
  CHECK(has(outcome(host), "found \"/" + std::string(79, 'x') + "...\": --from-tag TAG names"));
  host.inputs["latest"] = std::string(200, 'x');
  CHECK(has(outcome(host), "the folder \"" + std::string(80, 'x') + "...\" that `latest` names"));
  host.inputs["latest"] = std::string("a\0\x1b", 3) + std::string(5000, '\x80');
  CHECK(outcome(host).size() < 250);
  host.inputs["latest"] = "step8";
  CHECK(
      outcome(host) ==
      "expected the folder \"step8\" that `latest` names, found step7: --from-tag TAG chooses one");
  host.inputs.erase("latest");
  CHECK(outcome(host) == "read");  // the only one
  host.inputs[optimizer_name(0, "step9/")] = host.inputs[optimizer_name(0)];
  CHECK(outcome(host) ==
        "expected the file `latest`, which says which checkpoint is meant, found none and several "
        "checkpoints (step7, step9): --from-tag TAG chooses one");
  CHECK(outcome(host, {{"from-tag", "step7"}}) == "read");
  CHECK(has(outcome(host, {{"from-tag", "step9"}}),
            "expected the optimizer states of 2 ranks, found none of rank 1"));
  host.named = optimizer_name(0);
  CHECK(has(outcome(host), "expected the folder of a DeepSpeed checkpoint, found the file"));
}

TEST_CASE("zero: the folder of one checkpoint as SRC") {
  test::MemoryHost all, host;
  put_stage3(all);
  for (const auto& [name, bytes] : all.inputs) {
    if (name != "latest") host.inputs[name.substr(6)] = bytes;
  }
  host.inputs["deeper/" + optimizer_name(0, "")] = "not looked at";
  CHECK(outcome(host, {{"from-tag", "step7"}}) ==
        "--from-tag: expected a folder that has the folder \"step7\", found SRC to be one "
        "checkpoint's own folder: leave the flag out, or name the folder around it");
  CHECK(has(outcome(host, {{"from-tag", "deeper"}}),
            "deeper/" + optimizer_name(0, "") + ": expected a file of torch.save"));
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK(values_of(**reader).at("b") == elements('b', 0, 5));
  CHECK_FALSE(metadata((*reader)->manifest, "tag"));
}

TEST_CASE("zero: --verify-crc names the file and the record") {
  const auto outcomes = [](const std::string& name, std::string_view bytes) {
    test::MemoryHost host;
    put_stage3(host);
    CHECK(outcome(host, {{"verify-crc", "true"}}) == "read");
    std::string& file = host.inputs[name];
    file[file.find(bytes)] ^= 1;
    CHECK(outcome(host) == "read");  // torch can leave them wrong on purpose
    return outcome(host, {{"verify-crc", "true"}});
  };
  const std::string kSaid = ": expected record \"archive/data/0\" to have the CRC";
  CHECK(has(outcomes(optimizer_name(0), "a000"), optimizer_name(0) + kSaid));
  CHECK(has(outcomes(optimizer_name(1), "a003"), optimizer_name(1) + kSaid));
  CHECK(has(outcomes(model_name(0), "s000"), model_name(0) + ": expected record"));
  CHECK(has(outcomes(model_name(1), "z002"), model_name(1) + ": expected record"));
}

TEST_CASE("zero: config.json and the tokenizer beside it") {
  test::MemoryHost host;
  put_stage3(host);
  host.inputs["config.json"] = R"({"model_type": "llama"})";
  host.inputs["tokenizer.json"] = "{}";
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK((*reader)->manifest.source.config.get<manifest::ValueMap>());
  CHECK((*reader)->manifest.aux_files.size() == 2);
}

TEST_CASE("zero: what is no plain data is left out of the training state") {
  test::MemoryHost host;
  put_stage3(host, [](Stage3& r) {
    r.more = text("args") + global("argparse", "Namespace") + ")\x81}b" + text("random") +
             dict({number(3), text("three"), text("state"),
                   list({number(1), global("numpy", "float64")}), text("\xff"), number(1)});
  });
  const auto reader = open(host);
  REQUIRE(reader);
  const auto* client = metadata((*reader)->manifest, "client_state")->get<manifest::ValueMap>();
  REQUIRE(client);
  using manifest::Value;
  CHECK(*client->find("epoch") == Value{1.5});
  CHECK(*client->find("random") == Value{manifest::ValueMap{{{"3", Value{std::string("three")}}}}});
  CHECK_FALSE(client->find("args"));
  REQUIRE(host.logs.size() == 1);
  CHECK(has(host.logs[0].second, "3 values of the training state are no plain data"));
  CHECK(has(host.logs[0].second, "client_state.args"));
  CHECK(has(host.logs[0].second, "client_state.random.state"));
}

TEST_CASE("zero: other optimizers, and none") {
  const auto training = [](const std::string& states, std::string& log) {
    test::MemoryHost host;
    put_stage3(host, [&](Stage3& r) { r.states = states; });
    const auto reader = open(host);
    log = host.logs.empty() ? "" : host.logs.back().second;
    return reader ? (*reader)->manifest.training : manifest::TrainingState{};
  };
  std::string log;
  const std::string six = tensor(storage("0", 6), 0, {6}, {1}),
                    two = tensor(storage("0", 6), 0, {2}, {1});
  const auto momentum = training(dict({number(0), dict({text("momentum_buffer"), six})}), log);
  REQUIRE(momentum.moments.size() == 2);
  CHECK(momentum.moments[0].kind == "momentum_buffer");
  CHECK(momentum.step == 4);  // of the job, without those that were skipped
  CHECK(log.empty());
  CHECK(training(dict({}), log).moments.empty());
  CHECK(training(dict({number(0), dict({text("row"), two, text("step"), number(3)})}), log).step ==
        3);
  CHECK(has(log, "the optimizer's \"row\" of flat group 0 have another number of elements"));
}

TEST_CASE("zero: model states of another step than the optimizer states") {
  const auto logs = [](float step, int64_t global_steps) {
    test::MemoryHost host;
    put_stage3(host, [&](Stage3& r) {
      r.step = step;
      r.global_steps = number(global_steps);
    });
    const auto reader = open(host);
    REQUIRE(reader);
    CHECK((*reader)->manifest.training.step == static_cast<uint64_t>(step));
    std::string out;
    for (const auto& [level, text] : host.logs) out += text;
    return out;
  };
  CHECK(logs(4, 7) == "");  // of which three were skipped
  CHECK(logs(4, 8) ==
        "expected model states of step 4 as the optimizer states are, found them to be of step 5 "
        "(global_steps - skipped_steps), as after load_optimizer_states=False: if the job did no "
        "such thing, the files are of different saves");
  CHECK(has(logs(5, 7), "of step 5 as the optimizer states are, found them to be of step 4"));
  CHECK(logs(0, 7) == "");  // before the first step
  CHECK(logs(4, 3) == "");  // which has counted none
  CHECK(logs(4, 2) == "");  // nor has this one
}

TEST_CASE("zero: the optimizer's class, by the keys of its groups") {
  const auto optimizer = [](const std::string& keys) {
    test::MemoryHost host;
    put_stage3(host, [&](Stage3& r) { r.group = keys; });
    const auto reader = open(host);
    return reader ? (*reader)->manifest.training.optimizer : reader.error().message;
  };
  const std::string betas = text("betas") + tuple({real(0.5), real(0.5)});
  CHECK(optimizer(betas + text("decoupled_weight_decay") + "\x88") == "torch.optim.AdamW");
  CHECK(optimizer(betas + text("decoupled_weight_decay") + "\x89") == "torch.optim.Adam");
  CHECK(optimizer(betas + text("bias_correction") + "\x88") == "deepspeed.ops.adam.FusedAdam");
  CHECK(optimizer(betas + text("bias_correction") + "\x88" + text("amsgrad") + "\x89") ==
        "deepspeed.ops.adam.DeepSpeedCPUAdam");
  CHECK(optimizer(betas + text("bias_correction") + "\x88" + text("max_coeff") + real(10)) == "");
  CHECK(optimizer(text("momentum") + real(0.5)) == "");
}

TEST_CASE("zero: parameters that the optimizer does not own") {
  test::MemoryHost host;
  put_stage3(host, [](Stage3& r) {
    File f;
    const std::string none = tensor(storage("0", 0), 0, {0}, {1});
    r.module = ordered_dict({text("a.weight"), none, text("b"), none, text("stray"), none,
                             text("x._extra_state"), none, text("count"), number(3)});
  });
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK(has(names_in((*reader)->manifest), "a.weight b x._extra_state frozen tied exp_avg"));
  REQUIRE(host.logs.size() == 2);
  CHECK(has(host.logs[0].second,
            "1 entries of the module's state are no tensors and are left out: "
            "\"count\""));
  CHECK(has(host.logs[1].second, "the checkpoint has no values of \"stray\""));
  CHECK(find((*reader)->manifest, "x._extra_state").role == Role::kBuffer);
}

TEST_CASE("zero: every call of the host may fail") {
  for (const auto put : {+[](test::MemoryHost& host) { put_stage3(host); },
                         +[](test::MemoryHost& host) { put_stage12(host); }}) {
    const uint64_t n_calls =
        test::check_every_fault([&](test::MemoryHost& host) -> Result<std::string> {
          put(host);
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
    CHECK(n_calls > 20);
  }
}
