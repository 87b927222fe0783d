// SPDX-License-Identifier: Apache-2.0

// From files' tensors to the module's and back: values held against loops over the stored ones.
#include "core/rules/compose.h"

#include "core/rules/class_names.h"
#include "tests/support/compose_rule.h"
#include "tests/unit/core_expression_values.h"
#include "tests/unit/core_test_support.h"

#include <set>

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using manifest::Manifest;
using manifest::Tensor;

namespace {

Manifest model_of(const std::vector<std::pair<std::string, std::vector<uint64_t>>>& tensors) {
  Manifest m;
  m.source.format = "f";
  for (const auto& [name, shape] : tensors) {
    const uint64_t bytes = *checked_product(shape) * 4;
    m.source.files = {{"x", 1 << 20, ""}};
    m.tensors.push_back(tensor(name.c_str(), DType::F32, shape));
    m.tensors.back().extents = {{0, 0, bytes}};
    m.tensors.back().role = manifest::Role::kParameter;
  }
  manifest::ValueMap config;
  config.entries = {{"model_type", {std::string("x")}},
                    {"architectures", {manifest::ValueList{{{std::string("X")}}}}},
                    {"rows", {int64_t{3}}},
                    {"columns", {int64_t{2}}}};
  m.source.config.kind = std::move(config);
  return m;
}

// An element of tensor number `tensor` of the source.
float value(uint64_t tensor, uint64_t i) { return static_cast<float>(tensor * 100 + i); }

struct Model {
  Manifest m;
  std::vector<Tensor> stored;
  std::vector<transform::Expression> expressions;
  std::string error;

  explicit Model(Manifest from) : m(std::move(from)), stored(m.tensors) {}

  Model& become(rules::Names names) {
    const TempDir dir;
    const auto set = rules::RuleSet::load({{put(dir / "x.textproto", kComposeRule)}, {}});
    REQUIRE(set);
    const auto rule = rules::ModuleRule::find(*set, m);
    REQUIRE(rule);
    auto composed = rules::compose(**rule, names, expressions, stored, m);
    if (!composed) {
      error = composed.error().message;
    } else if (!composed->expressions.empty()) {
      expressions = std::move(composed->expressions);
    }
    return *this;
  }
  std::vector<float> values(const std::string& target) const {
    for (size_t n = 0; n < m.tensors.size(); ++n) {
      if (m.tensors[n].target() != target) continue;
      const auto& e = expressions.empty() ? transform::stored_tensor(n, stored[n]) : expressions[n];
      return values_of(e, *checked_product(m.tensors[n].shape), value);
    }
    return {};
  }
  std::string names() const {
    std::string out = error;
    for (const Tensor& t : m.tensors) out += (out.empty() ? "" : " ") + t.target();
    return out;
  }
};

Model module_of(const std::vector<std::pair<std::string, std::vector<uint64_t>>>& tensors) {
  Model out(model_of(tensors));
  return out.become(rules::Names::kModule);
}

using Values = std::vector<float>;

}  // namespace

TEST_CASE("compose: experts are stacked, whatever order they lie in, and split again") {
  const std::vector<std::pair<std::string, std::vector<uint64_t>>> file = {
      {"m.l.0.moe.1.u", {1, 2}}, {"m.same", {2}},           {"m.l.0.moe.0.g", {1, 2}},
      {"m.l.0.moe.0.u", {1, 2}}, {"m.l.0.moe.1.g", {1, 2}}, {"m.l.0.moe.0.d", {2, 3}},
      {"m.l.0.moe.1.d", {2, 3}}};
  Model model = module_of(file);
  CHECK(model.names() == "m.l.0.gate_up m.same m.l.0.down");
  CHECK(model.values("m.l.0.gate_up") == Values{200, 201, 300, 301, 400, 401, 0, 1});
  CHECK(model.values("m.l.0.down") ==
        Values{500, 503, 501, 504, 502, 505, 600, 603, 601, 604, 602, 605});
  CHECK(model.m.tensors[0].shape == std::vector<uint64_t>{2, 2, 2});
  CHECK(model.m.tensors[2].shape == std::vector<uint64_t>{2, 3, 2});
  CHECK(
      model.m.tensors[0].expression ==
      "stack(0, concat(0, m.l.0.moe.0.g, m.l.0.moe.0.u), concat(0, m.l.0.moe.1.g, m.l.0.moe.1.u))");
  model.become(rules::Names::kFile);
  std::set<std::string> there;
  for (uint64_t i = 0; i < file.size(); ++i) {
    INFO(file[i].first);
    Values expected(*checked_product(file[i].second));
    for (uint64_t k = 0; k < expected.size(); ++k) expected[k] = value(i, k);
    CHECK(model.values(file[i].first) == expected);
    there.insert(file[i].first);
  }
  CHECK(model.m.tensors.size() == there.size());
}

