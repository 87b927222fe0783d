// SPDX-License-Identifier: Apache-2.0
#include "core/model/target.h"

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using manifest::Manifest;
using manifest::Training;
using model::TargetOptions;

namespace {

// Options by name: want().strip("a.").rename("b=c").
struct want : TargetOptions {
  want& strip(const char* text) { return strip_prefix = text, *this; }
  want& rename(const char* rule) { return renames.push_back(rule), *this; }
  want& add(const char* text) { return add_prefix = text, *this; }
  want& train(const char* pattern) { return trainable.push_back(pattern), *this; }
  want& freeze(const char* pattern) { return frozen.push_back(pattern), *this; }
};

Manifest of(std::initializer_list<const char*> names) {
  Manifest m;
  for (const char* name : names) m.tensors.push_back(tensor(name, DType::BF16, {4, 2}));
  return m;
}

Result<void> apply(const TargetOptions& options, Manifest& m) {
  std::vector<std::string> notes;
  XD_TRY(model::give_names(options, m));
  return model::apply_module(options, nullptr, m, notes);
}

// The target names, separated by spaces; or the refusal.
std::string renamed(const TargetOptions& options, Manifest m) {
  if (auto r = apply(options, m); !r) return r.error().message;
  std::string out;
  for (const auto& t : m.tensors) out += (out.empty() ? "" : " ") + t.target();
  return out;
}

// One letter for each tensor: t(rainable), f(rozen), '-' when nothing was said; or the refusal.
std::string trained(const TargetOptions& options, Manifest m) {
  if (auto r = apply(options, m); !r) return r.error().message;
  std::string out;
  for (const auto& t : m.tensors)
    out += t.train == Training::kTrainable ? 't' : t.train == Training::kFrozen ? 'f' : '-';
  return out;
}

manifest::Value map_of(std::initializer_list<std::pair<const char*, manifest::Value>> entries) {
  manifest::ValueMap map;
  for (const auto& [key, value] : entries) map.entries.push_back({key, value});
  return {map};
}
manifest::Value text(const char* value) { return {std::string(value)}; }

}  // namespace

TEST_CASE("names stay as they are unless asked") {
  Manifest m = of({"a.weight", "b.weight"});
  REQUIRE(apply({}, m));
  CHECK(m.tensors[0].target() == "a.weight");
  CHECK(m.tensors[0].target_name.empty());
}

TEST_CASE("the prefix goes, then the renames in turn, then the new prefix comes") {
  CHECK(renamed(want().strip("model."), of({"model.a", "lm_head", "model.model.b"})) ==
        "a lm_head model.b");
  CHECK(renamed(want().add("module."), of({"a", "b"})) == "module.a module.b");
  CHECK(renamed(want().rename("h=x").rename("x=yy"), of({"h.h", "z"})) == "yy.yy z");
  CHECK(renamed(want().strip("base.").rename("^layer=block").add("p."),
                of({"base.layer.1", "layer.2"})) == "p.block.1 p.block.2");
}

TEST_CASE("a rename is a regular expression with groups, and TO may be empty or hold '='") {
  CHECK(renamed(want().rename("layers\\.(\\d+)\\.=h.$1."), of({"layers.12.w"})) == "h.12.w");
  CHECK(renamed(want().rename("_orig_mod\\.="), of({"_orig_mod.a._orig_mod.b"})) == "a.b");
  CHECK(renamed(want().rename("a=b=c"), of({"a"})) == "b=c");
}

TEST_CASE("FROM ends at the first '=' that is not part of it") {
  CHECK(renamed(want().rename("layers\\.(?=3)=h."), of({"layers.3.w", "layers.4.w"})) ==
        "h.3.w layers.4.w");
  CHECK(renamed(want().rename("layers\\.(?!3)=h."), of({"layers.3.w", "layers.4.w"})) ==
        "layers.3.w h.4.w");
  CHECK(renamed(want().rename("a\\=b=c"), of({"a=b"})) == "c");
  CHECK(renamed(want().rename("a[=]b=c"), of({"a=b"})) == "c");
  CHECK(renamed(want().rename("\\(=x"), of({"(w"})) == "xw");
}

TEST_CASE("a rename that no tensor needs is a mistake") {
  CHECK(contains(renamed(want().rename("^gpt_neox\\.=x."), of({"a", "b"})),
                 "--rename: expected a pattern that matches a tensor's name, found none for "
                 "^gpt_neox\\.=x. (the first "
                 "name is a)"));
  CHECK(contains(renamed(want().rename("a=b").rename("a=c"), of({"a"})), "found none for a=c"));
}

