// SPDX-License-Identifier: Apache-2.0
#include "core/io/staging.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <thread>

#include "core/io/leftovers.h"
#include "tests/unit/core_test_support.h"

using namespace crossdock::io;
using namespace crossdock::test;
using crossdock::as_bytes;
using crossdock::cat;
using crossdock::Result;

namespace {

std::unique_ptr<Staging> opened(const fs::path& out, StagingOptions options) {
  auto staging = Staging::open(Os::real(), out, std::move(options));
  INFO((staging ? "" : staging.error().message));
  REQUIRE(staging);
  return *std::move(staging);
}
std::unique_ptr<Staging> opened(const fs::path& out, bool overwrite = false) {
  return opened(out, {.overwrite = overwrite, .sync = false});
}
std::string refusal(const fs::path& out, bool overwrite = false) {
  return message(Staging::open(Os::real(), out, {.overwrite = overwrite}));
}

std::atomic<uint64_t> next_number{0};
Result<std::unique_ptr<StagedObject>> create(Staging& staging, const std::string& name,
                                             uint64_t size) {
  return staging.create(next_number++, name, size);
}

// Where the file that was created last is worked on.
fs::path worked_on(const fs::path& partial) {
  for (const fs::path& entry : fs::directory_iterator(partial / "parts")) {
    const fs::path file = entry / std::to_string(next_number - 1);
    if (fs::exists(file)) return file;
  }
  FAIL("no such file in " << partial);
  return {};
}

void add(Staging& staging, const std::string& name, const std::string& bytes) {
  const uint64_t number = next_number++;
  const auto object = staging.create(number, name, bytes.size());
  INFO((object ? "" : object.error().message));
  REQUIRE(object);
  REQUIRE((*object)->write(0, as_bytes(bytes)));
  CHECK(*(*object)->seal() == tree_digest_of(bytes));
  REQUIRE(staging.place(number, name));
}

// One whole run that makes OUT of one file.
void make_out(const fs::path& out, const std::string& name, const std::string& bytes,
              bool overwrite = false) {
  const auto staging = opened(out, {.overwrite = overwrite, .restart = true});
  add(*staging, name, bytes);
  const auto done = staging->publish(report_of({name.c_str()}));
  INFO((done ? "" : done.error().message));
  REQUIRE(done);
}

using Tree = std::map<std::string, std::string>;
using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("nothing is at OUT until the commit, then all of it") {
  const TempDir dir;
  const fs::path out = dir / "out";
  {
    const auto staging = opened(out);
    add(*staging, "a/b/one", "1");
    add(*staging, "a/b/two", "22");
    add(*staging, "empty", "");
    CHECK_FALSE(fs::exists(out));
    REQUIRE(staging->publish("{}"));
    CHECK(tree(out) == Tree{{"a", ""},
                            {"a/b", ""},
                            {"a/b/one", "1"},
                            {"a/b/two", "22"},
                            {"empty", ""},
                            {"crossdock.json", "{}"}});
  }
  CHECK(names(dir.path()) == Names{"out"});
}

TEST_CASE("without a commit nothing is left, made parents included") {
  const TempDir dir;
  fs::create_directory(dir / "had");
  {
    const auto staging = opened(dir / "had/new/deep/out");
    add(*staging, "a/b", "1");
    CHECK(names(dir / "had/new/deep") == Names{"out.partial"});
  }
  CHECK(tree(dir.path()) == Tree{{"had", ""}});
}

TEST_CASE("a parent that others use meanwhile stays") {
  const TempDir dir;
  {
    const auto staging = opened(dir / "new/deep/out");
    put(dir / "new/other");
  }
  CHECK(tree(dir.path()) == Tree{{"new", ""}, {"new/other", "x"}});
}

TEST_CASE("an empty folder may be DST") {
  const TempDir dir;
  fs::create_directory(dir / "out");
  SECTION("and becomes the output") {
    make_out(dir / "out", "f", "1");
    CHECK(tree(dir / "out").at("f") == "1");
  }
  SECTION("and is still there after a failure") { (void)opened(dir / "out"); }
  CHECK(names(dir.path()) == Names{"out"});
}

TEST_CASE("what is at DST is replaced only when asked, and only when it is all ours") {
  const TempDir dir;
  const fs::path out = dir / "out";
  make_out(out, "old", "1");
  const Tree before = tree(dir.path());
  SECTION("not without --overwrite") {
    CHECK(
        contains(refusal(out), "expected DST to be new or empty, found files in " + out.string()));
  }
  SECTION("with it: exchanged") {
    {
      const auto staging = opened(out, true);
      add(*staging, "new", "22");
      CHECK(tree(out) ==
            Tree{{"crossdock.json", report_of({"old"})}, {"old", "1"}});  // until the very end
      REQUIRE(staging->publish(report_of({"new"})));
    }
    CHECK(tree(dir.path()) ==
          Tree{{"out", ""}, {"out/crossdock.json", report_of({"new"})}, {"out/new", "22"}});
    return;
  }
  SECTION("a failure leaves the old one") {
    const auto staging = opened(out, true);
    add(*staging, "new", "22");
  }
  CHECK(tree(dir.path()) == before);
}

TEST_CASE("a folder of somebody else is never replaced") {
  const TempDir dir;
  put(dir / "out/thesis.txt", "years of work");
  CHECK(contains(refusal(dir / "out", true), "found no readable crossdock.json in it"));
  put(dir / "out/crossdock.json", report_of({"old"}));
  CHECK(contains(refusal(dir / "out", true), "found also thesis.txt"));
  CHECK(get(dir / "out/thesis.txt") == "years of work");
  CHECK(names(dir.path()) == Names{"out"});
}

TEST_CASE("DST may not be a file, a link or a mount point") {
  const TempDir dir;
  for (const bool overwrite : {false, true}) {
    put(dir / "file");
    CHECK(contains(refusal(dir / "file", overwrite), "found a file at " + (dir / "file").string()));
    fs::create_directory(dir / "folder");
    fs::create_symlink("folder", dir / "link");
    fs::create_symlink("nowhere", dir / "dangling");
    CHECK(contains(refusal(dir / "link", overwrite),
                   "found a symbolic link at " + (dir / "link").string()));
    CHECK(contains(refusal(dir / "dangling", overwrite), "found a symbolic link at"));
    for (const char* name : {"file", "folder", "link", "dangling"}) fs::remove(dir / name);
  }
  struct stat proc {
  }, root{};
  if (::stat("/proc", &proc) == 0 && ::stat("/", &root) == 0 && proc.st_dev != root.st_dev) {
    CHECK(contains(refusal("/proc", true), "found a mount point at /proc"));
  }
}

TEST_CASE("a rest of a killed run is cleared when it tells nothing, or when that is asked") {
  const TempDir dir;
  const fs::path partial = dir / "out.partial";
  StagingOptions options;
  SECTION("killed before its first file") { fs::create_directory(partial); }
  SECTION("killed before its plan") {
    put(partial / ".crossdock-partial", "");
    put(partial / "parts/host-1-1/plan", "half");
  }
  SECTION("of another version, which does not say what it was making") {
    put(partial / ".crossdock-partial", "");
    put(partial / "zero/half", "ha");
  }
  SECTION("with a plan, when a restart is asked for") {
    opened(dir / "out", {.plan = "other"})->keep(true);
    REQUIRE(fs::exists(partial / "parts/plan"));
    options.restart = true;
  }
  {
    const auto staging = opened(dir / "out", options);
    add(*staging, "new", "1");
    REQUIRE(staging->publish(report_of({"new"})));
  }
  CHECK(tree(dir.path()) ==
        Tree{{"out", ""}, {"out/new", "1"}, {"out/crossdock.json", report_of({"new"})}});
}

TEST_CASE("what an earlier run left is there for the next one, and kept when that one fails") {
  const TempDir dir;
  {
    const auto first = opened(dir / "out", {.plan = "p"});
    add(*first, "a/done", "1");
    REQUIRE(first->journal().append("a/done is there"));
    first->keep(true);
  }
  for (int round = 0; round < 2; ++round) {
    const auto next = opened(dir / "out", {.plan = "p"});
    const auto attempts = next->attempts();
    REQUIRE(attempts);
    REQUIRE(attempts->size() == 1u + round);
    size_t n_records = 0;
    for (const Attempt& attempt : *attempts) n_records += attempt.records.size();
    CHECK(n_records == 1);
    CHECK(*next->placed() == std::map<std::string, uint64_t>{{"a/done", 1}});
  }
  const auto last = opened(dir / "out", {.plan = "p"});
  REQUIRE(last->publish(report_of({"a/done"})));
  CHECK(names(dir.path()) == Names{"out"});
}

TEST_CASE("an unfinished file is taken over once its run is dead, and only then") {
  const TempDir dir;
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    auto staging = Staging::open(Os::real(), dir / "out", {.shared = true});
    auto object = staging ? (*staging)->create(7, "f", 8)
                          : Result<std::unique_ptr<StagedObject>>(staging.error());
    if (!object || !(*object)->write(0, as_bytes("half"))) _exit(1);
    if (!(*staging)->journal().append("half of it")) _exit(2);
    pause();
    _exit(0);
  }
  const auto staging = opened(dir / "out", {.shared = true});
  std::vector<Attempt> found;
  for (int i = 0; i < 2000 && (found.empty() || found[0].records.empty()); ++i) {
    usleep(1000);
    found = *staging->attempts();
  }
  REQUIRE(found.size() == 1);
  REQUIRE(found[0].records.size() == 1);
  CHECK_FALSE(found[0].is_over);
  CHECK(*staging->take_over(found[0], 7, "f", 8) == nullptr);
  kill(child, SIGKILL);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  found = *staging->attempts();
  REQUIRE(found[0].is_over);
  CHECK(*staging->take_over(found[0], 8, "g", 8) == nullptr);
  auto object = staging->take_over(found[0], 7, "f", 8);
  REQUIRE(object);
  REQUIRE(*object);
  const ByteRange half{0, 4};
  REQUIRE((*object)->take_as_written({&half, 1}, {}));
  REQUIRE((*object)->write(4, as_bytes("more")));
  CHECK(*(*object)->seal() == tree_digest_of("halfmore"));
  CHECK(*staging->take_over(found[0], 7, "f", 8) == nullptr);  // it is ours now
}

