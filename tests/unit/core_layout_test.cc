// SPDX-License-Identifier: Apache-2.0
#include "core/rules/layout.h"
#include "core/rules/rope.h"
#include "core/rules/variables.h"

#include "tests/unit/core_test_support.h"

#include <cmath>
#include <cstring>

using namespace crossdock;
using namespace crossdock::rules;

namespace {

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

template <class... T>
std::vector<uint64_t> list(T... v) {
  return {static_cast<uint64_t>(v)...};
}

std::string message(const Result<uint64_t>& r) {
  return r ? std::to_string(*r) : r.error().message;
}

manifest::Value list_of(std::initializer_list<int64_t> numbers) {
  manifest::ValueList out;
  for (const int64_t n : numbers) out.values.push_back({n});
  return {out};
}

// A source of these tensors, each of two values; [4, 2] for those whose name ends with "s".
struct Laid {
  std::string text;
  std::vector<std::string> tensors;
  std::vector<manifest::KeyValue> metadata{{"a", {std::string("mine")}}, {"n", {int64_t{2}}}};
  bool keep_unmatched = false;

  // The target names in order, or the error.
  std::string run() const {
    const test::TempDir dir;
    rules::RuleFiles files;
    files.files = {test::put(dir / "x.textproto",
                             "model_type: 'mine' layout { format: 'f' when { key: 'a' equals: "
                             "'mine' } " +
                                 text + " }")};
    const auto rules = rules::RuleSet::load(files);
    if (!rules) return rules.error().message;
    manifest::Manifest m;
    m.source.format = "f/1";
    m.source.metadata = metadata;
    for (const std::string& name : tensors) {
      auto& t = m.tensors.emplace_back();
      t.name = name;
      t.dtype = manifest::DType::F32;
      t.shape = name.back() == 's' ? list(4, 2) : list(2);
      t.extents = {{0, 0, 64}};
    }
    m.source.files = {{"x", 64, ""}};
    const auto made = lay_out(
        *rules, keep_unmatched,
        [](uint64_t, uint64_t, std::span<std::byte>) -> Result<void> { return {}; }, m);
    if (!made) return made.error().message;
    std::string out;
    if (!m.aux_files.empty()) out = std::get<manifest::Bytes>(m.aux_files[0].content).data;
    std::erase_if(out, [](char c) { return c == ' ' || c == '\n'; });
    if (!out.empty()) out += ' ';
    for (const auto& t : m.tensors) out += (&t == &m.tensors[0] ? "" : " ") + t.target();
    return out;
  }
};

const std::string kWeights =
    "layers { from: 'blk.#.' number: '{n}' } tensor { to: 'e' part { from: 'e' } } "
    "tensor { to: 'l.#.w' part { from: 'blk.#.w' } } tensor { to: 'l.#.q' part { from: 'blk.#.q' } "
    "optional: 'q' } "
    "tensor { to: 'l.#.k' part { from: 'blk.#.k' } optional: 'q' } ";

}  // namespace