TEST_CASE("groups in TO must be there, and are spelled $1") {
  CHECK(renamed(want().rename("(\\d)(\\d)=$2$1$$$&"), of({"w12"})) == "w21$12");
  CHECK(contains(renamed(want().rename("layers\\.(\\d+)=h.$2"), of({"layers.1"})),
                 "expected a group of FROM in TO, which has 1, found $2"));
  CHECK(contains(renamed(want().rename("layers=h.$1"), of({"layers.1"})), "which has 0, found $1"));
  CHECK(contains(renamed(want().rename("layers\\.(\\d+)=h.\\1"), of({"layers.1"})),
                 "expected $1 for the first group in TO, found \\1: write $"));
  CHECK(renamed(want().rename("layers\\.(\\d)=h$012"), of({"layers.1"})) == "h12");
  for (const char* to : {"h$12x", "h$10", "h$02"})
    CHECK(contains(
        renamed(want().rename(("layers\\.(\\d)=" + std::string(to)).c_str()), of({"layers.1"})),
        "expected a group of FROM in TO, which has 1"));
  for (const char* to : {"h.${1}", "h$", "h$'", "h$`"})
    CHECK(contains(renamed(want().rename(("layers=" + std::string(to)).c_str()), of({"layers.1"})),
                   "expected a group's number, $ or & after $ in TO"));
  CHECK(contains(renamed(want().rename("(layers)=\\g<1>"), of({"layers.1"})), "found \\g<"));
}

TEST_CASE("names that a wrapper left are told, with the flag that takes them off") {
  const auto hint = [](std::vector<std::string> names) {
    Manifest m;
    for (const std::string& name : names) m.tensors.push_back(tensor(name, DType::F32, {1}));
    return model::wrapper_hint(m);
  };
  CHECK(contains(hint({"module.a", "module.b.w"}), "--strip-prefix module. takes"));
  CHECK(contains(hint({"_orig_mod.a", "_orig_mod.b"}), "--strip-prefix _orig_mod. takes"));
  CHECK(contains(hint({"module._orig_mod.a", "module._orig_mod.b"}),
                 "--strip-prefix module._orig_mod. takes"));
  CHECK(contains(hint({"model._orig_mod.a", "model._orig_mod.b"}),
                 "--strip-prefix model._orig_mod. takes"));
  CHECK(contains(hint({"base_model.model.model.a", "base_model.model.lm_head"}),
                 "--strip-prefix base_model.model. takes"));
  CHECK(contains(hint({"layers.0._orig_mod.w", "norm"}), "--rename '_orig_mod\\.=' takes"));
  CHECK(hint({"module.a", "b"}).empty());
  CHECK(hint({"model.a", "model.b"}).empty());
  CHECK(hint({}).empty());
  Manifest m;  // an optimizer's state has a name of its own
  for (const char* name : {"module.a", "exp_avg/module.a"})
    m.tensors.push_back(tensor(name, DType::F32, {1}));
  m.tensors[1].role = manifest::Role::kOptimizerState;
  CHECK(contains(model::wrapper_hint(m), "--strip-prefix module. takes"));
  m.tensors.erase(m.tensors.begin());
  CHECK(model::wrapper_hint(m).empty());
}

TEST_CASE("a rename that is not one is refused") {
  CHECK(renamed(want().rename("nothing"), of({"a"})) ==
        "--rename: expected FROM=TO, found nothing");
  CHECK(renamed(want().rename("=x"), of({"a"})) == "--rename: expected FROM=TO, found =x");
  CHECK(contains(renamed(want().rename("(=x"), of({"a"})),
                 "--rename: expected a regular expression, found ("));
}

TEST_CASE("two tensors may not get one name, nor one none") {
  CHECK(renamed(want().strip("a."), of({"a.w", "w"})) ==
        "expected different target names, found \"w\" for both a.w and w: change --strip-prefix or "
        "--rename");
  CHECK(contains(renamed(want().rename("\\d+=N"), of({"h.1.w", "h.2.w"})),
                 "found \"h.N.w\" for both h.1.w and h.2.w"));
  CHECK(contains(renamed(want().strip("model"), of({"model", "model.w"})),
                 "expected a name to be left of model"));
  CHECK(contains(renamed(want().rename(".*="), of({"w"})), "expected a name to be left of w"));
}

TEST_CASE("a prefix that no tensor has is a mistake") {
  CHECK(renamed(want().strip("modell."), of({"model.a"})) ==
        "--strip-prefix: expected tensors whose names begin with \"modell.\", found none (the "
        "first is model.a)");
}

TEST_CASE(
    "a name that is too long for a regular expression is refused, and a long one that is not does "
    "no harm") {
  Manifest m = of({"w"});
  m.tensors[0].name.assign(1001, 'a');
  CHECK(contains(renamed(want().rename("a=b"), m),
                 "--rename: expected names of at most 1000 bytes for a regular expression, found "
                 "one of 1001"));
  CHECK(
      contains(trained(want().freeze("a+"), m), "--frozen: expected names of at most 1000 bytes"));
  CHECK(renamed({}, m) == m.tensors[0].name);
  m.tensors[0].name.assign(1000, 'a');
  CHECK(renamed(want().rename("(a|b)*=x"), m).front() == 'x');
}

