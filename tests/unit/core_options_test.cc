// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/options.h"

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using plugin::CheckedOptions;
using plugin::GivenOptions;

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

// The checked options of a schema of one option; or the refusal.
Result<CheckedOptions> checked(const char* type, const char* fallback, const GivenOptions& given) {
  const xd_option_desc desc{XD_INIT_SIZE(xd_option_desc), 0, "opt", type, fallback, "what it does"};
  const xd_option_desc* schema[] = {&desc, nullptr};
  return CheckedOptions::check(schema, given);
}

// What the plugin sees for one value of a type, or the refusal.
std::string seen(const char* type, const std::string& value) {
  const auto result = checked(type, "", {{"opt", {value}}});
  if (!result) return result.error().message;
  REQUIRE(result->pairs().size() == 1);
  return result->pairs()[0].second;
}

}  // namespace

TEST_CASE("good values of every type pass, sizes as a number of bytes") {
  CHECK(seen("bool", "true") == "true");
  CHECK(seen("bool", "false") == "false");
  CHECK(seen("int", "-42") == "-42");
  CHECK(seen("int", "9223372036854775807") == "9223372036854775807");
  CHECK(seen("float", "1e-5") == "1e-5");
  CHECK(seen("size", "2MiB") == "2097152");
  CHECK(seen("string", "") == "");
  CHECK(seen("string", "any = thing\n") == "any = thing\n");
  CHECK(seen("enum:a|bc", "a") == "a");
  CHECK(seen("enum:a|bc", "bc") == "bc");
  CHECK(seen("list", "x") == "x");
}

TEST_CASE("bad values are refused with what was expected") {
  CHECK(seen("bool", "yes") == "--opt: expected true or false, found \"yes\"");
  for (const char* value : {"", "x", "1.5", "1x", " 1", "+1", "9223372036854775808"}) {
    CHECK(seen("int", value) == cat("--opt: expected a whole number, found \"", value, '"'));
  }
  for (const char* value : {"", "x", "1,5", "1.5 ", "nan", "inf", "-inf"}) {
    CHECK(seen("float", value) == cat("--opt: expected a number, found \"", value, '"'));
  }
  for (const char* value : {"", "x", "-1", "1QB"})
    CHECK(seen("size", value) ==
          cat("--opt: expected a size such as 512MiB, found \"", value, '"'));
  for (const char* value : {"", "c", "a|bc", "b", "A", "|"})
    CHECK(seen("enum:a|bc", value) == cat("--opt: expected one of a|bc, found \"", value, '"'));
}

TEST_CASE("a file comes as its text, and is told as its path") {
  const TempDir dir;
  const std::string path = (dir / "job.json").string();
  put(path, "{}\n");
  const auto given = checked("file", "", {{"opt", {path}}});
  REQUIRE(given);
  CHECK(std::string(given->table()[0]->value) == "{}\n");
  CHECK(given->pairs() == Pairs{{"opt", path}});
  CHECK(checked("file", "", {})->pairs() == Pairs{{"opt", ""}});
  const std::string expected =
      cat("--opt ", path, ": expected a text file of at most 16 MiB, found ");
  CHECK(seen("file", path + "x") ==
        cat("--opt ", path,
            "x: expected a text file of at most 16 MiB, found no such file: check the path"));
  CHECK(seen("file", "") ==
        "--opt : expected a text file of at most 16 MiB, found no such file: check the path");
  put(path, "");
  CHECK(seen("file", path) == expected + "an empty file");
  put(path, std::string("a\0b", 3));
  CHECK(seen("file", path) == expected + "bytes that are not UTF-8 text");
  put(path, "caf\xe9");
  CHECK(seen("file", path) == expected + "bytes that are not UTF-8 text");
  put(path, std::string((16 << 20) + 1, ' '));
  CHECK(seen("file", path) == expected + "a file of 16777217 bytes, more than 16777216");
}

TEST_CASE("fallbacks stand in, in the same form as given values") {
  CHECK(checked("string", "dflt", {})->pairs() == Pairs{{"opt", "dflt"}});
  CHECK(checked("size", "1KiB", {})->pairs() == Pairs{{"opt", "1024"}});
  CHECK(checked("int", "", {})->pairs() == Pairs{{"opt", ""}});  // not set
  CHECK(checked("list", "", {})->pairs().empty());
  CHECK(checked("string", "dflt", {{"opt", {}}})->pairs() == Pairs{{"opt", "dflt"}});
}

TEST_CASE("an option without a fallback is required") {
  CHECK(message(checked("string", nullptr, {})) == "expected --opt, found none: what it does");
  CHECK(checked("string", nullptr, {{"opt", {"x"}}}).has_value());
}

TEST_CASE("one value, unless it is a list") {
  CHECK(message(checked("string", "", {{"opt", {"a", "b"}}})) ==
        "--opt: expected one value, found 2");
  CHECK(checked("list", "", {{"opt", {"b", "a", "b"}}})->pairs() ==
        Pairs{{"opt", "b"}, {"opt", "a"}, {"opt", "b"}});
}

TEST_CASE("the table that plugins get ends in NULL and stays good when the options move") {
  CheckedOptions first = *checked("list", "", {{"opt", {"a", std::string(100, 'b')}}});
  const CheckedOptions moved = std::move(first);
  const xd_option* const* table = moved.table();
  REQUIRE(table[0]);
  REQUIRE(table[1]);
  CHECK(table[2] == nullptr);
  CHECK(std::string(table[0]->key) == "opt");
  CHECK(std::string(table[0]->value) == "a");
  CHECK(std::string(table[1]->value) == std::string(100, 'b'));
  CHECK(table[0]->struct_size == sizeof(xd_option));
}

TEST_CASE("a plugin without options gets an empty table") {
  CHECK(CheckedOptions::check(nullptr, {})->table()[0] == nullptr);
}
