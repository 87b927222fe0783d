#include "core/io/staging.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <thread>

#include "tests/unit/core_test_support.h"

using namespace crossdock::io;
using namespace crossdock::test;
using crossdock::as_bytes;
using crossdock::cat;
using crossdock::Result;

namespace {

std::unique_ptr<Staging> opened(const fs::path& out, bool overwrite = false) {
  auto staging = Staging::open(Os::real(), out, overwrite);
  INFO((staging ? "" : staging.error().message));
  REQUIRE(staging);
  return *std::move(staging);
}
std::string refusal(const fs::path& out, bool overwrite = false) {
  return message(Staging::open(Os::real(), out, overwrite));
}

void add(Staging& staging, const std::string& name, const std::string& bytes) {
  const auto object = staging.create(name, bytes.size());
  INFO((object ? "" : object.error().message));
  REQUIRE(object);
  REQUIRE((*object)->write(0, as_bytes(bytes)));
  CHECK(*(*object)->seal() == tree_digest_of(bytes));
}

// One whole run that makes OUT of one file.
void make_out(const fs::path& out, const std::string& name, const std::string& bytes,
              bool overwrite = false) {
  const auto staging = opened(out, overwrite);
  add(*staging, name, bytes);
  const auto done = staging->commit(report_of({name.c_str()}), false);
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
    REQUIRE(staging->commit("{}", true));
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
      REQUIRE(staging->commit(report_of({"new"}), true));
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

TEST_CASE("a rest of a killed run is taken over") {
  const TempDir dir;
  const fs::path partial = dir / "out.partial";
  SECTION("killed in mid-run") {
    put(partial / ".crossdock-partial", "");
    put(partial / "zero/half", "ha");
  }
  SECTION("killed before its first file") { fs::create_directory(partial); }
  SECTION("killed between the marker's removal and the rename") {
    put(partial / "zero/half", "ha");
    put(partial / "crossdock.json", report_of({"zero/half"}));
  }
  SECTION("killed while the old OUT was removed: only its report is left") {
    put(partial / "crossdock.json", report_of({"zero/half"}));
  }
  make_out(dir / "out", "new", "1");
  CHECK(tree(dir.path()) ==
        Tree{{"out", ""}, {"out/new", "1"}, {"out/crossdock.json", report_of({"new"})}});
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
  CHECK(tree(dir / "out.partial").at("one") == "1");
  REQUIRE(first->commit("{}", false));
  CHECK(tree(dir / "out").at("one") == "1");
}

TEST_CASE("a DST that appears during the run is not replaced") {
  const TempDir dir;
  {
    const auto staging = opened(dir / "out");
    add(*staging, "one", "1");
    put(dir / "out/mine", "x");
    CHECK(contains(message(staging->commit("{}", false)),
                   "expected " + (dir / "out").string() + " to stay free"));
  }
  CHECK(tree(dir.path()) == Tree{{"out", ""}, {"out/mine", "x"}});
}

TEST_CASE("a DST that an overwriting run finds changed at its end is not lost") {
  const TempDir dir;
  make_out(dir / "out", "old", "1");
  const auto staging = opened(dir / "out", true);
  add(*staging, "new", "2");
  put(dir / "out/thesis.txt", "put there meanwhile");
  CHECK(contains(message(staging->commit(report_of({"new"}), false)), "found also thesis.txt"));
  CHECK(get(dir / "out/thesis.txt") == "put there meanwhile");
}

TEST_CASE("names that would leave the folder, or are the host's own, are refused") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  for (const char* name : {"../x", "/x", "a/../../x", "", "crossdock.json", ".crossdock-partial"}) {
    INFO(name);
    CHECK(contains(message(staging->create(name, 1)), "expected a plain relative name"));
  }
  add(*staging, "one", "1");
  CHECK(contains(message(staging->create("one", 1)),
                 (dir / "out.partial/one").string() + ": File exists"));
  CHECK(contains(message(staging->create("big", UINT64_MAX)), (dir / "out.partial/big").string()));
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
  const auto object = staging->create("f", bytes.size());
  REQUIRE(object);
  for (const Piece& p : pieces) {
    const bool hole = p.begin >= 200'000 && p.begin < 450'000;
    REQUIRE((hole ? (*object)->zero(p.begin, p.n)
                  : (*object)->write(p.begin, as_bytes(bytes).subspan(p.begin, p.n))));
  }
  CHECK(*(*object)->seal() == tree_digest_of(bytes));
  CHECK(get(dir / "out.partial/f") == bytes);
}

TEST_CASE("several threads may write one object") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  const std::string bytes(1 << 20, 'x');
  const auto object = *staging->create("f", bytes.size());
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

TEST_CASE("several threads may make objects, in the same new folders") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i)
        failures += !staging->create(cat("zero/", i, "/", t), 1).has_value();
    });
  }
  for (auto& t : threads) t.join();
  CHECK(failures == 0);
  CHECK(tree(dir / "out.partial/zero").size() == 50 * 5);
}

TEST_CASE("a byte is written once and never outside") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  const auto object = *staging->create("f", 10);
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
    const auto object = *staging->create(name, 10);
    REQUIRE(object->zero(begin, n));
    return message(object->seal());
  };
  CHECK(gap_of("end", 0, 9) == "end: expected all of 10 bytes to be written, found none at 9");
  CHECK(gap_of("begin", 1, 9) == "begin: expected all of 10 bytes to be written, found none at 0");
  CHECK(gap_of("all", 0, 0) == "all: expected all of 10 bytes to be written, found none at 0");
  const auto object = *staging->create("middle", 10);
  REQUIRE(object->zero(6, 4));
  REQUIRE(object->zero(0, 5));
  CHECK(message(object->seal()) ==
        "middle: expected all of 10 bytes to be written, found none at 5");
}

TEST_CASE("declared zeros take no room on disk") {
  const TempDir dir;
  const auto staging = opened(dir / "out");
  constexpr uint64_t kSize = 64 << 20;
  const auto object = *staging->create("f", kSize);
  REQUIRE(object->write(0, as_bytes("head")));
  REQUIRE(object->zero(4, kSize - 8));
  REQUIRE(object->write(kSize - 4, as_bytes("tail")));
  REQUIRE(object->seal());
  struct stat st {};
  REQUIRE(::stat((dir / "out.partial/f").c_str(), &st) == 0);
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
      auto staging = Staging::open(Os::real(), out, true);
      if (!staging) _exit(1);
      for (const char* name : {"a/one", "a/b/two", "c/three"}) {
        auto object = (*staging)->create(name, new_bytes.size());
        if (!object || !(*object)->write(0, as_bytes(new_bytes)) || !(*object)->seal()) _exit(2);
      }
      _exit((*staging)->commit(report_of({"a/one", "a/b/two", "c/three"}), true) ? 0 : 3);
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
