// SPDX-License-Identifier: Apache-2.0

// What layout rules make of values: each tensor held against loops over the stored ones.
#include "core/rules/layout.h"

#include "tests/unit/core_expression_values.h"
#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::rules;
using manifest::DType;
using manifest::Manifest;
using manifest::Tensor;

namespace {

constexpr uint64_t kExperts = 3, kRows = 4, kColumns = 5;

// An element of tensor number `tensor` of the source.
float value(uint64_t tensor, uint64_t i) { return static_cast<float>(tensor * 1000 + i); }

// A source of F32 tensors [4, 5] with these names, in the format "f".
Manifest source(const std::vector<std::string>& names) {
  Manifest m;
  m.source.format = "f";
  m.source.files = {{"x", kRows * kColumns * 4, ""}};
  for (const std::string& name : names) {
    m.tensors.push_back(test::tensor(name, DType::F32, {kRows, kColumns}));
    m.tensors.back().extents = {{0, 0, kRows * kColumns * 4}};
  }
  return m;
}

struct Made {
  Manifest manifest;
  std::vector<transform::Expression> expressions;
  std::string error;

  const Tensor* find(const std::string& target) const {
    for (const Tensor& t : manifest.tensors) {
      if (t.target() == target) return &t;
    }
    return nullptr;
  }
  std::string names() const {
    std::string out = error;
    for (const Tensor& t : manifest.tensors) out += (out.empty() ? "" : " ") + t.target();
    return out;
  }
  std::vector<float> values(const std::string& target) const {
    const Tensor* t = find(target);
    REQUIRE(t);
    const auto& expression = expressions[static_cast<size_t>(t - manifest.tensors.data())];
    return test::values_of(expression, *checked_product(t->shape), value);
  }
};

Made make(Manifest m, const std::string& layout, bool keep_unmatched = false) {
  const test::TempDir dir;
  const auto rules = rules::RuleSet::load(
      {{test::put(dir / "x.textproto", "model_type: 'mine' layout { " + layout + " }")}, {}});
  if (!rules) return {{}, {}, rules.error().message};
  const ReadTensor none = [](uint64_t, uint64_t, std::span<std::byte>) { return Result<void>(); };
  auto made = lay_out(*rules, keep_unmatched, none, m);
  if (!made) return {{}, {}, made.error().message};
  return {std::move(m), std::move(made->expressions), {}};
}

std::vector<std::string> experts() {
  std::vector<std::string> out;
  for (uint64_t e = 0; e < kExperts; ++e) {
    out.push_back(cat("l.0.e.", e, ".gate"));
    out.push_back(cat("l.0.e.", e, ".up"));
  }
  return out;
}

// Of the source's tensors by their places in experts().
float gate(uint64_t e, uint64_t row, uint64_t column) {
  return value(2 * e, row * kColumns + column);
}
float up(uint64_t e, uint64_t row, uint64_t column) {
  return value(2 * e + 1, row * kColumns + column);
}

}  // namespace

TEST_CASE("rules: experts stacked, then gate and up concatenated") {
  const Made made = make(source(experts()), R"(format: 'f' tensor {
      to: 'm.#.gate_up'
      part { part { from: 'l.#.e.##.gate' } stack: true }
      part { part { from: 'l.#.e.##.up' } stack: true }
      concat: 1
      op { permute { dim: 0 dim: 2 dim: 1 } } })");
  REQUIRE(made.names() == "m.0.gate_up");
  const Tensor& t = *made.find("m.0.gate_up");
  CHECK(t.shape == std::vector<uint64_t>{kExperts, kColumns, 2 * kRows});
  CHECK(t.expression ==
        "permute([0, 2, 1], concat(1, stack(0, l.0.e.0.gate, l.0.e.1.gate, l.0.e.2.gate), "
        "stack(0, l.0.e.0.up, l.0.e.1.up, l.0.e.2.up)))");
  CHECK(t.name == "l.0.e.0.gate+...+l.0.e.2.up");
  std::vector<float> want;
  for (uint64_t e = 0; e < kExperts; ++e) {
    for (uint64_t column = 0; column < kColumns; ++column) {
      for (uint64_t row = 0; row < 2 * kRows; ++row)
        want.push_back(row < kRows ? gate(e, row, column) : up(e, row - kRows, column));
    }
  }
  CHECK(made.values("m.0.gate_up") == want);
}

