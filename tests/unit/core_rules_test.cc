// SPDX-License-Identifier: Apache-2.0

// Rules for the modules of classes: names, order, tied names, what is left out, and the optimizer's
// groups.
#include "core/rules/module.h"

#include "core/rules/class_names.h"
#include "core/rules/config_check.h"
#include "core/rules/param_groups.h"

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using manifest::Manifest;

namespace {

// The class, most of which is the member x.
constexpr char kRule[] = R"(
  model_type: "x" architecture: "XForCausalLM"
  parameter { name: "out.weight" }
  base { architecture: "XModel" prefix: "x." without: "^pooler" }
  tied { name: "out.weight" to: "x.in.weight" when: "tie" by_default: true }
  excluded { name: "inv_freq$" reason: "computed" }
  excluded { name: "^pooler\\." reason: "a head of old" }
  renamed { from: "^old\\." to: "x.in." })";

constexpr char kBase[] = R"(
  model_type: "x" architecture: "XModel"
  parameter { name: "in.weight" }
  parameter { name: "h.#.ln.weight" no_decay: true }
  parameter { name: "h.#.w" }
  parameter { name: "h.#.bias" optional: "bias" }
  parameter { name: "pooler.w" optional: "pooler" }
  buffer { name: "h.#.seen" }
  base { prefix: "x." }
  excluded { name: "^out\\." reason: "a head" }
  renamed { from: "ln\\.gamma$" to: "ln.weight" })";

Manifest of(std::initializer_list<const char*> names) {
  Manifest m;
  for (const char* name : names) {
    m.tensors.push_back(tensor(name, DType::BF16, {4, 2}));
    m.tensors.back().role = manifest::Role::kParameter;
  }
  return m;
}

Manifest model_of(std::initializer_list<const char*> names, std::optional<bool> tie = {},
                  const char* class_name = "XForCausalLM") {
  Manifest m = of(names);
  manifest::ValueMap config;
  config.entries = {{"model_type", {std::string("x")}},
                    {"architectures", {manifest::ValueList{{{std::string(class_name)}}}}}};
  if (tie) config.entries.push_back({"tie", {*tie}});
  m.source.config.kind = std::move(config);
  return m;
}

rules::RuleSet set_of(const std::string& text) {
  const TempDir dir;
  auto set = rules::RuleSet::load(
      {{put(dir / "x.textproto", text), put(dir / "base.textproto", kBase)}, {dir / "none"}});
  if (!set) FAIL(set.error().message);
  return *std::move(set);
}

// The names that the tensors get, "-" for one that is left out, and the notes; or the refusal.
std::string named(Manifest m, const std::string& text = kRule) {
  const auto set = set_of(text);
  const auto rule = rules::ModuleRule::find(set, m);
  if (!rule) return rule.error().message;
  if (!*rule) return "no rule";
  std::vector<std::string> notes;
  if (const auto r = rules::give_class_names(**rule, m, notes); !r) return r.error().message;
  std::string out;
  for (const auto& t : m.tensors)
    out += (out.empty() ? "" : " ") + (t.excluded.empty() ? t.target() : "-");
  for (const std::string& note : notes) out += " | " + note;
  for (const auto& group : rules::find_tied(**rule, m)) {
    out += " |";
    for (const uint64_t i : group.tensors) out += cat(" ", i);
  }
  return out;
}

// The names of the module, and the parameters of each group of the Trainer; or the refusal.
std::string described(Manifest m, const std::string& text = kRule) {
  const auto set = set_of(text);
  const auto rule = rules::ModuleRule::find(set, m);
  if (!rule) return rule.error().message;
  if (!*rule) return rules::no_module_rule(m).message;
  std::vector<std::string> notes;
  if (const auto r = rules::give_class_names(**rule, m, notes); !r) return r.error().message;
  auto module = rules::describe_module(**rule, m);
  if (!module) return module.error().message;
  REQUIRE(rules::add_param_groups("hf-trainer", **rule, *module));
  std::string out;
  for (const auto& t : module->tensors) out += t.name + " ";
  for (const auto& group : module->training.groups) {
    out += "|";
    for (const uint64_t i : group.tensors) out += cat(" ", i);
  }
  return out;
}

}  // namespace

