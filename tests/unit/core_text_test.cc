// SPDX-License-Identifier: Apache-2.0
#include "core/base/text.h"

#include "core/base/regex.h"

#include "tests/catch.h"

#include <regex>

using namespace crossdock::base;

TEST_CASE("bytes are shown in decimal units with two or three digits") {
  CHECK(human_bytes(0) == "0 B");
  CHECK(human_bytes(999) == "999 B");
  CHECK(human_bytes(1000) == "1.0 kB");
  CHECK(human_bytes(9'940) == "9.9 kB");
  CHECK(human_bytes(9'960) == "10 kB");
  CHECK(human_bytes(999'400) == "999 kB");
  CHECK(human_bytes(999'600) == "1.0 MB");  // never "1000 kB"
  CHECK(human_bytes(4'400'000'000) == "4.4 GB");
  CHECK(human_bytes(UINT64_MAX) == "18 EB");
}

TEST_CASE("seconds are shown with the two units that matter") {
  CHECK(human_seconds(0) == "0.0 s");
  CHECK(human_seconds(12.34) == "12.3 s");
  CHECK(human_seconds(60) == "1 min 0 s");
  CHECK(human_seconds(250.4) == "4 min 10 s");
  CHECK(human_seconds(3600) == "1 h 0 min");
  CHECK(human_seconds(90'000) == "25 h 0 min");
  CHECK(human_seconds(59.99) == "1 min 0 s");  // never "60.0 s"
}

TEST_CASE("sizes are read with decimal and binary units") {
  CHECK(parse_size("64") == 64u);
  CHECK(parse_size("64B") == 64u);
  CHECK(parse_size("2kB") == 2000u);
  CHECK(parse_size("2GB") == 2'000'000'000u);
  CHECK(parse_size("3TB") == 3'000'000'000'000u);
  CHECK(parse_size("512KiB") == 512u * 1024);
  CHECK(parse_size("256mib") == 256u << 20);
  CHECK(parse_size("1.5GiB") == 3u << 29);
  CHECK(parse_size("1TiB") == uint64_t{1} << 40);
  CHECK(parse_size("1g") == 1u << 30);
  CHECK(parse_size("0") == 0u);
  CHECK(parse_size("0.5KiB") == 512u);
}

TEST_CASE("what is not a size that fits gives nothing") {
  for (const char* text : {"", " ", "MiB", "-1", "-1MiB", "1 MiB", "1MiB ", "1XB", "nan", "inf",
                           "infGiB", "1e30", "17179869184GiB", "0x10"}) {
    INFO(text);
    CHECK_FALSE(parse_size(text));
  }
}

TEST_CASE("UTF-8 is what RFC 3629 says") {
  CHECK(is_utf8(""));
  CHECK(is_utf8("plain"));
  CHECK(
      is_utf8("\xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80 \xEF\xBF\xBF "
              "\xF0\x90\x80\x80 \xF4\x8F\xBF\xBF"));
  CHECK(is_utf8(std::string_view("\0", 1)));
  for (const char* text :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE2\x82",
        "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x90\x80", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\xFE", "\xFF", "ab\xE2\x28\xA1"}) {
    INFO(printable(text));
    CHECK_FALSE(is_utf8(text));
  }
}

TEST_CASE("control characters cannot reach a terminal") {
  CHECK(printable("h\xC3\xA9 [0]") == "h\xC3\xA9 [0]");
  CHECK(printable("\x1b[2J\n\x7f") == "\\x1b[2J\\x0a\\x7f");
  CHECK(printable(std::string_view("a\0b", 3)) == "a\\x00b");
}

TEST_CASE("expressions that are plain text mean what they mean to the library") {
  const char* names[] = {"a.b", "xa.b", "a.bx", "xa.bx", "axb", "a.b.a.b", "", "a", "^a$"};
  for (const char* pattern : {"a\\.b", "^a\\.b", "a\\.b$", "^a\\.b$", "a", "^", "$", "^$", "a.b",
                              "b$", "\\.", "a\\b", "^a\\.b|x"}) {
    const auto regex = Regex::compile(pattern);
    REQUIRE(regex);
    for (const std::string name : names) {
      INFO(pattern << " in " << name);
      const std::regex library(pattern);
      CHECK(*regex->is_in(name) == std::regex_search(name, library));
      CHECK(*regex->replace(name, "<$&>") == std::regex_replace(name, library, "<$&>"));
    }
  }
}