TEST_CASE("layout: what a model must have") {
  const auto run = [](std::vector<std::string> tensors, int64_t n = 2,
                      bool keep_unmatched = false) {
    return Laid{
        kWeights, std::move(tensors), {{"a", {std::string("mine")}}, {"n", {n}}}, keep_unmatched}
        .run();
  };
  const std::string incomplete = ": the file is incomplete, download or convert it again";
  CHECK(run({"e", "blk.0.w", "blk.1.w"}) == "e l.0.w l.1.w");
  CHECK(run({"e", "blk.0.w", "blk.0.q", "blk.0.k", "blk.1.w", "blk.1.q", "blk.1.k"}) ==
        "e l.0.w l.0.q l.0.k l.1.w l.1.q l.1.k");
  CHECK(run({"blk.0.w", "blk.1.w"}) ==
        "rule mine: expected e, which every model of mine has, found none" + incomplete);
  CHECK(run({"e", "blk.1.w"}) ==
        "rule mine: expected blk.0.w, which every layer of mine has, found none" + incomplete);
  CHECK(run({"e", "blk.0.w"}) ==
        "rule mine: expected 2 layers blk.#., which is what the metadata says ({n}), found the "
        "tensors of 1" +
            incomplete);
  CHECK(contains(run({"e", "blk.0.w", "blk.1.w", "blk.2.w"}),
                 "expected 2 layers blk.#., which is what the metadata"));
  CHECK(contains(run({"e", "blk.0.w", "blk.1.w", "blk.2.w"}),
                 "found the tensors of 3: the tensors are not this"));
  CHECK(contains(run({"e", "blk.0.w", "blk.1.w"}, 1'000'000'000'000),
                 "expected 1000000000000 layers"));
  CHECK(contains(run({"e", "blk.0.w", "blk.0.q", "blk.0.k", "blk.1.w"}),
                 "expected blk.1.q, which comes with blk.0.q, found none" + incomplete));
  CHECK(contains(run({"e", "blk.0.w", "blk.0.q", "blk.1.w", "blk.1.q", "blk.1.k"}),
                 "expected blk.0.k, which comes with blk.0.q, found none" + incomplete));
  CHECK(contains(run({"e", "blk.0.w", "blk.0.k", "blk.1.w", "blk.1.k"}),
                 "expected blk.0.q, which comes with blk.0.k, found none" + incomplete));
  // Nothing that --keep-unmatched would mend.
  CHECK(contains(run({"e", "blk.0.w", "blk.1.x"}, 2, true),
                 "expected blk.1.w, which every layer of mine has, found none, and no rule for "
                 "\"blk.1.x\": the file "
                 "is incomplete, or of a kind that needs rules of its own (--rules)"));
  CHECK(run({"e", "blk.0.w", "blk.1.w", "x"}, 2, true) == "e l.0.w l.1.w x");
  CHECK(contains(Laid{kWeights, {"e", "blk.0.w"}, {{"a", {std::string("mine")}}}}.run(),
                 "expected the metadata n, found none"));
  CHECK(run({}) ==
        "expected a model, found no tensors, only metadata such as a vocabulary: name the file of "
        "weights");
}

TEST_CASE("layout: without a number of layers, those of the tensors") {
  const std::string rule =
      "tensor { to: 'l.#.w' part { from: 'blk.#.w' } } tensor { to: 'o' part { from: 'o.7.x' } }";
  CHECK(Laid{rule, {"blk.0.w", "blk.1.w", "o.7.x"}}.run() == "l.0.w l.1.w o");
  CHECK(contains(Laid{rule, {"blk.1.w", "o.7.x"}}.run(), "expected blk.0.w, which every layer"));
  CHECK(contains(Laid{rule, {"o.7.x"}}.run(), "expected blk.0.w, which every layer"));
}

TEST_CASE("layout: conditions of a layer") {
  const std::string rule =
      "layers { from: 'blk.#.' number: '{n}' } "
      "tensor { to: 'l.#.attn' part { from: 'blk.#.attn' } when { key: 'kv' positive: true } } "
      "tensor { to: 'l.#.conv' part { from: 'blk.#.conv' } when { key: 'kv' positive: false } } "
      "tensor { to: 'l.#.b' part { from: 'blk.#.b' } optional: 'q' when { key: 'kv' positive: "
      "false } } ";
  const auto run = [&](std::vector<std::string> tensors) {
    return Laid{rule,
                std::move(tensors),
                {{"a", {std::string("mine")}}, {"n", {int64_t{3}}}, {"kv", list_of({0, 2, 0})}}}
        .run();
  };
  CHECK(run({"blk.0.conv", "blk.1.attn", "blk.2.conv"}) == "l.0.conv l.1.attn l.2.conv");
  CHECK(run({"blk.0.conv", "blk.0.b", "blk.1.attn", "blk.2.conv", "blk.2.b"}) ==
        "l.0.conv l.0.b l.1.attn l.2.conv l.2.b");
  CHECK(contains(run({"blk.0.conv", "blk.0.b", "blk.1.attn", "blk.2.conv"}),
                 "expected blk.2.b, which comes with blk.0.b"));
  CHECK(contains(run({"blk.0.conv", "blk.1.conv", "blk.2.conv"}),
                 "expected blk.1.attn, which such a layer of mine has"));
}