TEST_CASE("rules: gate and up of each expert concatenated, then stacked") {
  // Two neighbours of each row of gate and up, turned over.
  const Made made = make(source(experts()), R"(format: 'f' tensor {
      to: 'm.#.gate_up'
      part {
        part { from: 'l.#.e.##.gate' op { slice { dim: 1 begin: '1' size: '2' } } }
        part { from: 'l.#.e.##.up' op { slice { dim: 1 begin: '0' size: '2' } } }
        concat: 0
        op { transpose: true }
      }
      stack: true
      op { add: 0.5 } })");
  REQUIRE(made.names() == "m.0.gate_up");
  CHECK(made.find("m.0.gate_up")->shape == std::vector<uint64_t>{kExperts, 2, 2 * kRows});
  std::vector<float> want;
  for (uint64_t e = 0; e < kExperts; ++e) {
    for (uint64_t column = 0; column < 2; ++column) {
      for (uint64_t row = 0; row < kRows; ++row) want.push_back(gate(e, row, column + 1) + 0.5f);
      for (uint64_t row = 0; row < kRows; ++row) want.push_back(up(e, row, column) + 0.5f);
    }
  }
  CHECK(made.values("m.0.gate_up") == want);
}

TEST_CASE("rules: a tensor for each expert, of several; and what a join is taken apart to") {
  const Made made = make(source(experts()), R"(format: 'f'
      tensor { to: 'one.#.##' part { from: 'l.#.e.##.up' } part { from: 'l.#.e.##.gate' } concat: 1 }
      tensor { to: 'row.#.##' part { from: 'l.#.e.0.gate' } part { from: 'l.#.e.1.gate' }
               concat: 1 op { unstack: true } })");
  REQUIRE(made.names() == "row.0.0 row.0.1 row.0.2 row.0.3 one.0.0 one.0.1 one.0.2");
  for (uint64_t e = 0; e < kExperts; ++e) {
    std::vector<float> want;
    for (uint64_t row = 0; row < kRows; ++row) {
      for (uint64_t column = 0; column < kColumns; ++column) want.push_back(up(e, row, column));
      for (uint64_t column = 0; column < kColumns; ++column) want.push_back(gate(e, row, column));
    }
    CHECK(made.values(cat("one.0.", e)) == want);
  }
  std::vector<float> row;
  for (const uint64_t e : {0, 1}) {
    for (uint64_t column = 0; column < kColumns; ++column) row.push_back(gate(e, 2, column));
  }
  CHECK(made.values("row.0.2") == row);
  CHECK(made.find("row.0.2")->expression == "select(0, 2, concat(1, l.0.e.0.gate, l.0.e.1.gate))");
}

TEST_CASE("rules: changes of values come in their order") {
  const Made made = make(source({"w"}), R"(format: 'f' tensor { to: 'v' part {
      from: 'w' op { add: -5000 } op { transpose: true } op { log_of_negated: true } op { add: 1 } } })");
  REQUIRE(made.names() == "v");
  CHECK(made.find("v")->expression == "add(1, log_of_negated(add(-5000, transpose(w))))");
  std::vector<float> want;
  for (uint64_t column = 0; column < kColumns; ++column) {
    for (uint64_t row = 0; row < kRows; ++row)
      want.push_back(
          static_cast<float>(std::log(-double{value(0, row * kColumns + column) - 5000})) + 1);
  }
  CHECK(made.values("v") == want);
}

TEST_CASE("rules: a tensor with strides") {
  Manifest m = source({"w"});
  m.tensors[0].shape = {kColumns, kRows};  // as .T of what is stored
  m.tensors[0].strides = {1, kColumns};
  m.tensors[0].storage_elements = kRows * kColumns;
  const Made made = make(
      m, "format: 'f' tensor { to: 'v' part { from: 'w' op { slice { begin: '1' size: '2' } } } }");
  REQUIRE(made.names() == "v");
  CHECK(made.find("v")->expression == "slice(0, 1, 2, strided([1, 5], w))");
  CHECK(made.find("v")->strides.empty());
  std::vector<float> want;
  for (const uint64_t column : {1, 2}) {
    for (uint64_t row = 0; row < kRows; ++row) want.push_back(value(0, row * kColumns + column));
  }
  CHECK(made.values("v") == want);
}

TEST_CASE("rules: joins that are none") {
  const auto error = [](const std::string& rule) {
    return make(source(experts()), "format: 'f' tensor { " + rule + " }").error;
  };
  const auto has = [](const std::string& text, const char* part) {
    INFO(text);
    return text.find(part) != std::string::npos;
  };
  CHECK(has(error("to: 'x' part { part { from: 'l.0.e.0.up' } part { from: 'l.0.e.1.up' } }"),
            "expected concat or stack for 2 tensors, found neither"));
  CHECK(has(error("to: 'x' part { stack: true }"), "expected a part with `from` or with parts"));
  CHECK(has(error("to: 'x' part { part { from: 'l.0.e.##.up' } }"),
            "expected '##' in the name of what unstack makes"));
  CHECK(has(error("to: 'x.##' part { part { from: 'l.0.e.##.up' } stack: true }"),
            "expected '##' in the name of what unstack makes"));
  CHECK(has(error("to: 'x' part { part { part { from: 'l.#.e.##.up' } stack: true } }"),
            "expected '#' for the layer in both names or in none, found l.#.e.##.up"));
  CHECK(has(error("to: 'x' part { part { from: 'l.0.e.##.no' } part { from: 'l.0.e.##.up' } "
                  "concat: 0 } stack: true"),
            "expected l.0.e.0.no, which every model of mine has, found none"));
  CHECK(has(error("to: 'x' part { part { from: 'l.0.e.##.up' } stack: true } "
                  "part { from: 'l.0.e.0.gate' } concat: 0"),
            "expected parts that differ in the joined dimension alone"));
  CHECK(has(error("to: 'x' part { from: 'l.0.e.0.up' op { unstack: true } }"),
            "from l.0.e.0.up: expected an operation, found unstack in a part"));
}

