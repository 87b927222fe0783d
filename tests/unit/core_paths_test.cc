// SPDX-License-Identifier: Apache-2.0
#include "core/io/paths.h"

#include "tests/unit/core_test_support.h"

using namespace crossdock::io;
using namespace crossdock::test;

TEST_CASE("a path is inside a folder by its parts, not by its letters") {
  CHECK(is_inside("/a/b", "/a"));
  CHECK(is_inside("/a", "/a"));
  CHECK(is_inside("/a", "/"));
  CHECK_FALSE(is_inside("/ab", "/a"));
  CHECK_FALSE(is_inside("/a", "/a/b"));
}

TEST_CASE("a destination is made absolute, its parent resolved, its own name kept") {
  const TempDir dir;
  fs::create_directory(dir / "real");
  fs::create_symlink("real", dir / "link");
  const auto resolved = [](const fs::path& path) {
    return resolve_destination(path.string())->string();
  };
  CHECK(resolved(dir / "real/out") == (dir / "real/out").string());
  CHECK(resolved(dir / "real/out/") == (dir / "real/out").string());
  CHECK(resolved(dir / "real/./x/../out") == (dir / "real/out").string());
  CHECK(resolved(dir / "link/out") == (dir / "real/out").string());
  CHECK(resolved(dir / "link") ==
        (dir / "link").string());  // a link as DST itself can still be seen
  CHECK(resolved(dir / "none/deep/out") == (dir / "none/deep/out").string());

  const fs::path before = fs::current_path();
  fs::current_path(dir.path());
  CHECK(resolved("out") == (dir / "out").string());
  CHECK(resolved("./out/") == (dir / "out").string());
  fs::current_path(before);
}

TEST_CASE("a destination without a name of its own is refused") {
  for (const char* text : {"..", "../..", "/x/..", "/", "//", ""}) {
    INFO(text);
    CHECK(contains(message(resolve_destination(text)),
                   "expected the name of a folder to make as DST"));
  }
}

TEST_CASE("DST and SRC must lie apart") {
  const TempDir dir;
  put(dir / "src/model");
  put(dir / "far/blob");
  fs::create_symlink(dir / "far/blob", dir / "src/linked");
  fs::create_symlink("src", dir / "alias");
  const auto source = open_input((dir / "src").string());
  const auto apart = [&](const std::string& destination) {
    return check_apart(*source, *resolve_destination((dir / destination).string()));
  };
  CHECK(apart("out").has_value());
  CHECK(apart("srcx").has_value());
  CHECK(apart("new/deep/out").has_value());
  CHECK(contains(message(apart("src")), "to be the same as " + (dir / "src").string()));
  CHECK(contains(message(apart("alias")), "to be the same as"));
  CHECK(contains(message(apart("src/out")), "inside " + (dir / "src").string()));
  CHECK(contains(message(apart("alias/out")), "inside"));
  CHECK(contains(message(apart("")), "to hold " + (dir / "src").string()));
  CHECK(contains(message(apart("far")),
                 "to hold " + (dir / "far/blob").string()));  // where a link of SRC leads
}

TEST_CASE("a single file as SRC may not lie in DST either") {
  const TempDir dir;
  put(dir / "model.safetensors");
  const auto source = open_input((dir / "model.safetensors").string());
  CHECK(check_apart(*source, dir / "out").has_value());
  CHECK(contains(message(check_apart(*source, dir / "model.safetensors")), "to be the same as"));
  CHECK(contains(message(check_apart(*source, dir.path())), "to hold"));
}

TEST_CASE("a folder is ours when its report lists everything in it") {
  const TempDir dir;
  const fs::path out = dir / "out";
  put(out / "crossdock.json", report_of({"latest", "tag/zero/w/fp32.pt", "gone"}));
  put(out / "latest");
  put(out / "tag/zero/w/fp32.pt");
  CHECK(*listed_in_report(out) ==
        std::set<std::string>{"crossdock.json", "gone", "latest", "tag/zero/w/fp32.pt"});
  CHECK(*names_in(out) == std::set<std::string>{"crossdock.json", "latest", "tag/", "tag/zero/",
                                                "tag/zero/w/", "tag/zero/w/fp32.pt"});
  CHECK(check_is_all_ours(out).has_value());

  const auto foreign = [&](const std::string& name) {
    const std::string text = message(check_is_all_ours(out));
    INFO(text);
    CHECK(contains(text, "found also " + name + ": it is not replaced"));
  };
  SECTION("another file") {
    put(out / "tag/zero/w/notes.txt");
    foreign("tag/zero/w/notes.txt");
  }
  SECTION("a hidden file") {
    put(out / ".keep");
    foreign(".keep");
  }
  SECTION("an empty folder") {
    fs::create_directory(out / "runs");
    foreign("runs/");
  }
  SECTION("a folder whose name begins like one of ours") {
    fs::create_directory(out / "ta");
    foreign("ta/");
  }
  SECTION("a folder in a file's place") {
    fs::create_directory(out / "gone");
    foreign("gone/");
  }
  SECTION("a link in a file's place") {
    fs::create_symlink("latest", out / "gone");
    foreign("gone@");
  }
  SECTION("a link to a folder, which is not entered") {
    fs::create_symlink("/", out / "root");
    foreign("root@");
  }
  SECTION("a link to itself") {
    fs::create_symlink("self", out / "self");
    foreign("self@");
  }
}

TEST_CASE("a folder without a report that can be read is not ours") {
  const TempDir dir;
  for (const char* text : {"", "{", "[]", "{}", R"({"files": 3})", R"({"files": [{}]})",
                           R"({"files": ["a"]})", R"({"files": [{"path": "a"}]})"}) {
    INFO(text);
    put(dir / "crossdock.json", text);
    CHECK(
        contains(message(check_is_all_ours(dir.path())), "found no readable crossdock.json in it"));
  }
  fs::remove(dir / "crossdock.json");
  CHECK(contains(message(check_is_all_ours(dir.path())), "found no readable crossdock.json in it"));
}
