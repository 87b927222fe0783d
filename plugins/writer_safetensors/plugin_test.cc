// SPDX-License-Identifier: Apache-2.0

// The whole plugin against a host in memory.
#include <crossdock/plugin.hpp>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "tests/support/plugin_checks.h"

using namespace crossdock;
using manifest::DType;
using manifest::Manifest;
using manifest::Role;
using test::Files;
using test::has;
using test::MemoryHost;

namespace {

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

  manifest::Tensor& add(const std::string& name, DType dtype, std::vector<uint64_t> shape,
                        std::string bytes, Role role = Role::kParameter) {
    manifest::Tensor& tensor = model.tensors.emplace_back();
    tensor.name = name;
    tensor.dtype = dtype;
    tensor.shape = std::move(shape);
    tensor.role = role;
    host.tensors.push_back(std::move(bytes));
    return tensor;
  }
  void add_aux(const std::string& name, std::string text) {
    auto& aux = model.aux_files.emplace_back();
    aux.name = name;
    aux.content = manifest::Bytes{std::move(text)};
  }
  auto run(const test::OptionValues& options = {}) {
    return test::run_writer(host, test::linked_plugin(host), model, with_size(options));
  }
  Files write(const test::OptionValues& options = {}) {
    auto files = run(options);
    if (!files) throw std::runtime_error(files.error().message);
    return *std::move(files);
  }
  std::string refusal(const test::OptionValues& options = {}) {
    const auto files = run(options);
    return files ? "" : files.error().message;
  }
  bool noted(std::string_view part) const {
    return std::any_of(host.plan.notes.begin(), host.plan.notes.end(),
                       [&](const auto& note) { return has(note, part); });
  }
  // The host turns the fallback "5GB" into a number; this one does not.
  static test::OptionValues with_size(test::OptionValues options) {
    const bool is_given = std::any_of(options.begin(), options.end(),
                                      [](const auto& o) { return o.first == "shard-size"; });
    if (!is_given) options.emplace_back("shard-size", "5000000000");
    return options;
  }
};

// The data of a file, behind its header.
std::string data_of(const std::string& file) {
  return file.substr(8 + Cursor(as_bytes(file)).le<uint64_t>());
}

std::vector<std::string> names_of(const Files& files) {
  std::vector<std::string> out;
  for (const auto& [name, data] : files) out.push_back(name);
  return out;
}

}  // namespace

TEST_CASE("one file of everything, as it is") {
  Job s;
  s.add("ids", DType::I64, {1}, packed<int64_t>({7}), Role::kBuffer);
  s.add("w", DType::BF16, {2, 2}, packed<uint16_t>({0x3f80, 0x4000, 0xc040, 0x7fc1}));
  s.add("codes", DType::F8_E4M3, {3}, "abc");
  s.add("empty", DType::F32, {0}, "");
  s.add("packed", DType::F4, {4}, "xy");
  s.add("six", DType::F6_E2M3, {4}, "123");
  s.add("moment", DType::F32, {1}, packed<float>({0}), Role::kOptimizerState);
  s.add("tied", DType::F32, {1}, packed<float>({0})).excluded = "tied to w";
  s.add_aux("config.json", R"({"dtype":"float32"})");
  s.add_aux("tokenizer.json", "{}");
  const Files files = s.write();
  CHECK(names_of(files) ==
        std::vector<std::string>{"config.json", "model.safetensors", "tokenizer.json"});
  CHECK(data_of(files.at("model.safetensors")) ==
        s.host.tensors[0] + s.host.tensors[1] + "abc123xy");
  CHECK(files.at("config.json") == R"({"dtype":"float32"})");
  REQUIRE(s.host.plan.excluded.size() == 1);
  CHECK(s.host.plan.excluded[0].first == 6);
  CHECK(s.host.plan.notes.empty());
}

TEST_CASE("no config.json") {
  Job s;
  s.add("w", DType::F32, {1}, packed<float>({1}));
  s.write();
  CHECK(s.noted("has no config.json, without which transformers does not load the folder"));
}

TEST_CASE("names are the target's") {
  Job s;
  s.add("old", DType::F32, {1}, packed<float>({1})).target_name = "model.new";
  const std::string file = s.write().at("model.safetensors");
  CHECK(has(file, "\"model.new\""));
  CHECK_FALSE(has(file, "old"));
}

