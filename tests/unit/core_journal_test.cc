// SPDX-License-Identifier: Apache-2.0

// Journals, the records in them, and which files are a part's.
#include "core/io/journal.h"

#include <random>

#include "core/convert/record.h"
#include "core/convert/share.h"
#include "core/io/attempt.h"
#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using io::Journal;

namespace {

using Texts = std::vector<std::string>;

std::string journal_of(const TempDir& dir, const Texts& records, size_t marked) {
  const fs::path path = dir / "a.journal";
  fs::remove(path);
  const auto journal = *Journal::create(io::Os::real(), path);
  for (size_t i = 0; i < records.size(); ++i) {
    if (i == marked) REQUIRE(journal->mark(journal->end()));
    REQUIRE(journal->append(records[i]));
  }
  return get(path);
}

convert::Record some_record() {
  convert::Record r;
  r.file = 300;
  r.item = 7;
  r.result = std::string("\0crc", 4);
  r.bytes = {{64, 4160}, {8000, 1ull << 40}};
  r.nodes = {{0, 1, {1, 2}}, {4, 20, {~0ull, 3}}};
  r.tensors = {{2, {{1, 0, {3, 4}}}, {{8192, "part"}, {9000, "x"}}}, {3, {}, {}}};
  r.rests = {{0, {{9, 3, {5, 6}}}, {}}};
  r.notes = {"a note", ""};
  return r;
}

plugin::Plan plan_of(const std::vector<uint64_t>& sizes) {
  plugin::Plan plan;
  for (size_t i = 0; i < sizes.size(); ++i) {
    plan.objects.push_back({cat("f", i), sizes[i], 1});
    plan.items.push_back({static_cast<uint32_t>(i), 0, {}, sizes[i], 0});
  }
  plan.aux = {{"config.json", 0}};
  return plan;
}

}  // namespace

TEST_CASE("a journal gives its records back, and how many are on the disk for sure") {
  const TempDir dir;
  const Texts records{"one", "", std::string(10'000, 'x')};
  for (size_t marked = 0; marked <= 3; ++marked) {
    const auto read = io::parse_journal(journal_of(dir, records, marked));
    CHECK(read.all == records);
    CHECK(read.n_durable == (marked < 3 ? marked : 0));
  }
}

TEST_CASE("of a journal that is cut off anywhere the whole records are left") {
  const TempDir dir;
  const Texts records{"one", "second", "3"};
  const std::string text = journal_of(dir, records, 2);
  size_t most = 0;
  for (size_t n = 0; n <= text.size(); ++n) {
    const auto read = io::parse_journal(text.substr(0, n));
    CHECK(read.all.size() >= most);
    most = read.all.size();
    for (size_t i = 0; i < most; ++i) CHECK(read.all[i] == records[i]);
    CHECK(read.n_durable <= most);
  }
  CHECK(most == 3);
}

TEST_CASE("a flipped bit in a journal takes away its record and what follows, and no more") {
  const TempDir dir;
  const Texts records{"one", "second", "3"};
  const std::string text = journal_of(dir, records, 1);
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    const auto read = io::parse_journal(flipped);
    INFO("bit " << bit);
    CHECK(read.all.size() < 3);
    for (size_t i = 0; i < read.all.size(); ++i) CHECK(read.all[i] == records[i]);
  }
}

TEST_CASE("a journal that is withdrawn counts for nothing") {
  const TempDir dir;
  const auto journal = *Journal::create(io::Os::real(), dir / "a.journal");
  REQUIRE(journal->append("one"));
  REQUIRE(journal->withdraw());
  CHECK(io::read_journal(io::Os::real(), dir / "a.journal")->all.empty());
  CHECK_FALSE(Journal::create(io::Os::real(), dir / "a.journal"));  // one writer for ever
}

TEST_CASE("of another boot only what was on the disk counts") {
  const TempDir dir;
  const auto write = [&](const io::Runner& runner) {
    fs::remove(dir / "a.journal");
    const auto journal = *Journal::create(io::Os::real(), dir / "a.journal");
    REQUIRE(journal->append(io::first_record(runner, 42)));
    REQUIRE(journal->append("synced"));
    REQUIRE(journal->mark(journal->end()));
    REQUIRE(journal->append("not synced"));
    return *io::read_attempt(io::Os::real(), dir / "a.journal");
  };
  io::Runner runner = io::Runner::self();
  const auto ours = write(runner);
  CHECK(ours.records == Texts{"synced", "not synced"});
  CHECK(ours.tree_inode == 42);
  CHECK_FALSE(ours.is_over);  // we live
  runner.boot = "another";
  const auto theirs = write(runner);
  CHECK(theirs.records == Texts{"synced"});
  CHECK(theirs.is_over == io::is_local(dir.path()));
}

TEST_CASE("a record is read as it was written, and no other bytes are one") {
  const std::string bytes = convert::encode(some_record());
  const auto read = convert::decode_record(bytes);
  REQUIRE(read);
  CHECK(convert::encode(*read) == bytes);
  CHECK(read->item == 7u);
  CHECK(read->nodes[1].hash.high == ~0ull);
  CHECK(read->tensors[0].parts[1].bytes == "x");
  CHECK(read->notes == Texts{"a note", ""});
  for (size_t n = 0; n < bytes.size(); ++n) CHECK_FALSE(convert::decode_record(bytes.substr(0, n)));
  CHECK_FALSE(convert::decode_record(bytes + "x"));
}

TEST_CASE("every file is of one part, and the parts are even") {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<uint64_t> sizes;
    for (int i = 0; i < 200; ++i) sizes.push_back(random() % (64 << 20));
    const plugin::Plan plan = plan_of(sizes);
    const uint32_t n = 1 + static_cast<uint32_t>(random() % 16);
    std::vector<int> owners(sizes.size() + 1);
    for (uint32_t i = 0; i < n; ++i) {
      const auto share = convert::share_of(plan, {i, n});
      for (size_t k = 0; k < share.size(); ++k) owners[k] += share[k];
    }
    CHECK(owners == std::vector<int>(sizes.size() + 1, 1));
    CHECK(convert::unevenness(plan, n) < 1.1);
  }
  CHECK(convert::unevenness(plan_of({8 << 20, 8 << 20}), 4) > 1.9);
}
