// SPDX-License-Identifier: Apache-2.0
#include "core/base/json_writer.h"

#include <simdjson.h>

#include <limits>

#include "tests/catch.h"

using crossdock::base::JsonWriter;

namespace {
// What a reader makes of the text.
simdjson::dom::element parse(simdjson::dom::parser& parser, const std::string& text) {
  simdjson::dom::element root;
  INFO(text);
  REQUIRE(parser.parse(text).get(root) == simdjson::SUCCESS);
  return root;
}
}  // namespace

TEST_CASE("what is written reads back") {
  JsonWriter json;
  json.begin_object();
  json.member("text", "hello")
      .member("string", std::string("s"))
      .member("view", std::string_view("v"));
  json.member("int", -5)
      .member("big", uint64_t{UINT64_MAX})
      .member("small", int64_t{INT64_MIN})
      .member("byte", uint8_t{65});
  json.member("yes", true).member("no", false).member("real", 0.1).member("whole", 2.0);
  json.member("shape", std::vector<uint64_t>{2, 3})
      .member("none", std::vector<int>{})
      .member("names", std::vector<std::string>{"a", "b"});
  json.key("list")
      .begin_array()
      .value(1)
      .value("two")
      .begin_object()
      .member("k", 3)
      .end_object()
      .end_array();
  json.key("empty").begin_object().end_object().key("nothing").begin_array().end_array();
  json.end_object();
  const std::string text = std::move(json).take();

  simdjson::dom::parser parser;
  const auto root = parse(parser, text);
  CHECK(text.back() == '\n');
  CHECK(std::string_view(root["text"]) == "hello");
  CHECK(std::string_view(root["string"]) == "s");
  CHECK(std::string_view(root["view"]) == "v");
  CHECK(int64_t(root["int"]) == -5);
  CHECK(uint64_t(root["big"]) == UINT64_MAX);
  CHECK(int64_t(root["small"]) == INT64_MIN);
  CHECK(uint64_t(root["byte"]) == 65);
  CHECK(bool(root["yes"]));
  CHECK_FALSE(bool(root["no"]));
  CHECK(double(root["real"]) == 0.1);
  CHECK(double(root["whole"]) == 2.0);
  CHECK(simdjson::minify(root["shape"]) == "[2,3]");
  CHECK(simdjson::minify(root["none"]) == "[]");
  CHECK(simdjson::minify(root["names"]) == R"(["a","b"])");
  CHECK(simdjson::minify(root["list"]) == R"([1,"two",{"k":3}])");
  CHECK(simdjson::minify(root["empty"]) == "{}");
  CHECK(simdjson::minify(root["nothing"]) == "[]");
}

TEST_CASE("every character that JSON escapes survives, in values and in keys") {
  std::string text = "\"\\/ \xC3\xA9 \xF0\x9F\x98\x80 \x7f";
  for (char c = 0; c < 0x20; ++c) text += c;
  JsonWriter json;
  json.begin_object().member(text, text).end_object();
  simdjson::dom::parser parser;
  const auto root = parse(parser, std::move(json).take());
  CHECK(std::string_view(root.at_key(text)) == text);
}

TEST_CASE("text that is not UTF-8, such as a path, still gives JSON that can be read") {
  JsonWriter json;
  json.begin_object().member("path", "/models/caf\xE9/x").end_object();
  simdjson::dom::parser parser;
  const auto root = parse(parser, std::move(json).take());
  CHECK(std::string_view(root["path"]) == "/models/caf\xEF\xBF\xBD/x");
}

TEST_CASE("numbers that JSON does not have become null") {
  JsonWriter json;
  json.begin_array()
      .value(std::numeric_limits<double>::infinity())
      .value(std::nan(""))
      .value(-0.0)
      .value(1e300)
      .end_array();
  simdjson::dom::parser parser;
  const auto root = parse(parser, std::move(json).take());
  CHECK(root.at(0).is_null());
  CHECK(root.at(1).is_null());
  CHECK(double(root.at(2)) == 0);
  CHECK(double(root.at(3)) == 1e300);
}

TEST_CASE("entries of a long list stay on lines of their own, with little indent") {
  JsonWriter json;
  json.begin_object().key("tensors").begin_array();
  json.begin_object().member("shape", std::vector<int>{1, 2}).end_object();
  json.end_array().end_object();
  CHECK(std::move(json).take() ==
        "{\n  \"tensors\": [\n    {\n      \"shape\": [1, 2]\n    }\n  ]\n}\n");
}