TEST_CASE("rules: a source that no layout is for") {
  const std::string when = " when { key: 'config.model_type' equals: 'other' } ";
  const std::string rule = "tensor { to: 'v' part { from: 'w' } }";
  CHECK(make(source({"w"}), "format: 'g'" + when + rule).expressions.empty());
  CHECK(make(source({"w"}), "format: 'f'" + when + rule)
            .error.starts_with("expected an architecture that there is a layout rule for"));
  CHECK(make(source({"w"}), "format: 'f'" + when + rule, true).names() == "w");
}

TEST_CASE("rules: conditions and variables of config.json") {
  Manifest m = source({"w"});
  manifest::ValueMap scaling{{{"factor", {int64_t{2}}}}}, nested{{{"rows", {2.0}}}};
  m.source.config = {manifest::ValueMap{{{"model_type", {std::string("mine")}},
                                         {"rope_scaling", {scaling}},
                                         {"text_config", {nested}},
                                         {"nothing", {manifest::Null{}}}}}};
  m.source.metadata = {{"rows", {int64_t{9}}}};
  const std::string when =
      "format: 'f' when { key: 'config.model_type' equals: 'mine' } "
      "when { key: 'config.nothing' present: false } "
      "when { key: 'model_type' present: false } ";
  const Made made =
      make(m, when +
                  "tensor { to: 'v' part { from: 'w' op { split { dim: 0 size: "
                  "'{config.rope_scaling.factor}' size: '{config.none|config.rows}' } } } "
                  "when { key: 'config.rope_scaling.factor' positive: true } }");
  REQUIRE(made.names() == "v");
  CHECK(made.find("v")->shape == std::vector<uint64_t>{2, 2, kColumns});
  CHECK(make(m, when + "tensor { to: 'v' part { from: 'w' op { split { dim: 0 size: "
                       "'{config.rope_scaling.other}' size: '?' } } } }")
            .error == "rule mine: v: expected the metadata config.rope_scaling.other, found none");
}

TEST_CASE("rules: what refers to tensors follows them") {
  const std::string layout =
      "format: 'f' tensor { to: 'ab' part { from: 'b' } part { from: 'a' } concat: 0 "
      "} "
      "tensor { to: 'renamed' part { from: 'd' } } "
      "tensor { to: 'turned' part { from: 'e' op { transpose: true } } }";
  Manifest m = source({"x", "a", "b", "c", "d", "e", "f"});
  m.alias_groups = {{{0, 1}}, {{3, 4, 5}}, {{6, 1, 0}}};
  m.module = {{"f", 6}};
  const Made made = make(m, layout, true);
  REQUIRE(made.names() == "x ab c renamed turned f");
  CHECK(made.manifest.alias_groups == std::vector<manifest::AliasGroup>{{{2, 3}}, {{5, 0}}});
  CHECK(made.manifest.module == std::vector<manifest::ModuleName>{{"f", 5}});
  m.module = {{"a", 1}};
  m.training.groups = {{{6}, {}}};
  const Made other = make(m, layout, true);
  CHECK(other.manifest.module.empty());
  CHECK(other.manifest.training == manifest::TrainingState());
}

TEST_CASE("rules: after an error the model is as it was") {
  Manifest m = source({"a", "b", "a+b"});
  m.module = {{"a", 0}};
  const Manifest before = m;
  const test::TempDir dir;
  // The name of a tensor that rules do not take is not made a second time.
  const auto rules = rules::RuleSet::load(
      {{test::put(dir / "x.textproto",
                  "layout { format: 'f' tensor { to: 'c' part { from: 'a' } part { from: 'b' } "
                  "concat: 0 } }")},
       {}});
  REQUIRE(rules);
  const ReadTensor none = [](uint64_t, uint64_t, std::span<std::byte>) { return Result<void>(); };
  CHECK_FALSE(lay_out(*rules, true, none, m));
  CHECK(m == before);
}