TEST_CASE("names of the base class get its prefix, and names of old today's") {
  CHECK(named(model_of({"x.in.weight", "x.h.0.w"})) == "x.in.weight x.h.0.w");
  CHECK(contains(named(model_of({"in.weight", "h.0.w", "h.10.ln.weight"})),
                 "x.in.weight x.h.0.w x.h.10.ln.weight | 3 of 3 names became those of "
                 "XForCausalLM in transformers 5: in.weight is x.in.weight."));
  CHECK(named(model_of({"h.0.ln.gamma", "x.h.1.ln.gamma", "old.weight"}))
            .starts_with("x.h.0.ln.weight x.h.1.ln.weight x.in.weight |"));
  // Per tensor: what the class has under its own name stays, whatever its neighbours are called.
  CHECK(named(model_of({"x.in.weight", "h.0.w"})).starts_with("x.in.weight x.h.0.w |"));
  // What the rule does not know stays.
  CHECK(named(model_of({"x.in.weight", "gamma", "more.ln.gamma"})) ==
        "x.in.weight gamma more.ln.gamma");
}

TEST_CASE("the base class has the parameters below its prefix, and loses it") {
  const auto base = [](std::initializer_list<const char*> names) {
    return model_of(names, {}, "XModel");
  };
  CHECK(named(base({"in.weight", "h.0.w"})) == "in.weight h.0.w");
  CHECK(named(base({"x.in.weight", "x.h.0.ln.gamma", "out.weight"})) ==
        "in.weight h.0.ln.weight - | 2 of 3 names became those of XModel in transformers 5: "
        "x.in.weight is in.weight. | Left out: out.weight: a head.");
  CHECK(named(base({"pooler.w"})) == "pooler.w");
  CHECK(described(base({"h.0.w", "h.0.ln.weight", "in.weight"})) ==
        "in.weight h.0.w h.0.ln.weight | 0 1| 2");
  CHECK(named(model_of({"a"}, {}, "XForOther")) == "no rule");
}

TEST_CASE("a parameter under a tied name alone gets its own") {
  CHECK(named(model_of({"out.weight", "h.0.w"})).starts_with("x.in.weight x.h.0.w |"));
  CHECK(named(model_of({"out.weight"}, false)) == "out.weight");
  CHECK(named(model_of({"out.weight", "in.weight"})).ends_with(" | 1 0"));
  CHECK(named(model_of({"out.weight", "x.in.weight"}, false)) == "out.weight x.in.weight");
}

TEST_CASE("what the class has not is left out with the rule's reason") {
  CHECK(named(model_of({"x.in.weight", "h.0.inv_freq", "pooler.w", "x.h.1.inv_freq"})) ==
        "x.in.weight - - - | Left out: pooler.w: a head of old. | Left out: h.0.inv_freq, "
        "x.h.1.inv_freq: computed.");
}

TEST_CASE("two tensors that are one parameter of the class are refused") {
  CHECK(contains(named(model_of({"x.in.weight", "in.weight"})),
                 "expected one tensor for x.in.weight of XForCausalLM, found x.in.weight and "
                 "in.weight"));
  CHECK(contains(named(model_of({"h.0.ln.gamma", "h.0.ln.weight"})),
                 "expected one tensor for x.h.0.ln.weight"));
}

TEST_CASE("without a rule, only what transformers renames for every class is told") {
  CHECK(rules::old_names_hint(of({"gamma", "beta", "stage.weight"})) == "");
  CHECK(rules::old_names_hint(of({"a.LayerNorm.gamma", "conv.weight_v"})) ==
        "--rename 'LayerNorm\\.gamma$=LayerNorm.weight' --rename "
        "'\\.weight_v$=.parametrizations.weight.original1'");
}

