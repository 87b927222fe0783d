// SPDX-License-Identifier: Apache-2.0
#include "core/convert/report.h"

#include "core/io/paths.h"
#include "core/report/report.h"
#include "core/report/self_digest.h"
#include "tests/unit/core_test_support.h"

#include <simdjson.h>

using namespace crossdock;
using namespace crossdock::test;

namespace {

report::Report made() {
  report::Report r;
  r.crossdock = "0.1.0";
  r.arguments = {"--to=fake", "--rename=\"a\"=b"};
  r.plan = "0123";
  r.source = {"org/name",
              "/models/name",
              "gguf/3",
              {{"a.gguf", 22, "", "tree:0a"}, {"b.gguf", 3, "sha256:1", "tree:0b"}},
              {{"config.json", 7, "", "tree:0c"}}};
  r.reader = {"org.example.reader.fake", "1.0", {{"verify", {"true"}}}};
  r.writer = {"org.example.writer.fake", "2.0", {{"pattern", {"a"}}, {"frozen", {"a", "b"}}}};
  r.notes = {"first note", "second \"note\""};
  r.tensors = {{"w",
                "model.w",
                "parameter",
                "BF16",
                {2, 3},
                "tree:aa",
                "transpose(w)",
                {"zero/model.w/fp32.pt", "states.pt"},
                ""},
               {"buf", "buf", "buffer", "I64", {1}, "tree:bb", "", {"states.pt"}, ""},
               {"tied", "tied", "parameter", "BF16", {}, "tree:cc", "", {}, "tied to w"}};
  r.files = {{"zero/model.w/fp32.pt", 24, "tree:01"}, {"states.pt", 9, "tree:02"}};
  r.timings = {{"plan", 0.25}, {"write", 1.5}};
  return r;
}

}  // namespace

TEST_CASE("the report says what went where") {
  const std::string text = report::to_json(made());
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  INFO(text);
  REQUIRE(parser.parse(text).get(root) == simdjson::SUCCESS);
  CHECK(std::string_view(root["crossdock"]) == "0.1.0");
  CHECK(uint64_t(root["schema"]) == 3);
  CHECK(std::string_view(root["plan"]) == "0123");
  CHECK(simdjson::minify(root["arguments"]) == R"(["--to=fake","--rename=\"a\"=b"])");
  CHECK(simdjson::minify(root["source"]) ==
        R"({"given":"org/name","path":"/models/name","format":"gguf/3","files":[)"
        R"({"name":"a.gguf","size":22,"rest_digest":"tree:0a"},)"
        R"({"name":"b.gguf","size":3,"hub_digest":"sha256:1","rest_digest":"tree:0b"}],)"
        R"("beside":[{"name":"config.json","size":7,"rest_digest":"tree:0c"}]})");
  CHECK(simdjson::minify(root["reader"]) ==
        R"({"id":"org.example.reader.fake","version":"1.0","options":{"verify":"true"}})");
  CHECK(simdjson::minify(root["writer"]) ==
        R"({"id":"org.example.writer.fake","version":"2.0","options":)"
        R"({"frozen":["a","b"],"pattern":"a"}})");
  CHECK(simdjson::minify(root["notes"]) == R"(["first note","second \"note\""])");
  CHECK(simdjson::minify(root["parameters"]) ==
        R"([{"name":"model.w","shape":[2,3],"source":"w"}])");
  CHECK(simdjson::minify(root["tensors"]) ==
        R"([{"name":"w","target":"model.w","role":"parameter","dtype":"BF16","shape":[2,3],)"
        R"_("digest":"tree:aa","expression":"transpose(w)",)_"
        R"("objects":["zero/model.w/fp32.pt","states.pt"]},)"
        R"({"name":"buf","role":"buffer","dtype":"I64","shape":[1],"digest":"tree:bb",)"
        R"("objects":["states.pt"]},)"
        R"({"name":"tied","role":"parameter","dtype":"BF16","shape":[],"digest":"tree:cc",)"
        R"("excluded":"tied to w"}])");
  CHECK(simdjson::minify(root["files"]) ==
        R"([{"path":"zero/model.w/fp32.pt","size":24,"digest":"tree:01"},)"
        R"({"path":"states.pt","size":9,"digest":"tree:02"}])");
  CHECK(double(root["timings"]["plan"]) == 0.25);
  CHECK(double(root["timings"]["write"]) == 1.5);
}

TEST_CASE("a report that is read again is the same") {
  const std::string text = report::to_json(made());
  const auto again = report::from_json(text);
  REQUIRE(again);
  CHECK(report::to_json(*again) == text);
  CHECK(again->tensors[0].shape == std::vector<uint64_t>{2, 3});
  CHECK(again->tensors[1].target == "buf");
  CHECK(again->writer.options.at("frozen") == std::vector<std::string>{"a", "b"});
}

TEST_CASE("a report that lacks something is refused by what it lacks") {
  const auto refusal = [](const std::string& from, const std::string& to) {
    std::string text = report::to_json(made());
    const size_t digest = text.rfind(",\n    \"report_digest\"");
    text.replace(digest, text.npos, "\n  }\n}\n");
    const size_t at = text.rfind(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
    const auto read = report::from_json(text.ends_with("\n}\n") ? report::with_digest(text) : text);
    return read ? "read" : read.error().message;
  };
  CHECK(refusal("\"digest\": \"tree:01\"", "\"other\": 1") ==
        "files[0]: expected the member digest");
  CHECK(refusal("\"size\": 24", "\"size\": \"24\"") == "files[0]: expected a whole number as size");
  CHECK(refusal("\"size\": 22", "\"size\": -1") ==
        "source.files[0]: expected a whole number as size");
  CHECK(refusal("\"given\"", "\"given2\"") == "source: expected the member given");
  CHECK(refusal("\"role\"", "\"rule\"") == "tensors[2]: expected the member role");
  CHECK(refusal("[2, 3]", "[2, true]") == "tensors[0].shape[1]: expected a whole number");
  CHECK(refusal("\"first note\"", "[]") == "notes[0]: expected a text");
  CHECK(refusal("\"schema\": 3", "\"schema\": 4") ==
        "expected a report of schema 3, found one of 4, which crossdock 0.1.0 wrote");
  CHECK(refusal("\"plan\": 0.25", "\"plan\": null") == "timings.plan: expected a number");
  CHECK(contains(refusal("}", "]"), "expected JSON"));
  for (const char* text : {"", "{", "[]", "3", "{}", R"({"crossdock": "1", "schema": 3})"})
    CHECK_FALSE(report::from_json(text));
}

TEST_CASE("a report knows each of its bits") {
  const std::string text = report::to_json(made());
  CHECK(report::proves_itself(text));
  for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    INFO("bit " << bit);
    CHECK_FALSE(report::from_json(flipped));
  }
  CHECK_FALSE(report::from_json(text + "\n"));
  CHECK_FALSE(report::from_json(text.substr(0, text.size() - 1)));
  std::string other = text;
  other.replace(other.find("first note"), 10, "other note");
  CHECK(contains(report::from_json(other).error().message, "was changed or damaged"));
}

TEST_CASE("the report makes its folder one that may be replaced") {
  const TempDir dir;
  put(dir / "out/crossdock.json", report::to_json(made()));
  put(dir / "out/zero/model.w/fp32.pt");
  put(dir / "out/states.pt");
  CHECK(io::check_is_all_ours(dir / "out").has_value());
  put(dir / "out/zero/other");
  CHECK_FALSE(io::check_is_all_ours(dir / "out").has_value());
}
