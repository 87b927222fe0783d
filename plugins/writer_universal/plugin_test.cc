// SPDX-License-Identifier: Apache-2.0

// The whole plugin against a host in memory. What its pickles mean to DeepSpeed the interop tests
// show.
#include <crossdock/plugin.hpp>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "plugins/torch/write/unzip_for_test.h"
#include "tests/catch.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;
using manifest::DType;
using manifest::Manifest;
using manifest::Role;
using manifest::Tensor;
using test::Files;
using test::MemoryHost;
using torch_write::record_of;

namespace {

const std::string kZero = "global_step0/zero/", kStates = "global_step0/mp_rank_00_model_states.pt",
                  kStates3 = "global_step0/zero_pp_rank_0_mp_rank_00_model_states.pt";

bool holds(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// A literal with its NULs.
template <size_t N>
std::string bytes(const char (&text)[N]) {
  return {text, N - 1};
}

template <class T>
std::string packed(std::initializer_list<T> values) {
  std::string out;
  for (const T value : values) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    out.append(raw, sizeof(T));
  }
  return out;
}

// A model made of one tensor after another, as the core hands it to a writer: with roles.
struct Job {
  MemoryHost host;
  Manifest model;

  Tensor& add(const std::string& name, DType dtype, std::vector<uint64_t> shape, std::string bytes,
              Role role = Role::kParameter) {
    Tensor& tensor = model.tensors.emplace_back();
    tensor.name = name;
    tensor.dtype = dtype;
    tensor.shape = std::move(shape);
    tensor.role = role;
    host.tensors.push_back(std::move(bytes));
    return tensor;
  }
  Files write(const test::OptionValues& options = {}) {
    auto files = test::run_writer(host, test::linked_plugin(host), model, options);
    if (!files) throw std::runtime_error(files.error().message);
    return *std::move(files);
  }
  std::string refusal(const test::OptionValues& options = {}) {
    const auto files = test::run_writer(host, test::linked_plugin(host), model, options);
    return files ? "" : files.error().message;
  }
  bool noted(std::string_view part) const {
    return std::any_of(host.plan.notes.begin(), host.plan.notes.end(),
                       [&](const auto& note) { return holds(note, part); });
  }
  uint64_t hole_bytes() const {
    uint64_t n = 0;
    for (const auto& object : host.plan.objects) n += object->hole_bytes;
    return n;
  }
};

void add_bf16(Job& s, const std::string& name = "w") {
  s.add(name, DType::BF16, {2, 2},
        packed<uint16_t>({0x3f80, 0x4000, 0xc040, 0x7fc1}));  // 1, 2, -3, NaN
}
const std::string kAsF32 = packed<uint32_t>({0x3f800000, 0x40000000, 0xc0400000, 0x7fc10000});

}  // namespace

TEST_CASE("one parameter: all the files, and what is in them") {
  Job s;
  add_bf16(s);
  const Files files = s.write();
  std::vector<std::string> names;
  for (const auto& [name, data] : files) names.push_back(name);
  CHECK(names == std::vector<std::string>{kStates, kZero + "optimizer_state.pt",
                                          kZero + "w/exp_avg.pt", kZero + "w/exp_avg_sq.pt",
                                          kZero + "w/fp32.pt", kZero + "w/step.pt", kStates3,
                                          "latest_universal"});
  CHECK(files.at("latest_universal") == "global_step0");
  CHECK(files.at(kStates) == files.at(kStates3));
  CHECK(record_of(files.at(kZero + "w/fp32.pt"), "data/0") == kAsF32);
  CHECK(files.at(kZero + "w/exp_avg.pt") == files.at(kZero + "w/exp_avg_sq.pt"));
  CHECK(record_of(files.at(kZero + "w/exp_avg.pt"), "data/0") == std::string(16, '\0'));
  CHECK(record_of(files.at(kZero + "w/step.pt"), "data/0") == std::string(4, '\0'));
  CHECK(holds(record_of(files.at(kZero + "w/fp32.pt"), "data.pkl"), "cat_dim"));
  const std::string optimizer = record_of(files.at(kZero + "optimizer_state.pt"), "data.pkl");
  CHECK(holds(optimizer, "0.19.8"));
  size_t groups = 0;
  for (size_t at = 0; (at = optimizer.find("params", at)) != std::string::npos; ++at) ++groups;
  CHECK(groups == 64 + 1);
}