TEST_CASE("a user's rule comes first, but only where it describes the module") {
  const TempDir dir;
  const auto mine = put(dir / "mine.textproto", "model_type: 'x' architecture: 'XForCausalLM'");
  const auto shipped = dir / "shipped";
  boost::filesystem::create_directories(shipped / "x");
  put(shipped / "x/XForCausalLM.textproto", kRule);
  put(shipped / "x/XModel.textproto", kBase);
  const Manifest m = model_of({"mine"});
  CHECK((*rules::ModuleRule::find(*rules::RuleSet::load({{mine}, {shipped}}), m))
            ->knows("out.weight"));
  put(mine, "model_type: 'x' architecture: 'XForCausalLM' parameter { name: 'mine' }");
  const auto set = rules::RuleSet::load({{mine}, {shipped}});
  const auto rule = rules::ModuleRule::find(*set, m);
  CHECK((*rule)->knows("mine"));
  CHECK_FALSE((*rule)->knows("out.weight"));
}

TEST_CASE("rules of classes lie in the folder of their model type, and are read when asked for") {
  const TempDir dir;
  for (const char* folder : {"x", "y"}) boost::filesystem::create_directory(dir / folder);
  put(dir / "x/XForCausalLM.textproto", kRule);
  put(dir / "x/XModel.textproto", kBase);
  put(dir / "y/broken.textproto", "model_type: 5");
  const auto set = rules::RuleSet::load({{}, {dir.path()}});
  const auto rule = rules::ModuleRule::find(*set, model_of({"a"}));
  CHECK((*rule)->knows("x.h.3.w"));
  CHECK_FALSE((*rule)->knows("x.pooler.w"));
  // A config.json of another model type may name the class too; no name leads out of the folder.
  CHECK(*set->module_of({"y", "XModel"}));
  CHECK(!*set->module_of({"y", "Unknown"}));
  CHECK(!*set->module_of({"y", "../x/XModel"}));
  CHECK(!*set->module_of({"x", ""}));
  CHECK(set->with_layouts_of("gguf")->empty());
  CHECK(contains(set->with_layouts_of("broken").error().message,
                 "broken.textproto: expected a rule in protobuf's text format, found in line 1:"));
  boost::filesystem::remove(dir / "x/XModel.textproto");
  CHECK(contains(rules::ModuleRule::find(*set, model_of({"a"})).error().message,
                 "rule XForCausalLM: expected a rule of its base class XModel"));
}

TEST_CASE("what the class has not is found by index") {
  const auto set = set_of(kRule);
  const Manifest m = model_of({"x.in.weight", "v_head", "out.weight", "x.h.3.bias"});
  const auto rule = rules::ModuleRule::find(set, m);
  CHECK(rules::find_unknown(**rule, m) == std::vector<uint64_t>{1});
}

TEST_CASE("a module by its rule: order, tied names, groups") {
  // A layer's own parameters come before those of its members.
  CHECK(described(model_of({"h.1.w", "h.0.w", "h.0.bias", "h.0.ln.weight", "h.1.ln.weight",
                            "h.1.bias", "in.weight", "h.1.seen"})) ==
        "x.in.weight x.h.0.w x.h.0.bias x.h.0.ln.weight x.h.1.w x.h.1.bias x.h.1.ln.weight "
        "x.h.1.seen out.weight | 0 1 4| 2 3 5 6");
  CHECK(contains(described(model_of({"h.1.w", "h.0.w", "h.0.bias", "h.0.ln.weight", "h.1.ln.weight",
                                     "in.weight"})),
                 "expected the parameter x.h.1.bias"));
  CHECK(described(model_of({"out.weight", "old.weight", "x.inv_freq", "h.0.w", "h.0.ln.weight"},
                           false)) == "x.in.weight x.h.0.w x.h.0.ln.weight out.weight | 0 1 3| 2");
  CHECK(described(model_of({"out.weight", "h.0.w", "h.0.ln.weight"})) ==
        "x.in.weight x.h.0.w x.h.0.ln.weight out.weight | 0 1| 2");
  CHECK(contains(described(model_of({"in.weight"})), "expected the parameter x.h.0.ln.weight"));
  CHECK(contains(described(model_of({"in.weight", "h.0.w"})),
                 "expected the parameter x.h.0.ln.weight of XForCausalLM"));
  CHECK(contains(described(model_of({"in.weight", "h.1.w", "h.1.ln.weight"})),
                 "numbered from 0 without gaps, found x.h.1."));
  CHECK(
      contains(described(model_of({"in.weight", "h.0.w", "h.0.ln.weight", "more"})), "found more"));
  CHECK(contains(described(of({"in.weight"})), "expected a config.json"));
}

