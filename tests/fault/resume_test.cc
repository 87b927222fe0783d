// SPDX-License-Identifier: Apache-2.0

// Runs that fail at any system call and are gone on with, runs that share the work, and runs that
// are killed: in the end DST is what one undisturbed run makes.
#include "core/convert/convert.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <thread>

#include "tests/fault/faulty_os.h"
#include "tests/fault/real_plugins.h"
#include "tests/fault/safetensors_file.h"
#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;

namespace {

using Tree = std::map<std::string, std::string>;

std::string random_bytes(size_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string out(n, '\0');
  for (size_t at = 0; at + 8 <= n; at += 8) {
    const uint64_t word = random();
    std::memcpy(out.data() + at, &word, 8);
  }
  return out;
}

// A model of `n` tensors of BF16, and the description of its module.
void make_source(const fs::path& folder, int n, uint64_t rows) {
  std::vector<Stored> tensors;
  manifest::Manifest module;
  for (int i = 0; i < n; ++i) {
    const std::string name = cat("layers.", i, ".w");
    tensors.push_back({name, "BF16", cat("[", rows, ",64]"),
                       random_bytes(rows * 64 * 2, static_cast<uint64_t>(i))});
    module.tensors.push_back(tensor(name, manifest::DType::BF16, {rows, 64}));
    module.tensors.back().role = manifest::Role::kParameter;
    module.tensors.back().train = manifest::Training::kTrainable;
  }
  put(folder / "src/model.safetensors", safetensors(tensors));
  put(folder / "src/tokenizer.json", "{}");
  put(folder / "target.pb", manifest::encode(module));
}

struct Job {
  explicit Job(const std::string& format, int n = 6, uint64_t rows = 40) {
    make_source(dir.path(), n, rows);
    request.source = (dir / "src").string();
    request.destination = (dir / "out/model").string();
    request.to = format;
    request.memory = 8 << 20;
    request.keep_after_seconds = 0;
    if (format == "zero3") {
      request.target.description = (dir / "target.pb").string();
      request.writer_options = {{"world-size", {"3"}}, {"lr", {"0.001"}}, {"weight-decay", {"0"}}};
    }
    if (format == "safetensors") request.writer_options = {{"shard-size", {"12kB"}}};
  }
  Result<convert::Outcome> run(io::Os& os = io::Os::real(), convert::Part part = {},
                               bool shared = false, bool publish_only = false) const {
    convert::Request r = request;
    r.part = part;
    r.shared = shared;
    r.publish_only = publish_only;
    return convert::convert(r, registry(), os, cancelled, {});
  }
  // DST, its report without the times.
  Tree made() const {
    Tree out = tree(dir / "out");
    for (auto& [name, text] : out) {
      if (name.ends_with("crossdock.json")) text.erase(text.find("\"timings\""));
    }
    return out;
  }
  // What one undisturbed run makes; DST is gone again then.
  Tree expected() const {
    const auto outcome = run();
    INFO((outcome ? "" : outcome.error().message));
    REQUIRE(outcome);
    REQUIRE(outcome->published);
    const Tree out = made();
    fs::remove_all(dir / "out");
    return out;
  }

  TempDir dir;
  convert::Request request;
  std::atomic<bool> cancelled{false};
};

// Counts the bytes that are read of the source.
struct CountingOs : FaultyOs {
  using FaultyOs::FaultyOs;
  std::atomic<uint64_t> n_bytes{0};
  ssize_t pread(int fd, void* dst, size_t n, uint64_t offset) override {
    const ssize_t got = FaultyOs::pread(fd, dst, n, offset);
    boost::system::error_code ec;
    const fs::path path = fs::read_symlink(cat("/proc/self/fd/", fd), ec);
    if (got > 0 && contains(path.string(), "/src/")) n_bytes += static_cast<uint64_t>(got);
    return got;
  }
};

void check(const Result<convert::Outcome>& outcome) {
  INFO((outcome ? "" : outcome.error().message));
  REQUIRE(outcome);
}

}  // namespace