TEST_CASE("precision source keeps the bytes") {
  Job s;
  add_bf16(s);
  const Files files = s.write({{"precision", "source"}});
  CHECK(record_of(files.at(kZero + "w/fp32.pt"), "data/0") == s.host.tensors[0]);
  CHECK(holds(record_of(files.at(kZero + "w/fp32.pt"), "data.pkl"), "BFloat16Storage"));
  CHECK(holds(record_of(files.at(kZero + "w/exp_avg.pt"), "data.pkl"), "FloatStorage"));
}

TEST_CASE("a job's config: only the notes that are for it, and what it is inexact for") {
  const auto notes = [](const std::string& config, const test::OptionValues& more = {},
                        size_t groups = 1) {
    Job s;
    add_bf16(s);
    for (size_t g = 0; g < groups; ++g) s.model.training.groups.push_back({{0}, {}});
    test::OptionValues options{{"ds-config", config}};
    options.insert(options.end(), more.begin(), more.end());
    s.write(options);
    std::string out;
    for (const auto& note : s.host.plan.notes) out += note + "\n";
    return out;
  };
  const std::string universal = R"("checkpoint": {"load_universal": true}, )";
  const std::string two = notes("{" + universal + R"("zero_optimization": {"stage": 2}})");
  CHECK(holds(two, "load_universal is on in --ds-config"));
  CHECK_FALSE(holds(two, "stage 3"));
  CHECK_FALSE(holds(two, "AutoTP"));
  CHECK(holds(notes("{}"), "load_universal is not on in --ds-config"));
  CHECK(holds(notes("{}"), "runs without ZeRO"));

  const auto three = [&](const std::string& zero, size_t groups = 1) {
    return notes(R"({"zero_optimization": {"stage": 3)" + zero + "}}", {}, groups);
  };
  CHECK(holds(three(""), "never compares shapes"));
  CHECK_FALSE(holds(three(""), "counts each step"));
  CHECK(holds(three("", 2),
              "The job has 2 optimizer groups, with which ZeRO stage 3 counts each step"));
  CHECK(holds(three("", 0),
              "With several (the HF Trainer makes two when the config has no optimizer) it counts "
              "each step"));
  CHECK(holds(three(R"(, "sub_group_size": 3)"),
              "The model has 4 elements to train and sub_group_size in --ds-config is 3: on fewer "
              "than about 2 ranks"));
  CHECK_FALSE(holds(three(R"(, "sub_group_size": 4)"), "sub_group_size"));
  CHECK(holds(notes(R"({"zero_optimization": {"stage": "auto"}})"), "With several"));
  CHECK(holds(three(R"(, "offload_optimizer": {"device": "nvme"})"),
              "loads only what it has saved itself"));
  CHECK(holds(three(R"(, "offload_param": {"device": "nvme"})"), "beyond max_in_cpu"));
  CHECK(holds(three(R"(, "zenflow": {"topk_ratio": 0.1})"),
              "zero_optimization.zenflow of --ds-config"));

  const auto with = [&](const std::string& text) {
    return notes(R"({"zero_optimization": {"stage": 1}, )" + text + "}",
                 {{"moments", "zero-stride"}});
  };
  CHECK(holds(with(R"("optimizer": {"type": "Lion"})"), "optimizer of --ds-config is \"Lion\""));
  CHECK_FALSE(holds(with(R"("optimizer": {"type": "Adam"})"), "optimizer of --ds-config"));
  CHECK(holds(with(R"("fp16": {"enabled": true})"), "beyond 65504"));
  CHECK(holds(with(R"("expert_parallel": {"enabled": true})"), "AutoEP gives experts"));
  CHECK(holds(with(R"("tensor_parallel": {"autotp_size": 4})"),
              "(tensor_parallel.autotp_size 4 in --ds-config) cannot"));
  CHECK_FALSE(holds(with(R"("bf16": {"enabled": true})"), "AutoTP"));

  Job s;
  add_bf16(s);
  CHECK(holds(s.refusal({{"ds-config", "{"}}), "--ds-config: expected JSON"));
}