TEST_CASE("a member that a rule names by its number stands in the row of the others") {
  const std::string rule = R"(model_type: "x" architecture: "XForCausalLM"
    parameter { name: "h.#.a" } parameter { name: "h.1.b" } parameter { name: "out.w" })";
  CHECK(described(model_of({"out.w", "h.2.a", "h.1.b", "h.1.a", "h.0.a"}), rule) ==
        "h.0.a h.1.a h.1.b h.2.a out.w | 0 1 2 3 4|");
}

TEST_CASE("a rule of models in a model is for those of their types") {
  const std::string rule = R"(model_type: "x" architecture: "XForCausalLM" parameter { name: "a" }
    sub_config { key: "text_config" model_type: "llama" })";
  Manifest m = model_of({"a"});
  CHECK(named(m, rule) == "a");
  auto& entries = std::get<manifest::ValueMap>(m.source.config.kind).entries;
  for (const auto& [type, said] : {std::pair("llama", "a"), {"mistral", "no rule"}}) {
    entries.push_back({"text_config", {manifest::ValueMap{{{"model_type", {std::string(type)}}}}}});
    CHECK(named(m, rule) == said);
    entries.pop_back();
  }
}

TEST_CASE("a module whose order the rule cannot tell needs a description") {
  const std::string rule =
      "model_type: 'x' architecture: 'XForCausalLM' unordered: true parameter { name: 'a' }";
  CHECK(named(model_of({"a"}), rule) == "a");
  CHECK(contains(described(model_of({"a"}), rule), "parameters in one order, found XForCausalLM"));
}

TEST_CASE("a module by its rule: names with an expert's number") {
  const std::string counted =
      R"(model_type: "x" architecture: "XForCausalLM" parameter { name: "h.#.w" }
    parameter { name: "h.#.n.##" } parameter { name: "h.#.m.##" kind: "m" })";
  CHECK(described(model_of({"h.1.w", "h.1.n.0", "h.0.n.1", "h.0.n.0", "h.0.w", "h.1.m.0"}),
                  counted) == "h.0.w h.0.n.0 h.0.n.1 h.1.w h.1.n.0 h.1.m.0 | 0 1 2 3 4 5|");
  CHECK(contains(described(model_of({"h.0.w", "h.0.n.1"}), counted),
                 "numbered from 0 without gaps, found h.0.n.1"));
  CHECK(contains(described(model_of({"h.0.w", "h.0.n.0", "h.0.n.2"}), counted),
                 "numbered from 0 without gaps, found h.0.n.2"));
  CHECK(contains(described(model_of({"h.0.w", "h.0.n.0", "h.2.w", "h.2.n.0"}), counted),
                 "numbered from 0 without gaps, found h.2"));
}

