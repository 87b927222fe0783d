// SPDX-License-Identifier: Apache-2.0

// Changes of config.json's text: what goes, and that all else stays as it was and is still JSON.
#include <crossdock/config_text.hpp>

#include "tests/catch.h"

#include <simdjson.h>

#include <optional>
#include <random>

using namespace crossdock;

namespace {

const std::vector<std::string> kKeys{"q", "c"};

std::string without(std::string_view text) { return without_members(text, kKeys); }

bool is_key(std::string_view key) {
  return std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end();
}

// What a parser sees in it but for the members that go, as one text; nothing: it is no JSON.
std::string values_of(simdjson::dom::element value, bool is_changed) {
  simdjson::dom::object object;
  if (!is_changed || value.get(object)) return simdjson::minify(value);
  std::string out = "{";
  for (const auto member : object) {
    if (is_key(member.key)) continue;
    const bool is_nested = member.key == "text_config";
    out += std::string(member.key) + ":" + values_of(member.value, is_nested) + ",";
  }
  return out + "}";
}
std::optional<std::string> values_of(const std::string& text) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (parser.parse(text).get(root)) return std::nullopt;
  return values_of(root, true);
}

// Objects whose strings are full of what JSON is made of.
class Random {
 public:
  explicit Random(uint32_t seed) : random_(seed) {}

  std::string object(int depth) {
    std::string out = "{" + space();
    const uint64_t n = random_() % 5;
    for (uint64_t i = 0; i < n; ++i)
      out += (i ? "," : "") + space() + key() + space() + ":" + space() + value(depth) + space();
    return out + "}";
  }

 private:
  std::string one_of(std::initializer_list<const char*> all) {
    return all.begin()[random_() % all.size()];
  }
  std::string space() { return one_of({"", "", "", " ", "\n  ", "\t", "\r\n"}); }
  std::string key() {
    return one_of({R"("q")", R"("c")", R"("q")", R"("text_config")", R"("a")", R"("qq")", R"("")",
                   R"("q\"")", R"("\"q\":")", R"("dtype")", R"("{")", R"("\\")", R"("[,}")"});
  }
  std::string value(int depth) {
    const uint64_t what = random_() % 10;
    if (what < 3 && depth > 0) return object(depth - 1);
    if (what < 5 && depth > 0) return "[" + value(depth - 1) + "," + value(depth - 1) + "]";
    if (what < 7) return key();
    return one_of({"1", "-2.5e3", "null", "true", "[]", "{}", R"("}")", R"(["q"])", R"("\\\"")",
                   R"({"q":1})", R"(",\"q\":{")"});
  }

  std::mt19937 random_;
};

}  // namespace

TEST_CASE("config: only the top level's element type changes") {
  CHECK(with_dtype(R"({"dtype": "float32", "n": 1e-5})", "float16") ==
        R"({"dtype": "float16", "n": 1e-5})");
  CHECK(with_dtype("\xef\xbb\xbf{\n\t\"torch_dtype\" :\r\n \"bfloat16\"\n}\n", "float32") ==
        "\xef\xbb\xbf{\n\t\"torch_dtype\" :\r\n \"float32\"\n}\n");
  const std::string both =
      R"({"torch_dtype":"a","x":{"dtype":"b"},"y":[{"dtype":"c"}],"dtype":"d"})";
  CHECK(with_dtype(both, "float16") ==
        R"({"torch_dtype":"float16","x":{"dtype":"b"},"y":[{"dtype":"c"}],"dtype":"float16"})");
  for (const std::string same :
       {R"({"dtype": null, "torch_dtype": 3})", R"({"x": "dtype", "y": "\"dtype\": \"q\""})",
        R"({"a{": "}", "b": ["dtype", "float32"]})", R"({"dtype")", R"({"dtype":)", "",
        R"("dtype)"})
    CHECK(with_dtype(same, "float16") == same);
}