TEST_CASE("a run that would make something else says so, and leaves what is there") {
  const TempDir dir;
  opened(dir / "out", {.plan = "theirs"})->keep(true);
  const Tree before = tree(dir.path());
  const auto refused = Staging::open(
      Os::real(), dir / "out",
      {.plan = "ours", .difference = [](const std::string& theirs) { return theirs + " differ"; }});
  CHECK(
      contains(message(refused), "found that theirs differ: give the same as then, or --restart"));
  CHECK(tree(dir.path()) == before);
}

TEST_CASE("several runs share a folder, and whoever is last publishes it") {
  const TempDir dir;
  const StagingOptions shared{.shared = true, .plan = "p"};
  const auto first = opened(dir / "out", shared), second = opened(dir / "out", shared);
  add(*first, "one", "1");
  add(*second, "two", "22");
  CHECK(contains(refusal(dir / "out"), "found another crossdock at work"));
  const std::string report = report_of({"one", "two"});
  REQUIRE(second->publish(report));
  CHECK_FALSE(second->is_published_by_others());
  CHECK(first->is_published_by_others());
  CHECK(message(first->publish(report)).find("No such file") != std::string::npos);
  CHECK(tree(dir.path()) ==
        Tree{{"out", ""}, {"out/one", "1"}, {"out/two", "22"}, {"out/crossdock.json", report}});
}