TEST_CASE("layout: experts, stored together or alone") {
  const std::string rule =
      "tensor { to: 'l.#.e.##' part { from: 'blk.#.exps' } op { unstack: true } count: '{n}*2' "
      "if_lacks: 'blk.0.e.0.w' "
      "} "
      "tensor { to: 'l.#.e.##' part { from: 'blk.#.e.##.w' } count: '{n}*2' if_has: 'blk.0.e.0.w' "
      "} ";
  const auto alone = [](uint64_t n) {
    std::vector<std::string> out;
    for (uint64_t i = 0; i < n; ++i) out.push_back(cat("blk.0.e.", i, ".w"));
    return out;
  };
  CHECK(Laid{rule, {"blk.0.exps"}}.run() == "l.0.e.0 l.0.e.1 l.0.e.2 l.0.e.3");
  CHECK(Laid{rule, alone(4)}.run() == "l.0.e.0 l.0.e.1 l.0.e.2 l.0.e.3");
  CHECK(contains(Laid{rule, alone(3)}.run(),
                 "expected blk.0.e.3.w, which such a layer of mine has, found none"));
  CHECK(contains(Laid{rule, alone(5)}.run(),
                 "expected a rule for every tensor, found none for \"blk.0.e.4.w\""));
  auto three = Laid{rule, {"blk.0.exps"}};
  three.metadata[1].value = {int64_t{3}};
  CHECK(contains(three.run(), "expected 6 ({n}*2) to unstack, found 4"));
  const std::string any = "tensor { to: 'e.##' part { from: 'x.##' } }";
  CHECK(Laid{any, {"x.0", "x.1", "x.2"}}.run() == "e.0 e.1 e.2");
  CHECK(contains(Laid{any, {"x.1"}}.run(),
                 "expected x.0, which every model of mine has, found none"));
  for (const char* wrong : {"tensor { to: 'e' part { from: 'x.##' } }",
                            "tensor { to: 'e.##' part { from: 'x.##.s' } op { unstack: true } }"})
    CHECK(contains(Laid{wrong, {"x.0"}}.run(), "expected '##' in the name of what unstack makes"));
}

TEST_CASE("layout: a list in the metadata that is one value for all layers") {
  const std::string rule =
      kWeights + "config { key: 'kv' from: 'kv' } config { key: 'd' number: '{kv}*2' }";
  const auto run = [&](manifest::Value kv) {
    return Laid{rule,
                {"e", "blk.0.w", "blk.1.w"},
                {{"a", {std::string("mine")}}, {"n", {int64_t{2}}}, {"kv", std::move(kv)}}}
        .run();
  };
  CHECK(run(list_of({4, 4})) == "{\"kv\":4,\"d\":8} e l.0.w l.1.w");
  CHECK(run(list_of({4, 4})) == run({int64_t{4}}));
  CHECK(contains(run(list_of({4, 4, 5})), "config kv: expected kv to be the same for all layers"));
  CHECK(contains(run(list_of({4, 4, 5})), "found that of layer 2 to differ from that of layer 0"));
  CHECK(run(list_of({})) == "{} e l.0.w l.1.w");
}

TEST_CASE("layout: what is no model") {
  const std::string other =
      "} layout { format: 'f' when { key: 'kind' equals: 'adapter' } refused: 'an adapter' ";
  auto laid = Laid{kWeights + other, {"e", "blk.0.w", "blk.1.w"}};
  CHECK(laid.run() == "e l.0.w l.1.w");
  laid.metadata.push_back({"kind", {std::string("adapter")}});
  laid.keep_unmatched = true;
  CHECK(laid.run() == "expected a model, found an adapter");
  auto present =
      Laid{kWeights + "} layout { format: 'f' when { key: 'n' present: true } refused: 'a thing' ",
           {"e"}};
  CHECK(present.run() == "expected a model, found a thing");
  present.metadata.pop_back();
  CHECK(contains(present.run(), "expected the metadata n, found none"));
}

TEST_CASE("layout: only for files with a tensor") {
  const std::string marked = "if_has: 'e' tensor { to: 'E' part { from: 'e' } }";
  CHECK(Laid{marked, {"e"}}.run() == "E");
  CHECK(Laid{marked, {"f"}}.run() == "f");
  CHECK(contains(Laid{"tensor { to: 'E' part { from: 'e' } }", {"f"}}.run(), "expected e"));
}

