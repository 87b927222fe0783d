// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/json.h"

#include "plugins/common/quote.h"
#include "tests/catch.h"

using namespace crossdock;
using common::JsonDialect;
using manifest::Value;
using manifest::ValueList;
using manifest::ValueMap;

namespace {

Result<Value> value_of(std::string_view text, JsonDialect dialect = JsonDialect::kStrict) {
  XD_TRY_SET(const auto doc, common::parse_json(text, dialect));
  return common::json_value(doc.root());
}

std::string error_of(std::string_view text, JsonDialect dialect = JsonDialect::kStrict) {
  const auto value = value_of(text, dialect);
  return value ? "accepted" : value.error().message;
}

// The only member of an object.
template <class T>
T member(std::string_view text, JsonDialect dialect = JsonDialect::kStrict) {
  const auto value = value_of(text, dialect);
  INFO((value ? std::string() : value.error().message));
  REQUIRE(value);
  const auto* map = value->template get<ValueMap>();
  REQUIRE(map);
  REQUIRE(map->entries.size() == 1);
  const T* out = map->entries[0].value.template get<T>();
  REQUIRE(out);
  return *out;
}

}  // namespace

TEST_CASE("json: every kind of value keeps its type") {
  CHECK(member<int64_t>(R"({"a": -1})") == -1);
  CHECK(member<int64_t>(R"({"a": 9223372036854775807})") == INT64_MAX);
  CHECK(member<uint64_t>(R"({"a": 18446744073709551615})") == UINT64_MAX);
  CHECK(member<double>(R"({"a": 1.0})") == 1.0);
  CHECK(member<double>(R"({"a": 1e5})") == 1e5);
  CHECK(member<bool>(R"({"a": true})"));
  CHECK(member<manifest::Null>(R"({"a": null})") == manifest::Null());
  CHECK(member<std::string>(R"({"a": "\u00e9\ud83d\ude00\u0000"})") ==
        std::string("\xc3\xa9\xf0\x9f\x98\x80\0", 7));
  CHECK(member<ValueList>(R"({"a": [1, "b"]})") ==
        ValueList{{Value{int64_t{1}}, Value{std::string("b")}}});
  CHECK(member<ValueMap>(R"({"a": {}})").entries.empty());
}

TEST_CASE("json: members keep their order") {
  const auto value = value_of(R"({"z": 1, "a": 2, "m": 3})");
  REQUIRE(value);
  const auto& entries = value->get<ValueMap>()->entries;
  REQUIRE(entries.size() == 3);
  CHECK(entries[0].key + entries[1].key + entries[2].key == "zam");
}

TEST_CASE("json: what is not JSON is refused") {
  for (const char* text : {"",           " ",
                           "{",          "[1,]",
                           "{\"a\":1,}", "{} x",
                           "{} {}",      "'a'",
                           "NaN",        "[Infinity]",
                           "-",          "01",
                           "1.",         ".5",
                           "+1",         "nul",
                           "1e999",      "18446744073709551616",
                           "\"a\tb\"",   "\"abc",
                           "\"\\x\"",    "\xef\xbb\xbf{}",
                           "[1 2]",      "{\"a\" 1}"}) {
    CAPTURE(text);
    CHECK(error_of(text).find("expected JSON, found ") == 0);
  }
}

TEST_CASE("json: text must be Unicode, also after unescaping") {
  for (const char* text :
       {"\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\xf5\x80\x80\x80\"", R"("\ud800")",
        R"("\udc00")", R"("\ud800\u0041")", R"("\ud800x")", R"("\ud800\ud800")"}) {
    CAPTURE(text);
    CHECK(error_of(text).find("expected JSON, found ") == 0);
  }
}

TEST_CASE("json: a key that is there twice is refused, after unescaping, at any depth") {
  CHECK(error_of(R"({"a": 1, "a": 1})") ==
        "expected each key of an object once, found \"a\" twice");
  CHECK(error_of(R"({"x": [{"a": 1, "b": 2, "\u0061": 1}]})") ==
        "expected each key of an object once, found \"a\" twice");
  std::string many = "{";
  for (int i = 0; i < 1000; ++i) many += cat("\"k", i, "\": 0, ");
  CHECK(error_of(many + "\"k1000\": 0}") == "accepted");
  CHECK(error_of(many + "\"k500\": 0}") ==
        "expected each key of an object once, found \"k500\" twice");
}

TEST_CASE("json: depth is limited") {
  const auto nested = [](int n) { return std::string(n, '[') + std::string(n, ']'); };
  CHECK(error_of(nested(common::kMaxJsonDepth)) == "accepted");
  CHECK(error_of(nested(common::kMaxJsonDepth + 1)) ==
        "expected at most 30 levels of nested JSON, found more");
  CHECK(error_of(nested(100'000)).find("expected JSON, found ") == 0);
}

TEST_CASE("json: the deepest value that is accepted survives the manifest's wire form") {
  manifest::Manifest m;
  m.source.config = *value_of(std::string(common::kMaxJsonDepth - 1, '[') + "{\"a\": 1}" +
                              std::string(common::kMaxJsonDepth - 1, ']'));
  CHECK(manifest::decode<manifest::Manifest>(as_bytes(manifest::encode(m))));
  std::string maps = "1";
  for (int i = 1; i < common::kMaxJsonDepth; ++i) maps = "{\"a\": " + maps + "}";
  m.source.config = *value_of(maps);
  CHECK(manifest::decode<manifest::Manifest>(as_bytes(manifest::encode(m))));
}

TEST_CASE("json: Python's dialect") {
  const auto python = JsonDialect::kPython;
  CHECK(member<std::string>(R"({"time_step_limit": NaN})", python) == "NaN");
  CHECK(member<std::string>(R"({"a": Infinity})", python) == "Infinity");
  CHECK(member<ValueList>(R"({"time_step_limit": [0.0, -Infinity,Infinity]})", python).values[1] ==
        Value{std::string("-Infinity")});
  CHECK(member<double>(R"({"model_max_length": 1000000000000000019884624838656})", python) == 1e30);
  CHECK(member<double>(R"({"a": 18446744073709551616})", python) == 18446744073709551616.0);
  CHECK(member<uint64_t>(R"({"a": 18446744073709551615})", python) == UINT64_MAX);
  CHECK(member<double>(R"({"a": -9223372036854775809})", python) == -9223372036854775809.0);
  CHECK(member<int64_t>(R"({"a": -9223372036854775808})", python) == INT64_MIN);
  // Only outside strings.
  CHECK(member<std::string>(R"({"a": "NaN, \"Infinity\" \\"})", python) == R"(NaN, "Infinity" \)");
  CHECK(member<std::string>(R"({"a\\": "99999999999999999999"})", python) ==
        "99999999999999999999");
  // And nothing else.
  for (const char* text : {"+Infinity", "nan", "inf", "[--Infinity]", "[NaNs]", "{NaN: 1", "\"abc",
                           "\"abc\\", "00000000000000000000001", "1 2", "NaN NaN"}) {
    CAPTURE(text);
    CHECK(error_of(text, python).find("expected JSON, found ") == 0);
  }
}

TEST_CASE("json: text in messages is quoted, escaped and cut off") {
  CHECK(common::in_quotes("a\"b\\c\n\x1b") == R"("a\"b\\c\u000a\u001b")");
  const std::string cut = common::in_quotes(std::string(199, 'x') + "\xc3\xa9");
  CHECK(cut == "\"" + std::string(199, 'x') + "...\"");
}
