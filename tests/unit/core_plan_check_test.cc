// SPDX-License-Identifier: Apache-2.0
#include "core/convert/plan_check.h"

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using manifest::Manifest;
using plugin::Plan;

namespace {

constexpr uint64_t kLimit = 1'000'000;

// Tensors a [10] and b [2, 3], one auxiliary file.
Manifest model() {
  Manifest m;
  m.tensors = {tensor("a", DType::F32, {10}), tensor("b", DType::F32, {2, 3})};
  m.aux_files.push_back({manifest::AuxKind::kConfig, "config.json", std::string("config.json")});
  return m;
}

// A plan that uses each tensor in one item.
Plan good() {
  Plan plan;
  plan.objects = {{"t/a", 100, 1}, {"t/b", 100, 1}};
  plan.items = {{0, 0, {{0, 0, 10}}, 40, 40}, {1, 0, {{1, 0, 6}}, 24, 24}};
  plan.aux = {{"config.json", 0}};
  return plan;
}

std::string verdict(const std::function<void(Plan&)>& change, const Manifest& m = model(),
                    uint64_t overhead = 0) {
  Plan plan = good();
  change(plan);
  std::vector<std::string> notes;
  const auto result = convert::check_plan(plan, m, {kLimit, overhead, false}, notes);
  return result ? "accepted" : result.error().message;
}

}  // namespace

TEST_CASE("a good plan passes") {
  CHECK(verdict([](Plan&) {}) == "accepted");
}

TEST_CASE("no path leaves the destination, or is the report's") {
  for (const char* path : {"../x", "/x", "a/../../x", "", "a//b", "crossdock.json"}) {
    CHECK(verdict([&](Plan& p) { p.objects[0].path = path; }) ==
          cat("plan: expected a plain relative path, found \"", path, '"'));
    CHECK(verdict([&](Plan& p) { p.aux[0].first = path; }) ==
          cat("plan: expected a plain relative path, found \"", path, '"'));
  }
}

TEST_CASE("no two files are one, also where names are of any case") {
  CHECK(verdict([](Plan& p) { p.objects[1].path = "t/a"; }) ==
        "plan: expected different paths, found t/a and t/a");
  CHECK(contains(verdict([](Plan& p) { p.objects[1].path = "T/A"; }),
                 "plan: expected different paths, found t/a and T/A: give one another name with "
                 "--rename, or use "
                 "--allow-case-collisions"));
  CHECK(verdict([](Plan& p) { p.aux[0].first = "t/b"; }) ==
        "plan: expected different paths, found t/b and t/b");
}

TEST_CASE("names that differ in case only may be allowed, with a warning; equal ones never") {
  Plan plan = good();
  plan.objects[1].path = "T/A";
  std::vector<std::string> notes;
  CHECK(convert::check_plan(plan, model(), {kLimit, 0, true}, notes));
  REQUIRE(notes.size() == 1);
  CHECK(contains(notes[0], "Some names differ in the case of letters only"));
  plan.aux[0].first = "T/A";
  CHECK(contains(message(convert::check_plan(plan, model(), {kLimit, 0, true}, notes)),
                 "found t/a and T/A"));
}

TEST_CASE("no file is also a folder") {
  CHECK(verdict([](Plan& p) { p.objects[1].path = "t/a/b"; }) ==
        "plan: expected t/a to be a file, found t/a/b under it");
  CHECK(verdict([](Plan& p) { p.objects[1].path = "T"; }) ==
        "plan: expected T to be a file, found t/a under it");
  CHECK(verdict([](Plan& p) { p.objects[1].path = "t/ab"; }) == "accepted");
}

TEST_CASE("auxiliary files exist") {
  CHECK(verdict([](Plan& p) { p.aux[0].second = 1; }) ==
        "plan: expected an auxiliary file below 1, found 1");
}