TEST_CASE("compose: pieces, turned ones, mixed rows, sizes of their own") {
  const std::vector<std::pair<std::string, std::vector<uint64_t>>> file = {
      {"qkv", {12, 1}}, {"m.turned", {4, 3}}, {"m.mixed", {4, 1}}, {"ca", {3, 1}},
      {"cb", {2, 1}},   {"early.0", {1}},     {"m.old_seen", {1}}};
  Model model = module_of(file);
  CHECK(model.names() == "m.q m.k m.v m.turned m.rows m.conv m.late.1 m.seen");
  CHECK(model.values("m.q") == Values{0, 2, 1, 3});
  CHECK(model.values("m.k") == Values{4, 5, 6, 7});
  CHECK(model.values("m.v") == Values{8, 9, 10, 11});
  CHECK(model.values("m.turned") ==
        Values{100, 103, 106, 109, 101, 104, 107, 110, 102, 105, 108, 111});
  CHECK(model.values("m.rows") == Values{200, 202, 201, 203});
  CHECK(model.values("m.conv") == Values{300, 301, 302, 400, 401});
  CHECK(model.m.tensors.back().role == manifest::Role::kBuffer);
  model.become(rules::Names::kFile);
  CHECK(model.m.tensors.size() == file.size());
  for (uint64_t i = 0; i < file.size(); ++i) {
    INFO(file[i].first);
    if (file[i].first == "m.turned") continue;  // both orders are read: it stays as it is
    Values expected(*checked_product(file[i].second));
    for (uint64_t k = 0; k < expected.size(); ++k) expected[k] = value(i, k);
    CHECK(model.values(file[i].first) == expected);
  }
}

TEST_CASE("compose: what the file has of each parameter decides") {
  CHECK(module_of({{"m.l.0.moe.0.d", {2, 3}}, {"l.1.down", {1, 3, 2}}, {"m.l.2.fused", {1, 3, 2}}})
            .names() == "m.l.0.down l.1.down m.l.2.down");
  CHECK(module_of({{"l.0.moe.0.d", {2, 3}}}).names() == "m.l.0.down");  // the base class's file
  CHECK(module_of({{"m.turned", {3, 4}}}).names() == "m.turned");       // as the module has it
  CHECK(module_of({{"m.turned", {3, 4}}}).expressions.empty());
  CHECK(module_of({{"m.other", {3, 4}}}).names() == "m.other");
  Model file(model_of({{"m.l.0.moe.0.d", {2, 3}}, {"m.k", {4, 1}}}));
  CHECK(contains(file.become(rules::Names::kFile).error,
                 "expected all 3 parts of qkv, found 0: the model is incomplete"));
}