TEST_CASE("moments") {
  Job s;
  s.add("w", DType::F32, {100, 30}, std::string(12000, 'w'));
  const auto exp_avg = kZero + "w/exp_avg.pt";

  const Files holes = s.write();
  CHECK(record_of(holes.at(exp_avg), "data/0") == std::string(12000, '\0'));
  CHECK(s.hole_bytes() == 2 * 12000);
  CHECK(s.noted("are holes"));

  const Files dense = s.write({{"moments", "dense"}});
  CHECK(s.hole_bytes() == 0);
  CHECK(dense == holes);  // the same bytes
  CHECK_FALSE(s.noted("are holes"));

  const Files repeated = s.write({{"compact", "true"}});
  CHECK(record_of(repeated.at(exp_avg), "data/0") == std::string(4, '\0'));
  CHECK(repeated.at(exp_avg).size() < 2000);
  CHECK(s.noted("AutoTP"));

  const Files none = s.write({{"moments", "none"}});
  CHECK_FALSE(none.contains(exp_avg));
  CHECK_FALSE(none.contains(kZero + "w/step.pt"));
  CHECK(none.contains(kZero + "w/fp32.pt"));
  CHECK(s.noted("load_module_only=True); stages 1 and 2"));
  CHECK_FALSE(s.noted("counts each step"));
}

TEST_CASE("large tensors go in pieces that a small budget allows") {
  Job s;
  std::string narrow;
  for (uint32_t i = 0; i < 500000; ++i) put_le(narrow, static_cast<uint16_t>(i));
  std::string wide;
  for (uint32_t i = 0; i < 500000; ++i) put_le(wide, (i & 0xffffu) << 16);
  s.add("cast", DType::BF16, {500, 1000}, narrow);
  s.add("kept", DType::F32, {500000}, wide);
  s.host.threads = 2;
  for (const uint64_t piece : {uint64_t{4} << 20, uint64_t{65536}, uint64_t{100}, uint64_t{1}}) {
    CAPTURE(piece);
    if (piece < 1000) {  // a read each: keep it short
      s.host.tensors[0].resize(2000), s.host.tensors[1].resize(4000);
      s.model.tensors[0].shape = s.model.tensors[1].shape = {1000};
      wide.resize(4000);
    }
    s.host.piece = piece;
    const Files files = s.write({{"moments", "dense"}});
    CHECK((record_of(files.at(kZero + "cast/fp32.pt"), "data/0") == wide));
    CHECK((record_of(files.at(kZero + "kept/fp32.pt"), "data/0") == wide));
    CHECK(s.host.peak_allocated <= 2 * (uint64_t{1} << 20));
  }
}

TEST_CASE("empty tensors and scalars") {
  Job s;
  s.add("empty", DType::F16, {0, 3}, "");
  s.add("scalar", DType::F32, {}, packed<float>({2.5f}));
  for (const std::string moments : {"holes", "dense", "zero-stride", "none"}) {
    const Files files = s.write({{"moments", moments}});
    CHECK(record_of(files.at(kZero + "empty/fp32.pt"), "data/0").empty());
    CHECK(record_of(files.at(kZero + "scalar/fp32.pt"), "data/0") == packed<float>({2.5f}));
    // A scalar is stored as one element of one dimension, (K\1t; its shape is told as it is.
    CHECK(
        holds(record_of(files.at(kZero + "scalar/fp32.pt"), "data.pkl"), bytes("QK\0(K\1t(K\1t")));
    CHECK(holds(record_of(files.at(kStates), "data.pkl"), "scalarctorch\nSize\n((ttR"));
  }
}

