// SPDX-License-Identifier: Apache-2.0
#include "core/model/describe.h"
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

Result<void> apply(const model::TargetOptions& options, const Manifest& description, Manifest& m,
                   std::vector<std::string>& notes) {
  XD_TRY(model::give_names(options, m));
  return model::apply_module(options, &description, m, notes);
}

// "name>tensor" of the module, in order; or the refusal.
std::string applied(const Manifest& description, Manifest& m,
                    const model::TargetOptions& options = {}) {
  std::vector<std::string> notes;
  if (auto r = apply(options, description, m, notes); !r) return r.error().message;
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
  CHECK(both.tensors[0].excluded == "tied to in in the job's module");
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
  CHECK(extra.tensors[1].excluded == "the job's module has no such name");
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