TEST_CASE("compose: refusals name the tensor") {
  CHECK(contains(
      module_of({{"m.l.0.moe.0.g", {1, 2}}, {"m.l.0.moe.1.g", {1, 2}}, {"m.l.0.moe.0.u", {1, 2}}})
          .error,
      "m.l.0.gate_up: expected m.l.0.moe.1.u, which comes with m.l.0.moe.0.g, found none"));
  CHECK(contains(module_of({{"m.l.0.moe.0.d", {2, 3}}, {"m.l.0.moe.2.d", {2, 3}}}).error,
                 "expected all parts of m.l.0.down, numbered from 0 without gaps, found "
                 "m.l.0.moe.2.d behind one"));
  CHECK(contains(module_of({{"m.l.0.moe.0.d", {2, 3}}, {"m.l.0.moe.1.d", {2, 4}}}).error,
                 "m.l.0.down: expected parts that differ in the joined dimension alone, found "
                 "m.l.0.moe.1.d of [2, 4] beside m.l.0.moe.0.d of [2, 3]"));
  CHECK(contains(module_of({{"m.l.0.moe.0.d", {2, 3}}, {"m.l.0.down", {1, 3, 2}}}).error,
                 "expected one tensor for m.l.0.down of X, found m.l.0.down and m.l.0.moe.0.d"));
  CHECK(contains(module_of({{"m.l.0.moe.0.d", {2, 3}}, {"m.l.0.fused", {1, 3, 2}}}).error,
                 "expected one tensor for m.l.0.down of X, found m.l.0.moe.0.d and m.l.0.fused"));
  CHECK(
      contains(module_of({{"m.l.0.moe.0.d", {2, 3}}, {"l.0.moe.0.d", {2, 3}}}).error,
               "expected one tensor for m.l.0.moe.0.d of X, found m.l.0.moe.0.d and l.0.moe.0.d"));
  CHECK(contains(module_of({{"qkv", {4, 1}}}).error, "in 3 equal parts, found 4"));
}

TEST_CASE("compose: what refers to tensors follows them") {
  Manifest m = model_of({{"m.l.0.moe.0.d", {2, 3}}, {"m.same", {2}}, {"early.0", {1}}});
  m.alias_groups = {{{1, 2}}, {{0, 1}}};
  Model model(m);
  model.become(rules::Names::kModule);
  CHECK(model.names() == "m.l.0.down m.same m.late.1");
  CHECK(model.m.alias_groups == std::vector<manifest::AliasGroup>{{{1, 2}}});  // a new name only
  m.training.groups = {{{0}, {}}};
  Model trained(m);
  CHECK(contains(trained.become(rules::Names::kModule).error,
                 "leave the tensors of a training state as they are, found one that changes "
                 "m.l.0.moe.0.d"));
}

TEST_CASE("compose: two layouts under one name need a size that tells them apart") {
  Manifest m = model_of({{"m.turned", {4, 3}}});
  std::get<manifest::ValueMap>(m.source.config.kind).entries.resize(2);  // no sizes
  CHECK(contains(Model(m).become(rules::Names::kModule).error,
                 "expected sizes in config.json that tell which way tensor m.turned of [4, 3] "
                 "lies, found none"));
  CHECK(contains(module_of({{"m.turned", {5, 3}}}).error, "which way tensor m.turned"));
}

TEST_CASE("compose: a rule read backwards is held against what it can mean") {
  const auto refusal = [](const std::string& operation, std::vector<uint64_t> shape = {4, 4}) {
    const TempDir dir;
    const std::string rule =
        "model_type: 'x' architecture: 'X' parameter { name: 'a' from { from: "
        "'b' op { " +
        operation + " } } }";
    const auto set = rules::RuleSet::load({{put(dir / "x.textproto", rule)}, {}});
    REQUIRE(set);
    Manifest m = model_of({{"a", shape}});
    const std::vector<Tensor> stored = m.tensors;
    const auto found = rules::ModuleRule::find(*set, m);
    const auto done = rules::compose(**found, rules::Names::kFile, {}, stored, m);
    return done ? m.tensors[0].target() : done.error().message;
  };
  CHECK(refusal("transpose: true") == "b");
  for (const char* wrong :
       {"merge { dim: 4294967295 count: 2 }", "split { dim: 4294967295 size: '2' }",
        "permute { dim: 0 dim: 0 }", "permute { dim: 7 }", "chunk { dim: 0 }", "merge { count: 0 }",
        "slice { dim: 0 begin: '0' size: '1' }"}) {
    INFO(wrong);
    CHECK(contains(refusal(wrong), "a: expected operations that can be read backwards, found "));
  }
  CHECK(contains(refusal("split { dim: 1 size: '3' size: '?' }"), "expected"));
}
