#include "core/model/describe.h"
#include "core/model/param_groups.h"
#include "core/model/rules.h"
#include "core/model/target.h"

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using manifest::Manifest;
using manifest::Role;
using manifest::Training;

namespace {

Manifest of(std::initializer_list<const char*> names) {
  Manifest m;
  for (const char* name : names) m.tensors.push_back(tensor(name, DType::BF16, {4, 2}));
  return m;
}

// What a module with these parameters says of itself.
Manifest module_of(std::initializer_list<const char*> names) {
  Manifest m = of(names);
  for (auto& t : m.tensors) t.role = Role::kParameter, t.train = Training::kTrainable;
  return m;
}

// "name>tensor" of the module, in order; or the refusal.
std::string applied(const Manifest& description, Manifest& m,
                    const model::TargetOptions& options = {}) {
  std::vector<std::string> notes;
  if (auto r = model::apply_target(options, &description, m, notes); !r) return r.error().message;
  std::string out;
  for (const auto& entry : m.module)
    out += (out.empty() ? "" : " ") + cat(entry.name, ">", entry.tensor);
  for (const std::string& note : notes) out += " | " + note;
  return out;
}

}  // namespace

TEST_CASE("a description gives order, roles and what is trained") {
  Manifest m = of({"b", "a", "n"});
  Manifest d = module_of({"a", "b", "n"});
  d.tensors[1].train = Training::kFrozen;
  d.tensors[2].role = Role::kBuffer;
  CHECK(applied(d, m) == "a>1 b>0 n>2");
  CHECK(m.tensors[0].train == Training::kFrozen);
  CHECK(m.tensors[2].role == Role::kBuffer);
  REQUIRE(m.training.groups.size() == 1);
  CHECK(m.training.groups[0].tensors == std::vector<uint64_t>{1});
}

TEST_CASE("a description's groups follow what is trained now") {
  Manifest m = of({"b", "a", "c"});
  Manifest d = module_of({"a", "b", "c"});
  d.training.groups = {{{0, 2}, {}}, {{1}, {{"weight_decay", {0.0}}}}};
  model::TargetOptions options;
  options.frozen = {"^c$"};
  CHECK(applied(d, m, options) == "a>1 b>0 c>2");
  REQUIRE(m.training.groups.size() == 2);
  CHECK(m.training.groups[0].tensors == std::vector<uint64_t>{1});
  CHECK(m.training.groups[1].tensors == std::vector<uint64_t>{0});
  CHECK(m.training.groups[1].hyper_parameters.size() == 1);
}

TEST_CASE("tied names: both, one, or the other one are in the source") {
  Manifest d = module_of({"in", "mid", "out"});
  d.alias_groups = {{{0, 2}}};
  Manifest both = of({"out", "in", "mid"});
  CHECK(applied(d, both) == "in>1 mid>2 out>1");
  CHECK(both.tensors[0].left_out == "tied to in in the job's module");
  Manifest one = of({"in", "mid"});
  CHECK(applied(d, one) == "in>0 mid>1 out>0");
  Manifest other = of({"mid", "out"});
  CHECK(applied(d, other) == "in>1 mid>0 out>1");
  CHECK(other.tensors[1].target() == "in");
  CHECK(other.training.groups[0].tensors == std::vector<uint64_t>{1, 0});
}

TEST_CASE("what does not fit a description") {
  Manifest m = of({"a", "x", "y"});
  CHECK(applied(module_of({"a", "b", "c"}), m) ==
        "expected 3 tensors of the job's module in the source, found 2 missing (b, c): use "
        "--strip-prefix, "
        "--add-prefix or --rename where only names differ");
  Manifest shape = of({"a"});
  Manifest d = module_of({"a"});
  d.tensors[0].shape = {2, 4};
  CHECK(contains(applied(d, shape), "expected a of shape [2, 4], found [4, 2] in the source"));
  Manifest extra = of({"a", "x", "y"});
  CHECK(applied(module_of({"a"}), extra) ==
        "a>0 | The job's module has no x, y: left out, as from_pretrained does.");
  CHECK(extra.tensors[1].left_out == "the job's module has no such name");
  Manifest buffer = of({"a"});
  Manifest with = module_of({"a", "seen"});
  with.tensors[1].role = Role::kBuffer;
  CHECK(applied(with, buffer) ==
        "a>0 | The source has no values for the buffers seen: load a ZeRO-3 checkpoint with "
        "load_module_strict=False, and set them yourself.");
}