TEST_CASE("whatever system call fails, the next run goes on and makes the same") {
  for (const char* format : {"universal", "zero3", "safetensors"}) {
    Job job(format);
    const Tree expected = job.expected();
    FaultyOs sound;
    check(job.run(sound));
    fs::remove_all(job.dir / "out");
    size_t n_kept = 0;
    for (const auto& [kind, count] : sound.counts()) {
      for (int n = 1; n <= count; ++n) {
        FaultyOs os({kind, n, n % 2 ? ENOSPC : EIO});
        const auto failed = job.run(os);
        INFO(format << ": " << kind << " number " << n << " of " << os.path());
        if (!failed && fs::exists(job.dir / "out/model.partial")) ++n_kept;
        const bool is_in_place = fs::exists(job.dir / "out/model");
        if (!is_in_place) {
          const auto outcome = job.run();
          check(outcome);
          REQUIRE(outcome->published);
        }
        CHECK(job.made() == expected);
        fs::remove_all(job.dir / "out");
      }
    }
    CHECK(n_kept > 20);
  }
}

TEST_CASE("a run that goes on fails as well at any system call, and then goes on") {
  Job job("universal");
  const Tree expected = job.expected();
  const auto begin = [&] {
    FaultyOs os({"pwrite", 60, ENOSPC});
    REQUIRE_FALSE(job.run(os));
    REQUIRE(fs::exists(job.dir / "out/model.partial"));
  };
  begin();
  FaultyOs sound;
  check(job.run(sound));
  fs::remove_all(job.dir / "out");
  for (const auto& [kind, count] : sound.counts()) {
    for (int n = 1; n <= count; ++n) {
      begin();
      FaultyOs os({kind, n, EIO});
      const auto failed = job.run(os);
      INFO(kind << " number " << n << " of " << os.path());
      if (!failed) {
        CHECK(contains(failed.error().message, std::strerror(EIO)));
      }
      if (!fs::exists(job.dir / "out/model")) {
        REQUIRE(fs::exists(job.dir / "out/model.partial"));  // what was done is not lost
        check(job.run());
      }
      CHECK(job.made() == expected);
      fs::remove_all(job.dir / "out");
    }
  }
}

TEST_CASE("what is done is read once, however often the run is broken off") {
  Job job("universal", 40, 2000);
  const Tree expected = job.expected();
  const uint64_t size = fs::file_size(job.dir / "src/model.safetensors");
  uint64_t read = 0;
  int runs = 0;
  for (bool done = false; !done; ++runs) {
    REQUIRE(runs < 20);
    CountingOs os({"pwrite", 100, ENOSPC});
    done = job.run(os).has_value();
    read += os.n_bytes;
  }
  CHECK(runs > 2);
  // Headers again in each run, and what was in flight.
  CHECK(read < size + size / 10);
  CHECK(job.made() == expected);
}

