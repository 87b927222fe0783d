#include "core/convert/report.h"

#include <simdjson.h>

#include "core/io/paths.h"
#include "tests/unit/core_fake_plugins.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;

namespace {

// A conversion of three tensors: "w" renamed and written to two files, "buf" a buffer, "tied" left
// out.
struct Made {
  OpenFake fake{FakeModel()
                    .add("w", DType::BF16, {2, 3}, std::string(12, 'w'))
                    .add("buf", DType::I64, {1}, std::string(8, 'b'))
                    .add("tied", DType::BF16, {1}, "tt")};
  manifest::Manifest target = fake.model().manifest();
  plugin::Plugin writer;
  plugin::Plan plan;
  convert::Report report;

  Made() {
    target.tensors[0].target_name = "model.w";
    target.tensors[0].role = target.tensors[2].role = manifest::Role::kParameter;
    target.tensors[1].role = manifest::Role::kBuffer;
    target.tensors[2].left_out = "tied to w";
    writer.desc = kFakeWriter;
    plan.objects = {{"zero/model.w/fp32.pt", 24, 2}, {"states.pt", 9, 1}};
    plan.items = {{0, 0, {{0, 0, 3}}, 12, 0},
                  {0, 1, {{0, 3, 3}}, 12, 0},
                  {1, 0, {{0, 0, 6}, {1, 0, 1}}, 9, 0}};
    report.model = &fake.opened();
    report.target = &target;
    report.writer = &writer;
    report.plan = &plan;
    report.options = {{"tag", "step0"}, {"pattern", "a"}};
    report.notes = {"first note", "second \"note\""};
    report.files = {{"zero/model.w/fp32.pt", 24, "xxh3:01"}, {"states.pt", 9, "xxh3:02"}};
    report.tensor_digests = {"xxh3:aa", "xxh3:bb", "xxh3:cc"};
    report.seconds = {{"plan", 0.25}, {"write", 1.5}};
  }
};

}  // namespace

TEST_CASE("the report says what went where") {
  const Made made;
  const std::string text = convert::to_json(made.report);
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  INFO(text);
  REQUIRE(parser.parse(text).get(root) == simdjson::SUCCESS);
  CHECK(std::string_view(root["crossdock"]) == CROSSDOCK_VERSION);
  CHECK(std::string_view(root["source"]["given"]) == made.fake.dir.path().string());
  CHECK(std::string_view(root["source"]["path"]) == made.fake.dir.path().string());
  CHECK(std::string_view(root["source"]["format"]) == "fake");
  CHECK(std::string_view(root["source"]["reader"]) == "org.example.reader.fake");
  CHECK(simdjson::minify(root["source"]["files"]) == R"([{"name":"values","size":22}])");
  CHECK(std::string_view(root["writer"]) == "org.example.writer.fake");
  CHECK(simdjson::minify(root["options"]) == R"({"pattern":"a","tag":"step0"})");
  CHECK(simdjson::minify(root["notes"]) == R"(["first note","second \"note\""])");
  CHECK(simdjson::minify(root["parameters"]) ==
        R"([{"name":"model.w","shape":[2,3],"source":"w"}])");
  const std::string tensors = simdjson::minify(root["tensors"]);
  CHECK(contains(
      tensors,
      R"({"name":"w","dtype":"BF16","shape":[2,3],"digest":"xxh3:aa","targets":["zero/model.w/fp32.pt","states.pt"]})"));
  CHECK(contains(
      tensors,
      R"({"name":"buf","dtype":"I64","shape":[1],"digest":"xxh3:bb","targets":["states.pt"]})"));
  CHECK(contains(
      tensors,
      R"({"name":"tied","dtype":"BF16","shape":[1],"digest":"xxh3:cc","dropped":"tied to w"})"));
  CHECK(
      simdjson::minify(root["files"]) ==
      R"([{"path":"zero/model.w/fp32.pt","size":24,"digest":"xxh3:01"},{"path":"states.pt","size":9,"digest":"xxh3:02"}])");
  CHECK(double(root["timings"]["plan"]) == 0.25);
  CHECK(double(root["timings"]["write"]) == 1.5);
}

TEST_CASE("a tensor that the writer dropped has the writer's reason") {
  Made made;
  made.plan.items[2].needs.pop_back();
  made.plan.drops = {{1, "no place for buffers"}};
  CHECK(contains(convert::to_json(made.report), R"("dropped": "no place for buffers")"));
}

TEST_CASE("an option that was given several times is a list") {
  Made made;
  made.report.options = {{"frozen", "a"}, {"tag", "step0"}, {"frozen", "b"}};
  const std::string text = convert::to_json(made.report);
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  REQUIRE(parser.parse(text).get(root) == simdjson::SUCCESS);
  CHECK(simdjson::minify(root["options"]) == R"({"frozen":["a","b"],"tag":"step0"})");
}

TEST_CASE("the report makes its folder one that may be replaced") {
  const Made made;
  const TempDir dir;
  put(dir / "out/crossdock.json", convert::to_json(made.report));
  put(dir / "out/zero/model.w/fp32.pt");
  put(dir / "out/states.pt");
  CHECK(io::check_is_all_ours(dir / "out").has_value());
  put(dir / "out/zero/other");
  CHECK_FALSE(io::check_is_all_ours(dir / "out").has_value());
}
