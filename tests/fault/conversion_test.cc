// SPDX-License-Identifier: Apache-2.0

// A whole conversion with the real plugins, in which every system call fails in turn. After each
// failure DST is what it was, nothing lies beside it, and the message is one sentence with the path
// and the reason.
#include <cerrno>
#include <cstring>
#include <random>

#include "core/convert/convert.h"
#include "tests/fault/faulty_os.h"
#include "tests/fault/real_plugins.h"
#include "tests/fault/safetensors_file.h"
#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;

namespace {

using Tree = std::map<std::string, std::string>;

// Two shards, every kind of tensor, and files beside them.
void make_source(const fs::path& src) {
  const std::vector<Stored> first{{"model.embed.weight", "BF16", "[8,4]", std::string(64, 'e')},
                                  {"model.norm.weight", "F32", "[5]", std::string(20, 'n')}};
  const std::vector<Stored> second{{"model.out.weight", "F16", "[3,4]", std::string(24, 'o')},
                                   {"steps", "I64", "[1]", "12345678"}};
  put(src / "model-00001-of-00002.safetensors", safetensors(first));
  put(src / "model-00002-of-00002.safetensors", safetensors(second));
  put(src / "model.safetensors.index.json",
      R"({"metadata":{"total_size":116},"weight_map":{"model.embed.weight":"model-00001-of-00002.safetensors",)"
      R"("model.norm.weight":"model-00001-of-00002.safetensors","model.out.weight":"model-00002-of-00002.safetensors",)"
      R"("steps":"model-00002-of-00002.safetensors"}})");
  put(src / "config.json",
      R"({"model_type":"toy","dtype":"bfloat16","tie_word_embeddings":false})");
  put(src / "tokenizer.json", "{}");
}

struct Scenario {
  const char* name;
  const char* to;        // the format to write
  bool had_old;          // a DST of an earlier run, to be overwritten
  bool had_empty;        // an empty folder
  bool no_rename_flags;  // the file system can neither exchange nor refuse to replace
};
constexpr Scenario kScenarios[] = {
    {"a new DST, its parents too", "universal", false, false, false},
    {"an old DST", "universal", true, false, false},
    {"an empty DST", "universal", false, true, false},
    {"a new DST on a simple file system", "universal", false, false, true},
    {"an old DST on a simple file system", "universal", true, false, true},
    {"a folder of safetensors", "safetensors", false, false, false},
    {"a folder of safetensors over an old DST", "safetensors", true, false, false},
};

class Job {
 public:
  explicit Job(const Scenario& scenario) : scenario_(scenario) {
    make_source(dir_ / "src");
    request_.source = (dir_ / "src").string();
    request_.destination = out().string();
    request_.to = scenario.to;
    // Several files, an index, casts, and a config.json that is written anew.
    if (request_.to == "safetensors")
      request_.writer_options = {{"shard-size", {"60"}}, {"dtype", {"fp32"}}};
    request_.memory = 8 << 20;
    request_.overwrite = true;
    reset();
  }
  fs::path out() const { return dir_ / "parent/deep/out"; }

  // DST as it is before a run.
  void reset() {
    fs::remove_all(dir_ / "parent");
    if (scenario_.had_empty) fs::create_directories(out());
    if (scenario_.had_old) {
      put(out() / "old/fp32.pt", "old");
      put(out() / "crossdock.json", report_of({"old/fp32.pt"}));
    }
  }
  Result<convert::Outcome> run(FaultyOs& os, unsigned threads = 1) {
    request_.threads = threads;
    os.no_rename_flags = scenario_.no_rename_flags;
    return convert::convert(request_, registry(), os, cancelled, {});
  }
  // Everything there is but the source.
  Tree around() const {
    Tree all = tree(dir_.path());
    std::erase_if(all, [](const auto& entry) { return entry.first.rfind("src", 0) == 0; });
    return all;
  }

  std::atomic<bool> cancelled{false};

 private:
  const Scenario scenario_;
  const TempDir dir_;
  convert::Request request_;
};

// The report holds timings.
Tree without_report(Tree t) {
  for (auto& [name, text] : t) {
    if (name.ends_with("crossdock.json")) text.clear();
  }
  return t;
}

bool is_one_sentence(const std::string& text) {
  return !text.empty() && text.find('\n') == text.npos && text.back() != '.' && text.back() != ' ';
}

// Whether the message says which file it was. Files that are being written have numbers on the
// disk, and are told by their names in DST.
bool names_the_file(const std::string& text, const std::string& path, const Tree& made) {
  if (contains(text, fs::path(path).filename().string())) return true;
  if (!contains(path, "/parts/")) return false;
  const std::string out = "parent/deep/out/";
  return std::any_of(made.begin(), made.end(), [&](const auto& file) {
    return file.first.starts_with(out) && contains(text, file.first.substr(out.size()));
  });
}

// One run with one fault, judged.
void check_fault(Job& job, const FaultyOs::Fault& fault, const Tree& made, unsigned threads = 1) {
  job.reset();
  const Tree before = job.around();
  FaultyOs os(fault);
  const auto outcome = job.run(os, threads);
  INFO(fault.kind << " number " << fault.nth << " of " << os.path() << ": "
                  << std::strerror(fault.error) << ": "
                  << (outcome ? "no error" : outcome.error().message));
  if (threads > 1 && !os.struck()) return;
  REQUIRE(os.struck());
  if (contains(os.path(), ".removed.partial")) {  // a step that can be left out
    CHECK(outcome.has_value());
    CHECK(without_report(job.around()) == made);
    return;
  }
  REQUIRE_FALSE(outcome);
  const std::string text = outcome.error().message;
  const Tree after = job.around();
  CHECK(is_one_sentence(text));
  CHECK(names_the_file(text, os.path(), made));
  CHECK(contains(text, std::strerror(fault.error)));
  if (contains(text, "is in place")) {  // what fails after the rename cannot undo it
    CHECK(fault.kind == "fsync");
    CHECK(without_report(after) == made);
  } else {
    CHECK(after == before);
  }
}

}  // namespace

