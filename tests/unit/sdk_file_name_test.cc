// SPDX-License-Identifier: Apache-2.0
#include <crossdock/file_name.hpp>

#include "tests/catch.h"

using crossdock::fold_case;
using crossdock::is_safe_name;
using crossdock::name_fault;

TEST_CASE("output names are plain and relative") {
  const std::string longest(255, 'n');
  for (const std::string& name : {std::string("a"), std::string("a/b/c.pt"), std::string("..."),
                                  std::string(".x"), longest, "d/" + longest}) {
    INFO(name);
    CHECK(is_safe_name(name));
  }
  for (const std::string& name :
       {std::string(""), std::string("/"), std::string("/a"), std::string("a/"),
        std::string("a//b"), std::string("."), std::string(".."), std::string("a/./b"),
        std::string("a/../b"), std::string("../a"), std::string("a\\b"), std::string("a\0b", 3),
        longest + "n", "d/" + longest + "n"}) {
    INFO(name);
    CHECK_FALSE(is_safe_name(name));
  }
}

TEST_CASE("case is folded for ASCII letters only") {
  CHECK(fold_case("AbZ_09@[`{") == "abz_09@[`{");
  CHECK(fold_case("\xC3\x89") == "\xC3\x89");
}

TEST_CASE("what keeps a name from being a part of a path is told") {
  CHECK(name_fault("a b") == "");
  CHECK(name_fault("") == "is empty");
  CHECK(name_fault("..") == "means another folder");
  CHECK(name_fault("a/b") == "holds '/'");
  CHECK(name_fault(std::string(256, 'x')) == "has 256 bytes, more than 255");
}