TEST_CASE("config: members go with one comma, wherever they are") {
  CHECK(without(R"({"q": 1, "a": 2})") == R"({"a": 2})");
  CHECK(without(R"({"a": 1, "q": {"x": [1, 2]}, "b": 2})") == R"({"a": 1, "b": 2})");
  CHECK(without("{\n  \"a\": 1,\n  \"q\": {\n    \"x\": 1\n  }\n}\n") == "{\n  \"a\": 1\n}\n");
  CHECK(without(R"({"q": 1})") == "{}");
  CHECK(without(R"({ "q" : "x" })") == "{  }");
  CHECK(without(R"({"q": 1, "c": 2})") == "{}");
  CHECK(without(R"({"a": 1, "q": 2, "c": 3})") == R"({"a": 1})");
  CHECK(without(R"({"q": 1, "a": 2, "c": 3, "q": 4})") == R"({"a": 2})");
  CHECK(without(R"({"a": 1, "q": 2, "q": 3, "b": 4, "c": 5})") == R"({"a": 1, "b": 4})");
}

TEST_CASE("config: members of its text_config go, and of nothing else") {
  CHECK(without(R"({"text_config": {"q": 1}, "q": 2})") == R"({"text_config": {}})");
  CHECK(without(R"({"q": 2, "text_config": {"a": 0, "c": 1} })") ==
        R"({"text_config": {"a": 0} })");
  CHECK(without(R"({"text_config": {"a": 1, "q": 1}, "b": 3, "c": 4})") ==
        R"({"text_config": {"a": 1}, "b": 3})");
  for (const std::string same :
       {R"({"vision_config": {"q": 1}, "x": [{"q": 2}]})", R"({"text_config": "q", "b": "c"})",
        R"({"text_config": ["q", {"q": 1}]})", R"({"x": {"text_config": {"q": 1}}})",
        R"(["q", {"q": 1}])"})
    CHECK(without(same) == same);
}

TEST_CASE("config: strings that look like members stay") {
  for (const std::string same :
       {R"({"a": "\"q\": 1"})", R"({"a": "q"})", R"({"a\"q": 1})", R"({"qc": 1, "cq": {"x": "}"}})",
        R"({"a": ",\"q\":{", "b": "\\"})", R"({"q\\": 1})"})
    CHECK(without(same) == same);
  CHECK(without(R"({"a": "}", "q": "{\"", "b": "\\"})") == R"({"a": "}", "b": "\\"})");
}

TEST_CASE("config: what is no JSON is no trouble") {
  const std::string text =
      R"({"a": 1, "q": {"x": "\"}"}, "text_config": {"q": [1], "b": 2}, "c": 3})";
  for (size_t n = 0; n < text.size(); ++n) {
    CHECK(without(text.substr(0, n)).size() <= n);
    CHECK(without(text.substr(n)).size() <= text.size() - n);
    (void)with_dtype(text.substr(0, n), "float16");
  }
  for (const std::string same :
       {"", "{", "}", "}}}{", "\"", "\"\\", "{\"q\"", "{\"q\":", ",", "null"})
    CHECK(without(same) == same);
  for (const char* broken : {R"({"q":})", R"({"q":1)", R"({"q":1,)", R"({"q":1 "c":2})",
                             R"({"q" "c":1})", R"(]{"q":1}{"c":2})"})
    CHECK(without(broken).size() <= std::string_view(broken).size());
}

TEST_CASE("config: JSON stays JSON, with the same members but for those") {
  Random random(3);
  uint64_t n_changed = 0;
  for (int round = 0; round < 5000; ++round) {
    const std::string text = random.object(3);
    const auto want = values_of(text);
    INFO(text);
    REQUIRE(want);
    const std::string after = without(text);
    INFO(after);
    REQUIRE(values_of(after) == want);
    n_changed += after != text;
    simdjson::dom::parser parser;
    REQUIRE(parser.parse(with_dtype(text, "float16")).error() == simdjson::SUCCESS);
  }
  CHECK(n_changed > 1000);
}