TEST_CASE("the real plugins are there") {
  REQUIRE(registry().find_reader("safetensors"));
  REQUIRE(registry().find_writer("universal"));
  REQUIRE(registry().find_writer("safetensors"));
}

TEST_CASE("whatever system call fails, DST is what it was and nothing is left beside it") {
  for (const Scenario& scenario : kScenarios) {
    INFO(scenario.name);
    Job job(scenario);
    FaultyOs sound;
    const auto outcome = job.run(sound);
    INFO((outcome ? "" : outcome.error().message));
    REQUIRE(outcome);
    const Tree made = without_report(job.around());
    for (const auto& [kind, count] : sound.counts()) {
      for (int n = 1; n <= count; ++n) check_fault(job, {kind, n, n % 2 ? ENOSPC : EIO}, made);
    }
    // All kinds that a conversion needs were tried.
    for (const char* kind : {"openat", "mkdirat", "unlinkat", "renameat2", "fstat", "ftruncate",
                             "pread", "pwrite", "syncfs", "fsync", "flock", "link"}) {
      INFO(kind);
      CHECK(sound.counts().count(kind));
    }
  }
}

TEST_CASE("the same with several threads") {
  for (const Scenario& scenario : {kScenarios[1], kScenarios[6]}) {
    INFO(scenario.name);
    Job job(scenario);
    FaultyOs sound;
    REQUIRE(job.run(sound, 4));
    const Tree made = without_report(job.around());
    std::mt19937 random(11);
    for (const auto& [kind, count] : sound.counts()) {
      for (int i = 0; i < 10; ++i)
        check_fault(job, {kind, 1 + static_cast<int>(random() % static_cast<unsigned>(count)), EIO},
                    made, 4);
    }
  }
}

TEST_CASE("a cancel at any system call leaves DST as it was, or new") {
  for (const Scenario& scenario : {kScenarios[0], kScenarios[1], kScenarios[6]}) {
    Job job(scenario);
    FaultyOs sound;
    REQUIRE(job.run(sound));
    const Tree made = without_report(job.around());
    int cancels = 0, completed = 0;
    for (int n = 1; n <= sound.calls(); ++n) {
      job.reset();
      job.cancelled = false;
      const Tree before = job.around();
      FaultyOs os;
      os.watch = [&](int call) {
        if (call == n) job.cancelled = true;
      };
      const auto outcome = job.run(os);
      INFO("at call " << n);
      if (outcome) {
        ++completed;
        CHECK(without_report(job.around()) == made);
      } else {
        ++cancels;
        CHECK(outcome.error().code == XD_CANCELLED);
        CHECK(job.around() == before);
      }
    }
    CHECK(cancels > 50);
    CHECK(completed > 0);
    CHECK(completed < 20);  // once the commit has begun
  }
}

TEST_CASE("short and interrupted reads and writes change nothing") {
  struct SlowOs : FaultyOs {
    std::mt19937 random{5};
    std::mutex mutex;
    // How many of n bytes this call takes; 0: it is interrupted.
    size_t some(size_t n) {
      const std::lock_guard lock(mutex);
      const size_t most = random() % 3 == 0 ? 0 : 1 + random() % 7;
      if (most == 0) errno = EINTR;
      return std::min(n, most);
    }
    ssize_t pread(int fd, void* dst, size_t n, uint64_t offset) override {
      const size_t k = some(n);
      return k == 0 && n > 0 ? (errno = EINTR, -1) : Os::pread(fd, dst, k, offset);
    }
    ssize_t pwrite(int fd, const void* src, size_t n, uint64_t offset) override {
      const size_t k = some(n);
      return k == 0 && n > 0 ? (errno = EINTR, -1) : Os::pwrite(fd, src, k, offset);
    }
  };
  for (const Scenario& scenario : {kScenarios[0], kScenarios[5]}) {
    Job job(scenario);
    FaultyOs sound;
    REQUIRE(job.run(sound));
    const Tree made = without_report(job.around());
    for (const unsigned threads : {1u, 3u}) {
      job.reset();
      SlowOs slow;
      const auto outcome = job.run(slow, threads);
      INFO((outcome ? "" : outcome.error().message));
      REQUIRE(outcome);
      CHECK(without_report(job.around()) == made);
    }
  }
}

TEST_CASE("a run after any failure succeeds") {
  Job job(kScenarios[0]);
  FaultyOs sound;
  REQUIRE(job.run(sound));
  const Tree made = without_report(job.around());
  for (const auto& [kind, count] : sound.counts()) {
    job.reset();
    FaultyOs os({kind, kind == "renameat2" ? count - 1 : count, EIO});
    REQUIRE_FALSE(job.run(os));
    FaultyOs again;
    const auto outcome = job.run(again);
    INFO(kind << ": " << (outcome ? "" : outcome.error().message));
    REQUIRE(outcome);
    CHECK(without_report(job.around()) == made);
  }
}