TEST_CASE("clean removes unfinished work, and nothing else") {
  const TempDir dir;
  opened(dir / "out", {.plan = "p"})->keep(true);
  put(dir / "out.x.removed.partial/.crossdock-partial", "");
  put(dir / "out.other.partial/.crossdock-partial", "");  // of another DST
  put(dir / "out/mine");
  {
    const auto live = opened(dir / "out2");
    CHECK(contains(message(clear_staging(Os::real(), dir / "out2")), "another crossdock at work"));
  }
  CHECK(*clear_staging(Os::real(), dir / "out"));
  CHECK_FALSE(*clear_staging(Os::real(), dir / "out"));
  CHECK(names(dir.path()) == Names{"out", "out.other.partial"});
  put(dir / "foreign.partial/notes", "mine");
  CHECK(contains(message(clear_staging(Os::real(), dir / "foreign")), "is not crossdock's"));
}

TEST_CASE("an old OUT that was moved aside comes back when the rest is cleared") {
  const TempDir dir;
  opened(dir / "out", {.plan = "p"})->keep(true);
  put(dir / "out.partial/parts/replaced/old", "1");
  SECTION("by clean") { CHECK(*clear_staging(Os::real(), dir / "out")); }
  SECTION("by a restart") { (void)opened(dir / "out", {.restart = true}); }
  CHECK(tree(dir.path()) == Tree{{"out", ""}, {"out/old", "1"}});
}