TEST_CASE("items fit the memory budget, together with what the host holds for them") {
  CHECK(verdict([](Plan& p) { p.items[0].memory = kLimit; }) == "accepted");
  CHECK(verdict([](Plan& p) { p.items[0].memory = kLimit; }, model(), 1)
            .find("expected items of work within the memory budget of ") == 0);
  CHECK(contains(verdict([](Plan& p) { p.items[1].memory = kLimit + 1; }), "found t/b to need"));
  CHECK(contains(verdict([](Plan& p) { p.items[1].memory = UINT64_MAX; }, model(), 1),
                 "raise --memory"));
}

TEST_CASE("items need elements that exist") {
  CHECK(verdict([](Plan& p) { p.items[0].needs[0].count = 11; }) ==
        "plan: expected elements inside a of 10, found 0 + 11");
  CHECK(verdict([](Plan& p) {
          p.items[0].needs[0] = {0, 11, 0};
        }) == "plan: expected elements inside a of 10, found 11 + 0");
  CHECK(contains(verdict([](Plan& p) {
                   p.items[0].needs[0] = {0, 1, UINT64_MAX};
                 }),
                 "expected elements inside a of 10"));
}

TEST_CASE("every element of every tensor is used") {
  const std::string lost =
      "plan: expected every element of a to be used, or the tensor excluded with a reason, found "
      "neither";
  CHECK(verdict([](Plan& p) { p.items[0].needs.clear(); }) == lost);
  CHECK(verdict([](Plan& p) { p.items[0].needs = {{0, 0, 9}}; }) == lost);
  CHECK(verdict([](Plan& p) { p.items[0].needs = {{0, 1, 9}}; }) == lost);
  CHECK(verdict([](Plan& p) { p.items[0].needs = {{0, 0, 4}, {0, 5, 5}}; }) == lost);
  CHECK(verdict([](Plan& p) {
          p.items[0].needs = {{0, 6, 4}, {0, 0, 3}, {0, 2, 5}};
        }) == "accepted");  // overlapping, in any order
  CHECK(verdict([](Plan& p) {
          p.items[0].needs = {{0, 5, 5}};
          p.items[1].needs.push_back({0, 0, 5});  // the parts in several items
        }) == "accepted");
}

TEST_CASE("a tensor without elements must be used too") {
  Manifest m = model();
  m.tensors.push_back(tensor("none", DType::F32, {0, 3}));
  CHECK(contains(verdict([](Plan&) {}, m), "expected every element of none to be used"));
  CHECK(verdict([](Plan& p) { p.items[1].needs.push_back({2, 0, 0}); }, m) == "accepted");
}

TEST_CASE("a tensor is used, or left out with a reason, not both") {
  const auto drop_a = [](Plan& p) {
    p.items[0].needs.clear();
    p.excluded = {{0, "a buffer"}};
  };
  CHECK(verdict(drop_a) == "accepted");
  CHECK(verdict([](Plan& p) {
          p.excluded = {{0, "a buffer"}};
        }) == "plan: expected a to be left out, found it used");
  CHECK(contains(verdict([&](Plan& p) {
                   drop_a(p);
                   p.excluded[0].second = "";
                 }),
                 "expected a reason"));
  Manifest m = model();
  m.tensors[0].excluded = "tied to b";
  CHECK(verdict([](Plan&) {}, m) == "plan: expected a to be left out, found it used");
  CHECK(verdict([](Plan& p) { p.items[0].needs.clear(); }, m) == "accepted");
}

TEST_CASE(
    "what a plan takes on disk: what items write, some of each file's rest, in whole blocks") {
  Plan plan;
  CHECK(convert::stored_bytes(plan) == 0);
  plan.objects = {{"a", 1'000'000, 1}, {"holes", 1 << 30, 0}, {"empty", 0, 0}};
  plan.items = {{0, 0, {}, 1'000'000, 0}};
  CHECK(convert::stored_bytes(plan) == 1'003'520 + 4096);
  plan.items[0].out_bytes = UINT64_MAX;  // a plugin that miscounts
  CHECK(convert::stored_bytes(plan) == 1'003'520 + 4096);
}