TEST_CASE("a file of many items is gone on with where it was broken off") {
  Job job("zero3", 4, 40'000);  // each optimizer file has items of some MiB at most
  job.request.writer_options["world-size"] = {"1"};
  const Tree expected = job.expected();
  FaultyOs os({"pwrite", 150, ENOSPC});
  REQUIRE_FALSE(job.run(os));
  const auto outcome = job.run();
  check(outcome);
  CHECK(job.made() == expected);
}

TEST_CASE("parts make the same as one process, in any order, and the last one publishes") {
  for (const char* format : {"universal", "zero3", "safetensors"}) {
    Job job(format);
    const Tree expected = job.expected();
    for (const uint32_t n : {1u, 2u, 5u, 40u}) {
      INFO(format << " in " << n);
      bool published = false;
      for (uint32_t i = n; i-- > 0;) {
        CHECK_FALSE(published);
        const auto outcome = job.run(io::Os::real(), {i, n}, true);
        check(outcome);
        published = outcome->published;
        CHECK(outcome->missing.empty() == published);
      }
      CHECK(published);
      CHECK(job.made() == expected);
      CHECK(job.run(io::Os::real(), {0, n}, true)->published);  // one that comes late
      CHECK(job.made() == expected);
      fs::remove_all(job.dir / "out");
    }
  }
}

TEST_CASE("parts together read the source once") {
  for (const char* format : {"universal", "zero3", "safetensors"}) {
    Job job(format, 40, 8000);  // 1 MiB each
    if (job.request.to == "zero3") job.request.writer_options["world-size"] = {"8"};
    if (job.request.to == "safetensors") job.request.writer_options["shard-size"] = {"3MB"};
    job.request.memory = 64 << 20;
    const Tree expected = job.expected();
    const uint64_t size = fs::file_size(job.dir / "src/model.safetensors");
    uint64_t read = 0;
    for (uint32_t i = 0; i < 4; ++i) {
      CountingOs os;
      check(job.run(os, {i, 4}, true));
      read += os.n_bytes;
    }
    INFO(format << ": " << read << " of " << size);
    CHECK(read >= size);
    CHECK(read <= size + size / 20);  // the seams between parts, headers
    CHECK(job.made() == expected);
  }
}

TEST_CASE("commit publishes when all parts are done, and says what is missing before") {
  Job job("universal");
  const Tree expected = job.expected();
  check(job.run(io::Os::real(), {0, 2}, true));
  const auto early = job.run(io::Os::real(), {}, true, true);
  check(early);
  CHECK_FALSE(early->published);
  CHECK(early->files_done == 0);
  CHECK_FALSE(early->missing.empty());
  CHECK_FALSE(fs::exists(job.dir / "out/model"));
  // The last part cannot publish, and commit does it.
  FaultyOs os({"syncfs", 2, EIO});
  REQUIRE_FALSE(job.run(os, {1, 2}, true));
  CHECK_FALSE(fs::exists(job.dir / "out/model"));
  CHECK(job.run(io::Os::real(), {}, true, true)->published);
  CHECK(job.made() == expected);
  CHECK(job.run(io::Os::real(), {}, true, true)->published);
}

TEST_CASE("a part that fails at any system call is done again alone") {
  Job job("safetensors");
  const Tree expected = job.expected();
  FaultyOs sound;
  check(job.run(io::Os::real(), {0, 2}, true));
  check(job.run(sound, {1, 2}, true));
  fs::remove_all(job.dir / "out");
  for (const auto& [kind, count] : sound.counts()) {
    for (int n = 1; n <= count; ++n) {
      check(job.run(io::Os::real(), {0, 2}, true));
      FaultyOs os({kind, n, EIO});
      (void)job.run(os, {1, 2}, true);
      INFO(kind << " number " << n << " of " << os.path());
      const auto outcome = job.run(io::Os::real(), {1, 2}, true);
      check(outcome);
      REQUIRE(outcome->published);
      CHECK(job.made() == expected);
      fs::remove_all(job.dir / "out");
    }
  }
}

TEST_CASE("parts at once, shares done twice, one publishes") {
  for (const char* format : {"universal", "safetensors"}) {
    Job job(format, 20, 200);
    const Tree expected = job.expected();
    for (int round = 0; round < 10; ++round) {
      std::vector<std::thread> threads;
      std::atomic<int> n_failed{0}, n_published{0};
      for (uint32_t i = 0; i < 6; ++i) {
        threads.emplace_back([&, i] {
          const auto outcome = job.run(io::Os::real(), {i % 3, 3}, true);
          if (!outcome) UNSCOPED_INFO(outcome.error().message);
          n_failed += !outcome;
          n_published += outcome && outcome->published && !outcome->report.empty();
        });
      }
      for (auto& t : threads) t.join();
      CHECK(n_failed == 0);
      if (!fs::exists(job.dir / "out/model")) check(job.run(io::Os::real(), {}, true, true));
      CHECK(n_published <= 1);
      CHECK(job.made() == expected);
      CHECK(names(job.dir / "out") == std::vector<std::string>{"model"});
      fs::remove_all(job.dir / "out");
    }
  }
}

TEST_CASE("file systems without locks, renames with flags, or links") {
  struct PoorOs : FaultyOs {
    bool has_links = true;
    int flock(int, int) override { return errno = ENOSYS, -1; }
    int link(const char* from, const char* to) override {
      return has_links ? FaultyOs::link(from, to) : (errno = EPERM, -1);
    }
  };
  PoorOs os;
  os.no_rename_flags = true;
  Job job("universal");
  const Tree expected = job.expected();
  for (const bool replaces : {false, true}) {
    job.request.overwrite = replaces;
    if (replaces) {  // what another conversion made
      Job other("safetensors");
      other.request.destination = job.request.destination;
      other.request.overwrite = true;
      check(other.run());
    }
    check(job.run(os, {0, 2}, true));
    check(job.run(os, {1, 2}, true));
    CHECK(job.made() == expected);
  }
  fs::remove_all(job.dir / "out");
  os.has_links = false;
  check(job.run(os));
  CHECK(job.made() == expected);
  fs::remove_all(job.dir / "out");
  CHECK(contains(message(job.run(os, {0, 2}, true)), "link"));
}

TEST_CASE(
    "a part that fails before anything is done leaves nothing, nor does it take from others") {
  Job job("universal");
  job.request.keep_after_seconds = 1000;
  FaultyOs os({"pwrite", 4, ENOSPC});
  REQUIRE_FALSE(job.run(os, {0, 2}, true));
  CHECK(tree(job.dir / "out").empty());
  check(job.run(io::Os::real(), {1, 2}, true));
  const size_t n_files = tree(job.dir / "out").size();
  FaultyOs again({"pwrite", 4, ENOSPC});
  REQUIRE_FALSE(job.run(again, {0, 2}, true));
  CHECK(tree(job.dir / "out").size() >= n_files);
}

TEST_CASE("a run that fails early deletes nothing of an earlier one") {
  Job job("universal");
  const Tree expected = job.expected();
  FaultyOs broken({"pwrite", 60, ENOSPC});
  REQUIRE_FALSE(job.run(broken));
  const size_t n_files = tree(job.dir / "out").size();
  job.request.keep_after_seconds = 1000;
  FaultyOs os({"pread", 4, EIO});  // a header of the source, or a journal
  REQUIRE_FALSE(job.run(os));
  CHECK(tree(job.dir / "out").size() >= n_files);
  check(job.run());
  CHECK(job.made() == expected);
}

TEST_CASE("processes that are killed at any moment lose nothing, and the end is the same") {
  std::mt19937 random(3);
  for (const char* format : {"universal", "zero3", "safetensors"}) {
    Job job(format, 12, 400);
    const Tree expected = job.expected();
    int n_killed = 0;
    // Some are through before they can be killed.
    for (int round = 0; round < 200 && n_killed < 70; ++round) {
      const uint32_t n = 1 + static_cast<uint32_t>(random() % 3);
      for (int kill_number = 0; kill_number < 4; ++kill_number) {
        std::vector<pid_t> children;
        for (uint32_t i = 0; i < n; ++i) {
          const pid_t child = fork();
          REQUIRE(child >= 0);
          if (child == 0) {
            const auto outcome = job.run(io::Os::real(), {i, n}, true);
            if (!outcome) std::fprintf(stderr, "part: %s\n", outcome.error().message.c_str());
            _exit(outcome ? 0 : 1);
          }
          children.push_back(child);
        }
        usleep(static_cast<useconds_t>(random() % 10'000));
        for (const pid_t child : children) {
          kill(child, SIGKILL);
          int status = 0;
          REQUIRE(waitpid(child, &status, 0) == child);
          n_killed += WIFSIGNALED(status);
          CHECK((WIFSIGNALED(status) || WEXITSTATUS(status) == 0));
        }
      }
      INFO(format << ", round " << round);
      const auto outcome = job.run(io::Os::real(), {}, true);
      check(outcome);
      CHECK(outcome->published);
      CHECK(job.made() == expected);
      fs::remove_all(job.dir / "out");
    }
    CHECK(n_killed >= 70);
  }
}
