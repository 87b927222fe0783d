// SPDX-License-Identifier: Apache-2.0
#include "core/model/value_text.h"

#include <simdjson.h>

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::Value;
using model::value_text;

namespace {

Value nested() {
  manifest::ValueList betas{{{0.9}, {0.95}}};
  manifest::ValueMap map{{{"lr", {0.003}},
                          {"betas", {betas}},
                          {"name\n", {std::string("t\x1b")}},
                          {"none", {manifest::Null()}},
                          {"n", {int64_t{-3}}},
                          {"flag", {true}}}};
  return {map};
}

}  // namespace

TEST_CASE("a value on one line") {
  CHECK(value_text({std::string("pt")}) == "pt");
  CHECK(value_text(Value()) == "null");
  CHECK(value_text({uint64_t{1} << 63}) == "9223372036854775808");
  CHECK(value_text(nested(), 1000) ==
        "{\"lr\": 0.003, \"betas\": [0.9, 0.95], \"name\\x0a\": \"t\\x1b\", "
        "\"none\": null, \"n\": -3, \"flag\": true}");
}

TEST_CASE("a long value is cut") {
  CHECK(value_text(nested(), 20).ends_with("..."));
  CHECK(value_text(nested(), 20).size() < 60);
  CHECK(value_text({std::string(1000, 'x')}, 20).size() == 20);
  CHECK(value_text({manifest::ValueList{std::vector<Value>(1000)}}) == "[1000 values]");
}

TEST_CASE("a value as JSON") {
  base::JsonWriter json;
  model::write_value(json, nested());
  const std::string text = std::move(json).take();
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  REQUIRE_FALSE(parser.parse(text).get(root));
  CHECK(double(root["lr"]) == 0.003);
  CHECK(double(root["betas"].at(1)) == 0.95);
  CHECK(std::string_view(root["name\n"]) == "t\x1b");
  CHECK(root["none"].is_null());
  CHECK(int64_t(root["n"]) == -3);
  CHECK(bool(root["flag"]));
}