TEST_CASE("description files") {
  const TempDir dir;
  CHECK(contains(model::read_description((dir / "none").string()).error().message,
                 "found no such file"));
  put(dir / "bad", "not protobuf");
  CHECK_FALSE(model::read_description((dir / "bad").string()));
  Manifest d = module_of({"a"});
  put(dir / "good", manifest::encode(d));
  CHECK(model::read_description((dir / "good").string())->tensors[0].name == "a");
  d.alias_groups = {{{0, 7}}};
  put(dir / "wild", manifest::encode(d));
  CHECK(contains(model::read_description((dir / "wild").string()).error().message,
                 "a tensor of an alias group below 1, found 7"));
}

TEST_CASE("rules: order, layers, tied names, groups") {
  const TempDir dir;
  put(dir / "x.textproto", R"(
    model_type: "x" architecture: "XForCausalLM"
    parameter { name: "in.weight" }
    parameter { name: "h.#.ln.weight" }
    parameter { name: "h.#.w" }
    parameter { name: "h.#.bias" optional: true }
    parameter { name: "out.weight" }
    tied { name: "out.weight" to: "in.weight" when: "tie" by_default: true }
    no_decay: "^h\\.\\d+\\.ln\\."
    ignored: "inv_freq$"
    renamed { from: "^old\\." to: "in." })");
  const auto model_of = [](std::initializer_list<const char*> names, std::optional<bool> tie = {}) {
    Manifest m = of(names);
    manifest::ValueMap config;
    config.entries = {{"model_type", {"x"}},
                      {"architectures", {manifest::ValueList{{{"XForCausalLM"}}}}}};
    if (tie) config.entries.push_back({"tie", {*tie}});
    m.source.config.kind = std::move(config);
    return m;
  };
  const auto described = [&](const Manifest& m) {
    auto r = model::describe_by_rules({dir / "none", dir.path()}, m);
    if (!r) return r.error().message;
    REQUIRE(model::add_param_groups("hf-trainer", r->no_decay, r->module));
    std::string out;
    for (const auto& t : r->module.tensors) out += t.name + " ";
    for (const auto& group : r->module.training.groups) {
      out += "|";
      for (const uint64_t i : group.tensors) out += cat(" ", i);
    }
    return out;
  };
  CHECK(described(model_of(
            {"h.1.w", "h.0.w", "h.0.bias", "h.0.ln.weight", "h.1.ln.weight", "in.weight"})) ==
        "in.weight h.0.ln.weight h.0.w h.0.bias h.1.ln.weight h.1.w out.weight | 0 2 5| 1 3 4");
  CHECK(described(model_of({"out.weight", "old.weight", "x.inv_freq"}, false)) ==
        "in.weight out.weight | 0 1|");
  CHECK(described(model_of({"out.weight"})) == "in.weight out.weight | 0|");
  CHECK(contains(described(model_of({"in.weight", "h.0.w"})),
                 "expected the parameter h.0.ln.weight of XForCausalLM"));
  CHECK(contains(described(model_of({"in.weight", "h.1.w", "h.1.ln.weight"})),
                 "found h.1.ln.weight"));  // no layer 0
  CHECK(contains(described(model_of({"in.weight", "more"})), "found more"));
  CHECK(contains(described(of({"in.weight"})), "expected a config.json"));
  const std::string counted =
      R"(model_type: "x" architecture: "XForCausalLM" parameter { name: "h.#.w" }
    parameter { name: "h.#.n.##" } parameter { name: "h.#.m.##" optional: true })";
  put(dir / "x.textproto", counted);
  CHECK(described(model_of({"h.1.w", "h.1.n.0", "h.0.n.1", "h.0.n.0", "h.0.w", "h.1.m.0"})) ==
        "h.0.w h.0.n.0 h.0.n.1 h.1.w h.1.n.0 h.1.m.0 | 0 1 2 3 4 5|");
  CHECK(contains(described(model_of({"h.0.w", "h.0.n.1"})), "expected the parameter h.0.n.0"));
  put(dir / "x.textproto", counted + " ignored: '('");
  CHECK(contains(described(model_of({"h.0.w", "h.0.n.0", "y"})),
                 "rule x: expected a regular expression, found ("));
  put(dir / "a.textproto", "model_type: 5");
  CHECK(contains(described(model_of({"in.weight"})),
                 "a.textproto: expected a rule in protobuf's text format, found in line 1:"));
}

TEST_CASE("param groups: of a file") {
  const TempDir dir;
  const std::string path = (dir / "groups.textproto").string();
  const auto groups_of = [&](const std::string& text) {
    put(path, text);
    Manifest m = of({"a.weight", "a.bias", "b.weight", "b.bias"});
    m.tensors[3].train = manifest::Training::kFrozen;
    m.alias_groups.push_back({{0, 2}});
    const auto done = model::add_param_groups(path, {}, m);
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
  CHECK(contains(model::add_param_groups("none", {}, *std::make_unique<Manifest>()).error().message,
                 "none: expected"));
}