TEST_CASE("shards with an index") {
  Job s;
  for (const char* name : {"a", "b", "c"}) s.add(name, DType::U8, {4}, std::string(4, *name));
  const Files files = s.write({{"shard-size", "8"}});
  CHECK(names_of(files) == std::vector<std::string>{"model-00001-of-00002.safetensors",
                                                    "model-00002-of-00002.safetensors",
                                                    "model.safetensors.index.json"});
  CHECK(data_of(files.at("model-00001-of-00002.safetensors")) == "aaaabbbb");
  CHECK(data_of(files.at("model-00002-of-00002.safetensors")) == "cccc");
  CHECK(has(files.at("model.safetensors.index.json"), "\"total_size\": 12"));
  CHECK(s.refusal({{"shard-size", "0"}}) ==
        "--shard-size: expected at least 1 byte, found 0: try 5GB");
}

TEST_CASE("dtype: floats of all sizes, and config.json with them") {
  Job s;
  s.add("d", DType::F64, {1}, packed<double>({0.1}));
  s.add("f", DType::F32, {2}, packed<float>({1, -2}));
  s.add("h", DType::F16, {1}, packed<uint16_t>({0x3c00}));
  s.add("b", DType::BF16, {1}, packed<uint16_t>({0x3f80}), Role::kBuffer);
  s.add("i", DType::I32, {1}, packed<int32_t>({5}), Role::kBuffer);
  s.add_aux("config.json", R"({ "torch_dtype": "float64", "sub": {"dtype": "float64"} })");
  CHECK(data_of(s.write({{"dtype", "fp32"}}).at("model.safetensors")) ==
        packed<float>({0.1f, 1, -2, 1, 1}) + s.host.tensors[4]);
  const Files half = s.write({{"dtype", "fp16"}});
  CHECK(data_of(half.at("model.safetensors")) ==
        s.host.tensors[4] + packed<uint16_t>({0x2e66, 0x3c00, 0xc000, 0x3c00, 0x3c00}));
  CHECK(half.at("config.json") == R"({ "torch_dtype": "float16", "sub": {"dtype": "float64"} })");
  CHECK(s.host.plan.aux.empty());
  CHECK(data_of(s.write({{"dtype", "bf16"}}).at("model.safetensors")) ==
        s.host.tensors[4] + packed<uint16_t>({0x3dcd, 0x3f80, 0xc000, 0x3f80, 0x3f80}));
}

TEST_CASE("values beyond the type: counted, refused, allowed") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Job s;
  s.add("fine", DType::F32, {2}, packed<float>({65519, -65504}));
  s.add("had", DType::F32, {3}, packed<float>({kInf, -kInf, nan}));
  s.add("mixed", DType::F32, {5}, packed<float>({kInf, 65520, 1, -1e30f, -kInf}));
  s.add("narrow", DType::BF16, {2}, packed<uint16_t>({0x7f7f, 0x7f80}));
  s.add("wide", DType::F64, {2}, packed<double>({1e300, 1}));
  s.add_aux("config.json", "{}");
  CHECK(
      s.refusal({{"dtype", "fp16"}}) ==
      "--dtype fp16: expected values that fp16 can hold, found 4 beyond, the first in tensor "
      "\"mixed\": use --dtype bf16 or fp32, or --allow-overflow, with which they become infinite");
  CHECK(has(s.refusal({{"dtype", "bf16"}}),
            "found 1 beyond, the first in tensor \"wide\": use --dtype fp32, or"));
  CHECK(has(s.refusal({{"dtype", "fp32"}}),
            "found 1 beyond, the first in tensor \"wide\": use --dtype source, or"));
  CHECK(s.refusal().empty());
  // In pieces of one element too, and by several threads.
  for (const uint64_t piece : {uint64_t{1}, uint64_t{1} << 20}) {
    s.host.piece = piece;
    s.host.threads = 2;
    s.host.logs.clear();
    const Files files = s.write({{"dtype", "fp16"}, {"allow-overflow", "true"}});
    CHECK(data_of(files.at("model.safetensors")).substr(0, 4) ==
          packed<uint16_t>({0x7bff, 0xfbff}));
    CHECK(
        s.host.logged("model.safetensors: 4 values beyond fp16 became infinite, the first in "
                      "tensor \"mixed\" (--allow-overflow)."));
  }
  s.model.tensors.resize(2);
  s.host.tensors.resize(2);
  CHECK(s.refusal({{"dtype", "fp16"}}).empty());
}