TEST_CASE("an OUT.partial that is not ours is refused and kept") {
  const TempDir dir;
  const fs::path partial = dir / "out.partial";
  SECTION("a folder with somebody's files") {
    put(partial / "notes", "mine");
    CHECK(contains(refusal(dir / "out"),
                   "expected " + partial.string() +
                       " to be free for staging, found a folder that is not crossdock's there"));
    CHECK(tree(dir.path()) == Tree{{"out.partial", ""}, {"out.partial/notes", "mine"}});
  }
  SECTION("a folder with somebody's files beside a report") {
    put(partial / "notes", "mine");
    put(partial / "crossdock.json", report_of({"old"}));
    CHECK(contains(refusal(dir / "out"), "found a folder that is not crossdock's there"));
  }
  SECTION("a file") {
    put(partial, "mine");
    CHECK(contains(refusal(dir / "out"), partial.string()));
    CHECK(get(partial) == "mine");
  }
  SECTION("a link, even to a folder of ours") {
    put(dir / "far/.crossdock-partial", "");
    fs::create_symlink("far", partial);
    CHECK(contains(refusal(dir / "out"), partial.string()));
    CHECK(tree(dir / "far").size() == 1);
  }
}

TEST_CASE("a live run's staging is left alone") {
  const TempDir dir;
  const auto first = opened(dir / "out");
  add(*first, "one", "1");
  CHECK(contains(refusal(dir / "out"),
                 "found another crossdock at work in " + (dir / "out.partial").string()));
  CHECK(tree(dir / "out.partial/tree").at("one") == "1");
  REQUIRE(first->publish("{}"));
  CHECK(tree(dir / "out").at("one") == "1");
}

TEST_CASE("a DST that appears during the run is not replaced") {
  const TempDir dir;
  {
    const auto staging = opened(dir / "out");
    add(*staging, "one", "1");
    put(dir / "out/mine", "x");
    CHECK(contains(message(staging->publish("{}")),
                   "expected DST to be new or empty, found files in " + (dir / "out").string()));
  }
  CHECK(tree(dir.path()) == Tree{{"out", ""}, {"out/mine", "x"}});
}