TEST_CASE("a name must stay UTF-8") {
  CHECK(contains(renamed(want().add("\xFF"), of({"w"})), "expected UTF-8"));
  CHECK(contains(renamed(want().rename("\xC3="), of({"caf\xC3\xA9"})), "expected UTF-8"));
}

TEST_CASE("roles: floating point is a parameter, all else a buffer, and the reader's word stands") {
  Manifest m;
  for (const DType dtype : {DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::U8,
                            DType::BOOL, DType::C64}) {
    m.tensors.push_back(tensor(std::string(manifest::name(dtype)), dtype, {1}));
  }
  m.tensors.push_back(tensor("running_mean", DType::F32, {1}));
  m.tensors.back().role = manifest::Role::kBuffer;
  REQUIRE(apply({}, m));
  for (size_t i = 0; i < m.tensors.size(); ++i) {
    INFO(m.tensors[i].name);
    CHECK((m.tensors[i].role == manifest::Role::kParameter) == (i < 4));
  }
}

TEST_CASE("what is trained: searched in the target name, frozen wins") {
  const auto model = of({"embed.w", "h.0.lora.w", "h.0.base.w"});
  CHECK(trained({}, model) == "---");
  CHECK(trained(want().train("lora"), model) == "ftf");
  CHECK(trained(want().freeze("^embed").freeze("base"), model) == "ftf");
  CHECK(trained(want().train("h\\.0").freeze("base"), model) == "ftf");
  CHECK(trained(want().rename("lora=adapter").train("adapter"), model) == "ftf");
}

TEST_CASE("a pattern that matches nothing is a mistake") {
  CHECK(trained(want().train("h").train("Lora"), of({"h.lora"})) ==
        "--trainable: expected a pattern that matches a tensor's name, found none for Lora");
  CHECK(trained(want().freeze("x"), of({"h"})) ==
        "--frozen: expected a pattern that matches a tensor's name, found none for x");
  CHECK(contains(trained(want().freeze("["), of({"h"})),
                 "--frozen: expected a regular expression, found ["));
}

TEST_CASE("whether the embeddings are tied is config.json's word") {
  const auto ties = [&](manifest::Value config) {
    Manifest m = of({"wte.weight", "lm_head.weight"});
    m.source.config = std::move(config);
    std::vector<std::string> notes;
    return !model::tied_embeddings(m, notes).empty();
  };
  CHECK(ties(map_of({{"tie_word_embeddings", {true}}})));
  CHECK_FALSE(ties(map_of({{"tie_word_embeddings", {false}}})));
  CHECK_FALSE(ties(map_of({})));
  CHECK_FALSE(ties({}));
  CHECK_FALSE(ties(map_of({{"tie_word_embeddings", text("true")}})));
  CHECK(ties(map_of({{"text_config", map_of({{"tie_word_embeddings", {true}}})}})));
  CHECK_FALSE(ties(map_of({{"tie_word_embeddings", {false}},
                           {"text_config", map_of({{"tie_word_embeddings", {true}}})}})));
}

namespace {

// "0 2": the input's index and the head's; "" when nothing is tied, "note" when the head has none.
std::string tied(Manifest m) {
  m.source.config = map_of({{"tie_word_embeddings", {true}}});
  std::vector<std::string> notes;
  std::string out;
  for (const auto& group : model::tied_embeddings(m, notes)) {
    REQUIRE(group.tensors.size() == 2);
    out += cat(group.tensors[0], " ", group.tensors[1]);
  }
  return notes.empty() ? out : out + "note";
}

}  // namespace

TEST_CASE("the embeddings that may be tied are found by the names that models give them") {
  CHECK(tied(of({"model.norm", "lm_head.weight", "model.embed_tokens.weight"})) == "2 1");  // Llama
  CHECK(tied(of({"wte.weight", "lm_head.weight"})) == "0 1");                               // GPT-2
  CHECK(tied(of({"gpt_neox.embed_in.weight", "embed_out.weight"})) == "0 1");  // GPT-NeoX
  CHECK(tied(of({"bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"})) ==
        "0 1");
  CHECK(tied(of({"shared.weight", "lm_head.weight"})) == "0 1");  // T5
  CHECK(tied(of({"model.embed_tokens.weight"})) == "");
  CHECK(tied(of({"lm_head.weight"})) == "note");
  CHECK(tied(of({"model.my_embed_tokens.weight", "lm_head.weight"})) ==
        "note");  // whole parts of a name only
}

TEST_CASE("embeddings of different type or shape are not tied") {
  Manifest m = of({"wte.weight", "lm_head.weight"});
  m.tensors[1].shape = {2, 4};
  CHECK(tied(m) == "note");
  m.tensors[1].shape = {4, 2};
  m.tensors[1].dtype = DType::F16;
  CHECK(tied(m) == "note");
}

TEST_CASE("another embedding of another shape does not hide the one that is tied") {
  Manifest m =
      of({"audio.embed_tokens.weight", "language_model.embed_tokens.weight", "lm_head.weight"});
  m.tensors[0].shape = {7, 2};
  CHECK(tied(m) == "1 2");
}