TEST_CASE("large tensors go in pieces that a small budget allows") {
  Job s;
  std::string narrow, wide;
  for (uint32_t i = 0; i < 500000; ++i) put_le(narrow, static_cast<uint16_t>(i & 0x3fff));
  for (uint32_t i = 0; i < 500000; ++i) put_le(wide, (i & 0x3fffu) << 16);
  s.add("cast", DType::BF16, {500, 1000}, narrow);
  s.add("kept", DType::F32, {500000}, wide);
  s.add_aux("config.json", "{}");
  s.host.threads = 2;
  for (const uint64_t piece : {uint64_t{4} << 20, uint64_t{65536}, uint64_t{100}, uint64_t{1}}) {
    CAPTURE(piece);
    if (piece < 1000) {  // a read each: keep it short
      s.host.tensors[0].resize(2000), s.host.tensors[1].resize(4000);
      s.model.tensors[0].shape = s.model.tensors[1].shape = {1000};
      wide.resize(4000);
    }
    s.host.piece = piece;
    CHECK((data_of(s.write({{"dtype", "fp32"}}).at("model.safetensors")) == wide + wide));
    CHECK((data_of(s.write().at("model.safetensors")) == wide + s.host.tensors[0]));
    CHECK(s.host.peak_allocated <= 2 * (uint64_t{1} << 20));
  }
}

TEST_CASE("auxiliary files are placed, but never over our own") {
  Job s;
  s.add("w", DType::F32, {1}, packed<float>({1}));
  for (const char* name : {"Model.safetensors", "model.safetensors.index.json", "vocab.json"})
    s.add_aux(name, name);
  const Files files = s.write();
  CHECK(names_of(files) == std::vector<std::string>{"model.safetensors", "vocab.json"});
  CHECK(s.noted("\"Model.safetensors\" of the source is not copied"));
  CHECK(s.noted("\"model.safetensors.index.json\" of the source is not copied"));
}

TEST_CASE("cancelled") {
  Job s;
  s.add("w", DType::F32, {1}, packed<float>({1}));
  s.host.cancel = true;
  const auto files = s.run();
  REQUIRE_FALSE(files.has_value());
  CHECK(files.error().code == XD_CANCELLED);
}

TEST_CASE("every failing call of the host is passed on, and nothing is kept") {
  const uint64_t calls = test::check_every_fault([](MemoryHost& host) {
    Manifest model;
    for (const char* name : {"a", "b"}) {
      auto& tensor = model.tensors.emplace_back();
      tensor.name = name;
      tensor.dtype = DType::F32;
      tensor.shape = {5000};
      tensor.role = Role::kParameter;
      std::string values(20000, 'x');
      values.replace(0, 4, packed<float>({std::numeric_limits<float>::infinity()}));
      host.tensors.push_back(std::move(values));
    }
    auto& config = model.aux_files.emplace_back();
    config.name = "config.json";
    config.content = manifest::Bytes{R"({"dtype": "float32"})"};
    return test::run_writer(host, test::linked_plugin(host), model,
                            {{"dtype", "bf16"}, {"shard-size", "10000"}});
  });
  CHECK(calls > 20);
}

TEST_CASE("the plan is a function of model and options") {
  Job s;
  s.add("w", DType::F32, {300, 1000000}, "");  // only planned
  const auto plan = [&] {
    std::string out;
    REQUIRE(test::run_plan(s.host, test::linked_plugin(s.host), s.model, Job::with_size({})));
    for (const auto& object : s.host.plan.objects) {
      out += cat(object->path, " ", object->size);
      for (const auto& item : object->items)
        out += cat(" ", item.needs.size(), " ", item.out_bytes, " ", item.memory);
      out += "\n";
    }
    return out;
  };
  const std::string first = plan();
  CHECK(s.host.plan.objects[0]->items.size() == 5);  // 1.2 GB
  s.host.piece = 1000;
  CHECK(plan() == first);
}

TEST_CASE("a model of excluded tensors only is a file without tensors") {
  Job s;
  s.add("w", DType::F32, {1}, "abcd").excluded = "not wanted";
  CHECK(data_of(s.write().at("model.safetensors")).empty());
}