TEST_CASE("a DST that an overwriting run finds changed at its end is not lost") {
  const TempDir dir;
  make_out(dir / "out", "old", "1");
  const auto staging = opened(dir / "out", true);
  add(*staging, "new", "2");
  put(dir / "out/thesis.txt", "put there meanwhile");
  CHECK(contains(message(staging->publish(report_of({"new"}))), "found also thesis.txt"));
  CHECK(get(dir / "out/thesis.txt") == "put there meanwhile");
}

TEST_CASE("names that would leave the folder, or are the host's own, are refused") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  for (const char* name : {"../x", "/x", "a/../../x", "", "crossdock.json", ".crossdock-partial"}) {
    INFO(name);
    CHECK(contains(message(create(*staging, name, 1)), "expected a plain relative name"));
  }
  add(*staging, "one", "1");
  const uint64_t number = next_number++;
  REQUIRE(staging->create(number, "two", 1));
  CHECK(contains(message(staging->create(number, "two", 1)), "for two: File exists"));
  CHECK(contains(message(create(*staging, "big", UINT64_MAX)), "bytes for big"));
}

TEST_CASE("the digest is the file's, whatever the order of the writes") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  std::string bytes(700'000, '\0');
  std::mt19937 random(1);
  for (char& c : bytes) c = static_cast<char>(random());
  std::fill(bytes.begin() + 200'000, bytes.begin() + 450'000, '\0');  // declared zero, not written
  struct Piece {
    size_t begin, n;
  };
  std::vector<Piece> pieces;
  for (size_t at = 0; at < bytes.size(); at += 50'000) pieces.push_back({at, 50'000});
  SECTION("in order") {}
  SECTION("backwards") { std::reverse(pieces.begin(), pieces.end()); }
  SECTION("at random") { std::shuffle(pieces.begin(), pieces.end(), random); }
  SECTION("the first one last") { std::rotate(pieces.begin(), pieces.begin() + 1, pieces.end()); }
  const auto object = create(*staging, "f", bytes.size());
  REQUIRE(object);
  for (const Piece& p : pieces) {
    const bool hole = p.begin >= 200'000 && p.begin < 450'000;
    REQUIRE((hole ? (*object)->zero(p.begin, p.n)
                  : (*object)->write(p.begin, as_bytes(bytes).subspan(p.begin, p.n))));
  }
  CHECK(*(*object)->seal() == tree_digest_of(bytes));
  CHECK(get(worked_on(dir / "out.partial")) == bytes);
}

TEST_CASE("several threads may write one object") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  const std::string bytes(1 << 20, 'x');
  const auto object = *create(*staging, "f", bytes.size());
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < 64; i += 4)
        failures += !object->write(i << 14, as_bytes(bytes).subspan(i << 14, 1 << 14)).has_value();
    });
  }
  for (auto& t : threads) t.join();
  CHECK(failures == 0);
  CHECK(*object->seal() == tree_digest_of(bytes));
}

TEST_CASE("several threads may make files, in the same new folders") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 50; ++i) {
        const uint64_t number = 1000 + i * 4 + t;
        const std::string name = cat("zero/", i, "/", t);
        auto object = staging->create(number, name, 1);
        failures += !object || !(*object)->zero(0, 1) || !(*object)->seal() ||
                    !staging->place(number, name);
      }
    });
  }
  for (auto& t : threads) t.join();
  CHECK(failures == 0);
  CHECK(tree(dir / "out.partial/tree/zero").size() == 50 * 5);
}

TEST_CASE("a byte is written once and never outside") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  const auto object = *create(*staging, "f", 10);
  REQUIRE(object->write(2, as_bytes("abcd")));  // [2, 6)
  for (const uint64_t at : {0, 1, 2, 3, 5}) {
    INFO(at);
    CHECK(contains(message(object->write(at, as_bytes("xyz"))),
                   cat("f: expected each byte to be written once, found a second write at ", at)));
  }
  CHECK(contains(message(object->zero(0, 10)), "found a second write at 0"));
  CHECK(contains(message(object->write(8, as_bytes("xyz"))),
                 "f: expected a write inside 10 bytes, found 3 at 8"));
  CHECK(contains(message(object->zero(UINT64_MAX, 2)), "expected a write inside 10 bytes"));
  CHECK(object->write(10, {}).has_value());
  REQUIRE(object->write(6, as_bytes("efgh")));
  REQUIRE(object->zero(0, 2));
  CHECK(*object->seal() == tree_digest_of(std::string("\0\0abcdefgh", 10)));
}