TEST_CASE("variables: numbers of metadata") {
  manifest::ValueList heads;
  for (const int64_t n : {8, 0, 4}) heads.values.push_back({n});
  manifest::Manifest m;
  m.source.metadata = {{"a", {int64_t{12}}},
                       {"b", {int64_t{4}}},
                       {"list", {heads}},
                       {"text", {std::string("x")}},
                       {"minus", {int64_t{-1}}}};
  rules::v1::Layout layout;
  const auto let = [&](const char* name, const char* value) {
    auto* added = layout.add_let();
    added->set_name(name);
    added->set_value(value);
  };
  let("self", "{self}");
  let("size", "{a}/{b}");
  let("twice", "2*{size}");
  const Facts facts(m);
  const Variables v(facts, layout);
  const auto number = [&](const std::string& text, uint64_t layer = 0) {
    return message(v.number(text, layer));
  };
  CHECK(number("7") == "7");
  CHECK(number("{a}/{b}*5+1") == "16");
  CHECK(number("{none|b}") == "4");
  CHECK(number("{twice}") == "6");
  CHECK(number("12/{size}") == "4");
  CHECK(number("{list}", 2) == "4");
  CHECK(contains(number("{list}", kNoLayer), "expected list to be the same for all layers"));
  CHECK(contains(number("{list}", 3), "expected list to have an element for layer 3, found 3"));
  CHECK(contains(number("{self}"), "expected the metadata self, found none"));
  CHECK(contains(number("{b}/{a}"), "to divide evenly, found 4 / 12"));
  CHECK(contains(number("1/0"), "to divide evenly"));
  CHECK(contains(number("{text}"), "expected text to be an integer of 0 or more"));
  CHECK(contains(number("{minus}"), "expected minus to be an integer of 0 or more"));
  CHECK(contains(number("18446744073709551615*2"), "expected a product below 2^64"));
  CHECK(contains(number("18446744073709551615+1"), "expected a sum below 2^64"));
  for (const char* wrong : {"", "x", "1*", "*1", "{a", "1 2", "1++2", "-1", "{a}{b}"})
    CHECK(contains(number(wrong), "expected a number such as"));
}

TEST_CASE("Llama 3's scaling from its factors") {
  // By the definition: turns within the original context decide.
  const auto factors_of = [](double factor, double low, double high, double original, size_t n,
                             double base) {
    std::vector<float> out;
    for (size_t i = 0; i < n; ++i) {
      const double turns =
          original / (2 * M_PI * std::pow(base, static_cast<double>(i) / static_cast<double>(n)));
      const double smooth = std::clamp((turns - low) / (high - low), 0.0, 1.0);
      out.push_back(static_cast<float>(1 / ((1 - smooth) / factor + smooth)));
    }
    return out;
  };
  const auto found = [](const std::vector<float>& factors, double base) -> std::string {
    const auto s = find_llama3_scaling(factors, base);
    if (!s) return "none";
    return cat(s->factor, " ", s->low_freq_factor, " ", s->high_freq_factor, " ",
               s->original_max_position_embeddings);
  };
  CHECK(found(factors_of(8, 1, 4, 8192, 64, 5e5), 5e5) ==
        cat(8.0, " ", 1.0, " ", 4.0, " ", 8192.0));
  CHECK(found(factors_of(32, 1, 4, 8192, 32, 5e5), 5e5) ==
        cat(32.0, " ", 1.0, " ", 4.0, " ", 8192.0));
  CHECK(found(factors_of(16, 2, 3, 4096, 64, 1e4), 1e4) ==
        cat(16.0, " ", 1.0, " ", 1.5, " ", 2048.0));  // the same ratios
  CHECK(found(factors_of(8, 1, 4, 8192, 64, 5e5), 4e5) == "none");
  auto wrong = factors_of(8, 1, 4, 8192, 64, 5e5);
  wrong[0] = 1.01f;
  CHECK(found(wrong, 5e5) == "none");
  for (const float v : {1.0f, 8.0f, 0.5f, 0.0f, -1.0f, NAN, INFINITY})
    CHECK(found(std::vector<float>(64, v), 5e5) == "none");
  CHECK(found({1, 2, 3, 4, 8}, 1e4) == "none");
  CHECK(found(wrong, NAN) == "none");
  CHECK(found({}, 1e4) == "none");
}