TEST_CASE("numbers of names") {
  const rules::Numbers numbers{3, 0};
  CHECK(rules::with_numbers("l.#.e.##.w", numbers) == "l.3.e.0.w");
  CHECK(rules::with_numbers("l.#-1.e##x.#+1", numbers) == "l.2.e0x.4");
  CHECK(rules::with_numbers("##-1.###.#", numbers) == "##-1.###.3");
  CHECK(rules::count_numbers("a.##.b") == 2);
  CHECK(rules::count_numbers("a.b") == 0);
  CHECK(rules::has_number("a.##.b", 1));
  CHECK_FALSE(rules::has_number("a.##.b", 0));
}

TEST_CASE("rules that are none") {
  const TempDir dir;
  const auto refusal = [&](const std::string& text) {
    const auto set = rules::RuleSet::load({{put(dir / "x.textproto", text)}, {}});
    return set ? "taken" : set.error().message;
  };
  for (const char* broken : {"excluded { name: '(' }", "renamed { from: '(' }"}) {
    INFO(broken);
    CHECK(contains(refusal(std::string(kRule) + broken),
                   "x.textproto: expected a regular expression, found ("));
  }
  CHECK(contains(refusal("architecture: 'X' base { without: '(' }"), "a regular expression"));
  std::string deep = "parameter { name: 'a' from {";
  for (int i = 0; i < 100; ++i) deep += " part {";
  CHECK(contains(refusal("architecture: 'X' " + deep), "in line 1:"));
  CHECK(contains(refusal("architecture: 'X' parameter { name: '" + std::string(200, '.') + "' }"),
                 "expected names of at most 64 parts"));
  CHECK(contains(refusal("architecture: 'X' parameter { name: 'h.e#.w' }"),
                 "expected numbers alone between dots, found h.e#.w"));
  CHECK(contains(refusal("model_type: 'x' parameter { name: 'a' }"),
                 "x.textproto: expected architecture, the class"));
  CHECK(contains(refusal("base { architecture: 'B' prefix: 'b.' }"), "expected architecture"));
  CHECK(refusal("layout { format: 'gguf' refused: 'a vocabulary' }") == "taken");
}

TEST_CASE("param groups: of a file") {
  const TempDir dir;
  const auto found = rules::ModuleRule::find(set_of(kRule), model_of({}));
  const rules::ModuleRule* rule = &**found;
  const std::string path = (dir / "groups.textproto").string();
  const auto groups_of = [&](const std::string& text) {
    put(path, text);
    Manifest m = of({"a.weight", "a.bias", "b.weight", "b.bias"});
    m.tensors[3].train = manifest::Training::kFrozen;
    m.alias_groups.push_back({{0, 2}});
    const auto done = rules::add_param_groups(path, *rule, m);
    if (!done) return done.error().message;
    std::string out;
    for (const auto& group : m.training.groups) {
      out += "|";
      for (const auto& value : group.hyper_parameters) out += value.key + " ";
      for (const uint64_t i : group.tensors) out += cat(i, " ");
    }
    return out;
  };
  CHECK(groups_of("group { lr: 1 } group { parameter: 'bias$' weight_decay: 0 }") ==
        "|lr 0 |weight_decay 1 ");
  CHECK(groups_of("group { parameter: ['x', 'a'] beta1: 0 beta2: 0.5 eps: 1 } group { parameter: "
                  "'bias' }") == "|betas eps 0 1 |");
  CHECK(contains(groups_of("group { parameter: 'bias' }"), "found none for a.weight: add a group"));
  CHECK(
      contains(groups_of("group {} group {}"), "expected at most one group without an expression"));
  CHECK(contains(groups_of("group { beta1: 0 }"), "expected beta1 and beta2 together"));
  CHECK(contains(groups_of("group { parameter: '(' }"),
                 "groups.textproto: expected a regular expression, found ("));
  CHECK(contains(groups_of("\ngroup { name: 'x' }"), "groups.textproto: expected --param-groups"));
  CHECK(contains(groups_of("\ngroup { name: 'x' }"), "in line 2"));
  CHECK(contains(
      rules::add_param_groups("none", *rule, *std::make_unique<Manifest>()).error().message,
      "none: expected"));
}