TEST_CASE("an object with bytes missing is not sealed") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  const auto gap_of = [&](const std::string& name, uint64_t begin, uint64_t n) {
    const auto object = *create(*staging, name, 10);
    REQUIRE(object->zero(begin, n));
    return message(object->seal());
  };
  CHECK(gap_of("end", 0, 9) == "end: expected all of 10 bytes to be written, found none at 9");
  CHECK(gap_of("begin", 1, 9) == "begin: expected all of 10 bytes to be written, found none at 0");
  CHECK(gap_of("all", 0, 0) == "all: expected all of 10 bytes to be written, found none at 0");
  const auto object = *create(*staging, "middle", 10);
  REQUIRE(object->zero(6, 4));
  REQUIRE(object->zero(0, 5));
  CHECK(message(object->seal()) ==
        "middle: expected all of 10 bytes to be written, found none at 5");
}

TEST_CASE("declared zeros take no room on disk") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  constexpr uint64_t kSize = 64 << 20;
  const auto object = *create(*staging, "f", kSize);
  REQUIRE(object->write(0, as_bytes("head")));
  REQUIRE(object->zero(4, kSize - 8));
  REQUIRE(object->write(kSize - 4, as_bytes("tail")));
  REQUIRE(object->seal());
  struct stat st {};
  REQUIRE(::stat(worked_on(dir / "out.partial").c_str(), &st) == 0);
  CHECK(static_cast<uint64_t>(st.st_size) == kSize);
  CHECK(st.st_blocks * 512 < 1 << 20);
}

TEST_CASE(
    "a run that is killed at any moment leaves OUT absent, old or new, and the next one succeeds") {
  const TempDir dir;
  const fs::path out = dir / "out";
  std::mt19937 random(7);
  const std::string old_bytes(50'000, 'o');
  for (int round = 0; round < 40; ++round) {
    const std::string new_bytes = cat("round ", round, std::string(50'000, 'n'));
    const bool had_old = fs::exists(out);
    const Tree before = tree(out);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {  // nothing of the test framework from here on
      auto staging = Staging::open(Os::real(), out, {.overwrite = true, .restart = true});
      if (!staging) _exit(1);
      uint64_t number = 0;
      for (const char* name : {"a/one", "a/b/two", "c/three"}) {
        auto object = (*staging)->create(number, name, new_bytes.size());
        if (!object || !(*object)->write(0, as_bytes(new_bytes)) || !(*object)->seal()) _exit(2);
        if (!(*staging)->place(number++, name)) _exit(2);
      }
      _exit((*staging)->publish(report_of({"a/one", "a/b/two", "c/three"})) ? 0 : 3);
    }
    usleep(static_cast<useconds_t>(random() % 4000));
    kill(child, SIGKILL);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK((WIFSIGNALED(status) || WEXITSTATUS(status) == 0));

    const Tree after = tree(out);
    const bool is_new = after.count("a/b/two") && after.at("a/b/two") == new_bytes;
    INFO("round " << round);
    if (is_new) {
      CHECK(after.at("a/one") == new_bytes);
      CHECK(after.at("c/three") == new_bytes);
      CHECK(after.count("crossdock.json"));
    } else {
      CHECK(fs::exists(out) == had_old);
      CHECK(after == before);
    }
    if (round % 2) {
      make_out(out, "a/old", old_bytes, true);
      CHECK(names(dir.path()) == Names{"out"});
      if (round % 4 == 3) fs::remove_all(out);
    }
  }
}