TEST_CASE("buffers go to the model states, never under zero/") {
  Job s;
  add_bf16(s);
  s.add("ids", DType::I64, {3}, packed<int64_t>({1, 2, 3}), Role::kBuffer);
  s.add("running_mean", DType::F32, {2}, packed<float>({1, 2}), Role::kBuffer);
  s.add("mask", DType::BOOL, {1}, "\1", Role::kUnspecified);
  s.add("young", DType::U16, {2}, packed<uint16_t>({7, 8}), Role::kBuffer);
  const Files files = s.write();
  for (const std::string& path : {kStates, kStates3}) {
    const std::string& states = files.at(path);
    CHECK(record_of(states, "data/0") == s.host.tensors[1]);
    CHECK(record_of(states, "data/1") == s.host.tensors[2]);
    CHECK(record_of(states, "data/2") == s.host.tensors[3]);
    CHECK(record_of(states, "data/3") == s.host.tensors[4]);
    CHECK(holds(record_of(states, "data.pkl"), "LongStorage"));
    CHECK(holds(record_of(states, "data.pkl"), "_rebuild_tensor_v3"));
  }
  CHECK_FALSE(files.contains(kZero + "ids/fp32.pt"));
  CHECK(s.noted("does not restore (4: \"ids\", \"running_mean\", \"mask\", ...)"));
}

TEST_CASE("frozen parameters and optimizer states are excluded with a reason") {
  Job s;
  add_bf16(s, "a");
  add_bf16(s, "b");
  s.model.tensors[1].train = manifest::Training::kFrozen;
  s.add("m", DType::F32, {1}, packed<float>({0}), Role::kOptimizerState);
  const Files files = s.write();
  CHECK(files.contains(kZero + "a/fp32.pt"));
  CHECK_FALSE(files.contains(kZero + "b/fp32.pt"));
  REQUIRE(s.host.plan.excluded.size() == 2);
  CHECK(s.host.plan.excluded[0].first == 1);
  CHECK(holds(s.host.plan.excluded[0].second, "frozen"));
  CHECK(s.noted("Frozen parameters are left out, for DeepSpeed would not restore them (1: \"b\")"));
  CHECK_FALSE(holds(record_of(files.at(kStates), "data.pkl"), bytes("X\1\0\0\0b")));
}

TEST_CASE("nothing to train") {
  Job s;
  CHECK(holds(s.refusal(),
              "expected at least one parameter to train, found none (0 frozen, 0 buffers)"));
  add_bf16(s);
  s.model.tensors[0].train = manifest::Training::kFrozen;
  CHECK(holds(s.refusal(), "found none (1 frozen, 0 buffers): look at --trainable and --frozen"));
}

TEST_CASE("tied names are told, targets are used") {
  Job s;
  add_bf16(s, "embed");
  add_bf16(s, "head");
  s.model.tensors[0].target_name = "model.embed";
  s.model.tensors[1].target_name = "model.head";
  s.model.tensors[1].excluded = "tied to embed";
  s.model.alias_groups.push_back({{0, 1}});
  const Files files = s.write();
  CHECK(files.contains(kZero + "model.embed/fp32.pt"));
  CHECK_FALSE(files.contains(kZero + "model.head/fp32.pt"));
  CHECK(s.host.plan.excluded.empty());
  CHECK(holds(record_of(files.at(kStates), "data.pkl"),
              bytes("shared_params}(X\x0a\0\0\0model.headX\x0b\0\0\0model.embedu")));
}

TEST_CASE("auxiliary files are placed, but never over our own") {
  Job s;
  add_bf16(s);
  for (const char* name :
       {"config.json", "Latest_Universal", "global_step0/x", "scheduler.pt", "tokenizer.json"}) {
    auto& aux = s.model.aux_files.emplace_back();
    aux.name = name;
    aux.content = manifest::Bytes{name};
  }
  const Files files = s.write({{"hf-trainer", "true"}});
  REQUIRE(s.host.plan.aux.size() == 2);
  CHECK(files.at("config.json") == "config.json");
  CHECK(files.at("tokenizer.json") == "tokenizer.json");
  CHECK(s.noted("\"Latest_Universal\" of the source is not copied"));
  CHECK(s.noted("\"global_step0/x\" of the source is not copied"));
}

