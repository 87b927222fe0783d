// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/pattern.h"

#include "tests/support/plugin_checks.h"

using namespace crossdock;
using reader_zero::Pattern;
using test::has;

TEST_CASE("patterns match as Python's re.match") {
  struct Case {
    std::string pattern, name;
    bool matches;
  };
  // What Python 3.11 says.
  const std::vector<Case> cases{
      {"^model\\.norm\\.weight$", "model.norm.weight", true},
      {"^model\\.norm\\.weight$", "model.norm.weight2", false},
      {"^model\\.norm\\.weight$", "model_norm.weight", false},
      {"model\\.norm\\.weight", "model.norm.weight2", true},
      {"norm", "model.norm", false},
      {".*norm", "model.norm", true},
      {"\\d+.mlp.dense_4h_to_h.weight", "12.mlp.dense_4h_to_h.weight", true},
      {"\\d+.mlp.dense_4h_to_h.weight", "x.mlp.dense_4h_to_h.weight", false},
      {"\\d+\\.(a|bc|)d$", "3.d", true},
      {"\\d+\\.(a|bc|)d$", "3.bcd", true},
      {"\\d+\\.(a|bc|)d$", "3.abcd", false},
      {"(?:a|b)+c", "ababc", true},
      {"[a-c_]*[^a-z]", "abc_Z", true},
      {"[a-c_]*[^a-z]", "abd", false},
      {"[]x]+$", "]x]", true},
      {"[\\d-]+$", "3-4", true},
      {"a{2}$", "aa", true},
      {"a{2}$", "aaa", false},
      {"a{2,3}b", "aaab", true},
      {"a{2,3}b", "aaaab", false},
      {"a{,2}b", "b", true},
      {"a{3,}b", "aab", false},
      {"a??b", "ab", true},
      {"\\w+\\s\\S$", "a_1 x", true},
      {"\\D\\W$", "a.", true},
      {"\\D\\W$", "aa", false},
      {"(a*)*b", "aaab", true},
      {"(a*)*$", "", true},
      {"", "anything", true},
      {"$", "x", false},
      {"x$", "x\n", true},
      {".", "\n", false},
  };
  for (const auto& [pattern, name, matches] : cases) {
    CAPTURE(pattern, name);
    const auto compiled = Pattern::compile(pattern);
    REQUIRE(compiled);
    CHECK(compiled->matches(name) == matches);
    CHECK(compiled->text() == pattern);
  }
}

TEST_CASE("a pattern takes no more time than its length and the name's") {
  const auto compiled = Pattern::compile("(((a*)*)*)*((a|a)*)*b$");
  REQUIRE(compiled);
  CHECK_FALSE(compiled->matches(std::string(100'000, 'a')));
}

TEST_CASE("patterns that are not understood") {
  const auto said = [](const std::string& pattern) {
    const auto compiled = Pattern::compile(pattern);
    return compiled ? "read" : compiled.error().message;
  };
  CHECK(said("a(?=b)") ==
        "pattern \"a(?=b)\": expected a pattern of literals, classes, groups and repeats, found a "
        "group with '(?'");
  for (const char* pattern : {"(a", "a)", "[a", "a\\", "*a", "a**", "a{x}", "a{3,2}", "a{9999}",
                              "\\bx", "\\1", "a^", "(^a)", "[z-a]", "a{2}{3}"}) {
    CAPTURE(pattern);
    CHECK(has(said(pattern), "found "));
  }
  CHECK(has(said(std::string(40, '(') + std::string(40, ')')), "too deep"));
  CHECK(has(said("((a{1000}){1000}){1000}"), "found a longer one"));
  CHECK(has(said(std::string(5000, 'a')), "at most 4096 bytes, found 5000"));
}
