// SPDX-License-Identifier: Apache-2.0
#include "core/rules/config_check.h"

#include "core/rules/class_names.h"

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using manifest::Manifest;

namespace {

constexpr char kRule[] = R"(
model_type: "toy" architecture: "ToyForCausalLM"
parameter { name: "embed.weight" dim: "vocab_size" dim: "hidden_size" }
parameter { name: "layers.#.block.1.w" dim: "?" dim: "hidden_size" }
parameter { name: "layers.#.norms.##.weight" dim: "hidden_size" optional: "norms" }
parameter { name: "free" }
layers { prefix: "layers." count: "num_layers" }
renamed { from: "gamma$" to: "weight" }
)";

// A model of two layers that fits its config.json.
Manifest toy() {
  Manifest m;
  m.tensors = {tensor("embed.weight", DType::F32, {10, 4}),
               tensor("layers.0.block.1.w", DType::F32, {3, 4}),
               tensor("layers.1.block.1.w", DType::F32, {7, 4}),
               tensor("layers.0.norms.0.weight", DType::F32, {4}),
               tensor("free", DType::F32, {9, 9, 9}),
               tensor("unknown", DType::F32, {1})};
  manifest::ValueMap config;
  const manifest::ValueList classes{{{std::string("ToyForCausalLM")}}};
  config.entries = {{"model_type", {std::string("toy")}},
                    {"architectures", {classes}},
                    {"vocab_size", {int64_t{10}}},
                    {"hidden_size", {int64_t{4}}},
                    {"num_layers", {int64_t{2}}}};
  m.source.config = {config};
  return m;
}

std::string verdict(Manifest m, bool ignore_sizes = false) {
  const TempDir dir;
  const auto set = rules::RuleSet::load({{put(dir / "toy.textproto", kRule)}, {}});
  REQUIRE(set);
  const auto rule = rules::ModuleRule::find(*set, m);
  REQUIRE(rule);
  if (!*rule) return "no rule";
  std::vector<std::string> notes;
  REQUIRE(rules::give_class_names(**rule, m, notes));
  const auto result = rules::check_against_config(**rule, m, ignore_sizes);
  return result ? "fits" : result.error().message;
}

}  // namespace

TEST_CASE("a model that fits its config.json") {
  CHECK(verdict(toy()) == "fits");
  Manifest without = toy();
  without.source.config = {};
  CHECK(verdict(without) == "no rule");
}

TEST_CASE(
    "sizes that are not those of config.json are refused by both numbers, unless they are to be "
    "ignored") {
  Manifest m = toy();
  m.tensors[0].shape = {11, 4};
  CHECK(contains(verdict(m),
                 "tensor embed.weight: expected 10 in dimension 0, as vocab_size of config.json "
                 "says, found 11"));
  CHECK(contains(verdict(m), "--ignore-config-mismatch"));
  CHECK(verdict(m, true) == "fits");
  m = toy();
  m.tensors[2].shape = {7, 5};
  CHECK(
      contains(verdict(m), "tensor layers.1.block.1.w: expected 4 in dimension 1, as hidden_size"));
  m = toy();
  m.tensors[3].shape = {5};
  CHECK(contains(verdict(m), "layers.0.norms.0.weight: expected 4 in dimension 0"));
  m.tensors[3].name = "layers.0.norms.0.gamma";  // an old name of it
  CHECK(contains(verdict(m), "layers.0.norms.0.gamma: expected 4 in dimension 0"));
}

TEST_CASE("the number of dimensions is the class's, whatever is to be ignored") {
  Manifest m = toy();
  m.tensors[1].shape = {1};
  CHECK(
      contains(verdict(m, true),
               "tensor layers.0.block.1.w: expected 2 dimensions, as ToyForCausalLM has, found 1"));
  CHECK(contains(verdict(m, true), "DeepSpeed checkpoint, the folder that holds `latest`"));
}

TEST_CASE("layers that lack, or are too many") {
  Manifest m = toy();
  m.tensors.erase(m.tensors.begin() + 2);
  CHECK(contains(verdict(m),
                 "expected 2 layers, as num_layers of config.json says, found 1 (layers.0 to 0)"));
  CHECK(verdict(m, true) == "fits");
  m = toy();
  m.tensors.push_back(tensor("layers.2.block.1.w", DType::F32, {3, 4}));
  CHECK(contains(verdict(m), "found 3 (layers.0 to 2)"));
  m = toy();
  m.tensors[2].name = "layers.5.block.1.w";
  CHECK(contains(verdict(m), "found 2 (layers.0 to 5, with gaps)"));
}