TEST_CASE("hf-trainer adds its two files") {
  Job s;
  add_bf16(s);
  const Files files = s.write({{"hf-trainer", "true"}, {"tag", "global_step7"}});
  CHECK(files.at("latest_universal") == "global_step7");
  CHECK(holds(files.at("trainer_state.json"), "\"train_batch_size\": 8"));
  CHECK(holds(record_of(files.at("scheduler.pt"), "data.pkl"), "lr_lambdas"));
  CHECK(s.noted("trainer_state.json"));
}

TEST_CASE("refusals name the tensor and say what to do") {
  Job s;
  add_bf16(s, "a/b");
  CHECK(s.refusal() ==
        "tensor \"a/b\": expected a name that can be a folder's, found \"a/b\", which holds '/': "
        "give it another with "
        "--rename FROM=TO");
  s.model.tensors[0].target_name = "ab";
  CHECK(s.refusal().empty());
  s.add("huge", DType::F32, {uint64_t{1} << 62, 0, 4}, "");
  CHECK(holds(s.refusal(), "tensor \"huge\": expected a shape that torch can count"));
  s.model.tensors[1] = {};
  s.model.tensors[1].name = "codes";
  s.model.tensors[1].dtype = DType::F4;
  s.model.tensors[1].shape = {2};
  CHECK(holds(s.refusal(),
              "tensor \"codes\": expected an element type that torch.save can write, found F4"));
}

TEST_CASE("rounding of F64 is told") {
  Job s;
  s.add("d", DType::F64, {1}, packed<double>({0.1}));
  const Files files = s.write();
  CHECK(record_of(files.at(kZero + "d/fp32.pt"), "data/0") == packed<float>({0.1f}));
  CHECK(s.noted("F64 parameters are rounded to fp32 (1: \"d\")."));
  s.write({{"precision", "source"}});
  CHECK_FALSE(s.noted("rounded"));
}

TEST_CASE("cancelled") {
  Job s;
  add_bf16(s);
  s.host.cancel = true;
  const auto files = test::run_writer(s.host, test::linked_plugin(s.host), s.model);
  REQUIRE_FALSE(files.has_value());
  CHECK(files.error().code == XD_CANCELLED);
}

TEST_CASE("every failing call of the host is passed on, and nothing is kept") {
  const auto run = [](uint64_t fail_at) {
    Job s;
    add_bf16(s);
    s.add("ids", DType::I64, {1}, packed<int64_t>({1}), Role::kBuffer);
    s.add("big", DType::F32, {5000}, std::string(20000, 'x'));
    s.host.fail_at = fail_at;
    const auto files = test::run_writer(s.host, test::linked_plugin(s.host), s.model,
                                        {{"moments", "dense"}, {"hf-trainer", "true"}});
    if (fail_at == 0) {
      CHECK(files.has_value());
    } else {
      REQUIRE_FALSE(files.has_value());
      CHECK((files.error().code == XD_IO || files.error().code == XD_NO_MEMORY));
      CHECK((holds(files.error().message, "injected fault") ||
             holds(files.error().message, "raise --memory")));
    }
    return s.host.calls;
  };
  const uint64_t calls = run(0);
  CHECK(calls > 50);
  for (uint64_t i = 1; i <= calls; ++i) {
    CAPTURE(i);
    run(i);
  }
}

TEST_CASE("the plan is a function of model and options") {
  Job s;
  add_bf16(s);
  const auto plan = [&] {
    std::string out;
    REQUIRE(test::run_plan(s.host, test::linked_plugin(s.host), s.model).has_value());
    for (const auto& object : s.host.plan.objects) {
      out += cat(object->path, " ", object->size);
      for (const auto& item : object->items)
        out += cat(" ", item.needs.size(), " ", item.out_bytes, " ", item.memory);
      out += "\n";
    }
    for (const auto& note : s.host.plan.notes) out += note;
    return out;
  };
  const std::string first = plan();
  s.host.piece = 1000;
  CHECK(plan() == first);
}
