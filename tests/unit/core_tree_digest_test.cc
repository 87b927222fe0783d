// SPDX-License-Identifier: Apache-2.0

// Vectors: tests/interop/tree_digest.py, which is written from the definition and prints them.
#include "core/io/tree_digest.h"

#include <crossdock/bytes.hpp>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "tests/unit/core_test_support.h"

using namespace crossdock::test;
using crossdock::as_bytes;
using crossdock::io::ByteRange;
using crossdock::io::kLeafBytes;
using crossdock::io::TreeDigest;
using crossdock::io::TreeNode;

namespace {

constexpr uint64_t kLeaf = kLeafBytes;

std::string pattern(size_t n) {
  std::string out(n, '\0');
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<char>((i * 7 + i / 251) % 256);
  return out;
}

std::string random_bytes(size_t n) {
  std::mt19937_64 random(n);
  std::string out(n, '\0');
  for (size_t at = 0; at < n; at += 8) {
    const uint64_t word = random();
    std::memcpy(out.data() + at, &word, std::min<size_t>(8, n - at));
  }
  return out;
}

void add(TreeDigest& digest, const std::string& bytes, uint64_t begin, uint64_t end) {
  TreeDigest::Run run(digest, begin);
  run.add(as_bytes(bytes).subspan(begin, end - begin));
  run.hand_in();
}

// What is missing, as any caller would do.
void add_missing(TreeDigest& digest, const std::string& bytes) {
  for (const ByteRange& range : digest.missing()) add(digest, bytes, range.begin, range.end);
}

uint64_t n_missing(const TreeDigest& digest) {
  uint64_t n = 0;
  for (const ByteRange& range : digest.missing()) n += range.end - range.begin;
  return n;
}

constexpr uint64_t kLengths[] = {0,    1,     255,   4095,  4096,  4097,   8191,    8192,
                                 8193, 12288, 20480, 28673, 65536, 100000, 1048576, 3000001};

}  // namespace

TEST_CASE("the digests are those of the definition") {
  const std::pair<size_t, const char*> vectors[] = {
      {0, "tree:0532ad8675074226704ff6cfbd05c2e8"},
      {1, "tree:78dc71f1613a3d954c6772ce20003542"},
      {255, "tree:eb1923324f1754b88f6626d6bf8636f1"},
      {4095, "tree:290945acaf04632a9f905e848772f193"},
      {4096, "tree:c5c38e250b2e0d14034a6948c162f016"},
      {4097, "tree:1a88fcd43fe6dd560aa049ba74788687"},
      {8191, "tree:c517a777e6a4448adecdf2037b203df3"},
      {8192, "tree:7ba768ccd8acd77aa8947207b185dea6"},
      {8193, "tree:8ed630441c8c3559173c7d437e687791"},
      {12288, "tree:dd74a9ba7dbe30dd8aa73c0427a17f86"},
      {20480, "tree:38e866ba94e9ff642cc437c4db19c38a"},
      {28673, "tree:1dd7719c53e1fb2d7ed288ed8476342b"},
      {65536, "tree:dcd47b2805230a7fffbf8e64bd406195"},
      {100000, "tree:29276c2024c2391e56cd03d23047a754"},
      {1048576, "tree:1d191e9bf4f3a67a9777e268d4b0bebd"},
      {3000001, "tree:559e71ed6b7c8a9023456a0578ce613e"},
  };
  for (const auto& [n, wanted] : vectors) {
    INFO(n << " bytes");
    CHECK(tree_digest_of(pattern(n)) == wanted);
  }
}

TEST_CASE("pieces of any size in order give what the whole gives") {
  std::mt19937 random(1);
  for (const uint64_t n : kLengths) {
    const std::string bytes = random_bytes(n);
    for (const unsigned most : {60u, 5'000u, 300'000u}) {
      TreeDigest digest(n);
      TreeDigest::Run run(digest, 0);
      while (run.position() < n) {
        CHECK(digest.text().empty());
        const uint64_t k = std::min<uint64_t>(random() % most, n - run.position());
        run.add(as_bytes(bytes).subspan(run.position(), k));
      }
      CHECK(digest.text() == tree_digest_of(bytes));
    }
  }
}

TEST_CASE("ranges on leaves' edges, in any order") {
  std::mt19937 random(2);
  for (const uint64_t n : kLengths) {
    const std::string bytes = random_bytes(n);
    for (int round = 0; round < 10; ++round) {
      std::vector<ByteRange> ranges;
      for (uint64_t at = 0; at < n;) {
        const uint64_t end = std::min(n, at + (1 + random() % 20) * kLeaf);
        ranges.push_back({at, end});
        at = end;
      }
      std::shuffle(ranges.begin(), ranges.end(), random);
      TreeDigest digest(n);
      for (const auto& [begin, end] : ranges) {
        CHECK(digest.text().empty());
        add(digest, bytes, begin, end);
      }
      CHECK(digest.missing().empty());
      CHECK(digest.text() == tree_digest_of(bytes));
    }
  }
}

TEST_CASE("ranges from anywhere, overlapping, with and without room for seams") {
  std::mt19937 random(3);
  for (const int64_t room : {-1, 0, 5'000, 1 << 30}) {
    for (const uint64_t n : kLengths) {
      const std::string bytes = random_bytes(n);
      std::atomic<int64_t> seam_room = room;
      {
        TreeDigest digest(n, room < 0 ? nullptr : &seam_room);
        for (int i = 0; i < 200 && n > 0; ++i) {
          const uint64_t begin = random() % n, end = begin + random() % (n - begin + 1);
          add(digest, bytes, begin, std::min(end, begin + 50'000));
          if (i == 100) add_missing(digest, bytes);
        }
        CHECK(digest.missing().empty());
        CHECK(digest.text() == tree_digest_of(bytes));
      }
      if (room >= 0) CHECK(seam_room == room);
    }
  }
}

TEST_CASE("a leaf that two ranges share is missing, unless there is room to keep its parts") {
  const std::string bytes = random_bytes(10 * kLeaf + 100);
  SECTION("no room") {
    TreeDigest digest(bytes.size());
    add(digest, bytes, 2 * kLeaf + 1, 7 * kLeaf + 1);
    CHECK(digest.missing() == std::vector<ByteRange>{{0, 3 * kLeaf}, {7 * kLeaf, bytes.size()}});
    add(digest, bytes, 0, 2 * kLeaf + 1);
    add(digest, bytes, 7 * kLeaf + 1, 10 * kLeaf + 50);
    add(digest, bytes, 10 * kLeaf + 50, bytes.size());
    CHECK(digest.missing() == std::vector<ByteRange>{{2 * kLeaf, 3 * kLeaf},
                                                     {7 * kLeaf, 8 * kLeaf},
                                                     {10 * kLeaf, bytes.size()}});
    add_missing(digest, bytes);
    CHECK(digest.text() == tree_digest_of(bytes));
  }
  SECTION("room for all") {
    std::atomic<int64_t> room = 1 << 20;
    TreeDigest digest(bytes.size(), &room);
    std::mt19937 random(4);
    std::vector<ByteRange> ranges;  // several to a leaf
    for (uint64_t at = 0; at < bytes.size(); at += 999)
      ranges.push_back({at, std::min<uint64_t>(at + 999, bytes.size())});
    std::shuffle(ranges.begin(), ranges.end(), random);
    for (const auto& [begin, end] : ranges) add(digest, bytes, begin, end);
    CHECK(digest.text() == tree_digest_of(bytes));
    CHECK(room == 1 << 20);
  }
  SECTION("what is added whole takes the parts' place") {
    std::atomic<int64_t> room = 1 << 20;
    TreeDigest digest(bytes.size(), &room);
    add(digest, bytes, 5 * kLeaf + 10, 5 * kLeaf + 20);
    CHECK(room < 1 << 20);
    add(digest, bytes, 4 * kLeaf, 6 * kLeaf);
    CHECK(room == 1 << 20);
  }
}

TEST_CASE("a run may go on after it handed in") {
  const std::string bytes = random_bytes(9 * kLeaf);
  std::atomic<int64_t> room = 1 << 20;
  TreeDigest digest(bytes.size(), &room);
  TreeDigest::Run run(digest, 0);
  for (uint64_t at = 0; at < bytes.size(); at += kLeaf / 2) {
    run.add(as_bytes(bytes).subspan(at, kLeaf / 2));
    run.hand_in();
  }
  CHECK(digest.text() == tree_digest_of(bytes));
}

TEST_CASE("a run of zeros is as so many zero bytes") {
  for (const size_t n : {0, 1, 4'095, 4'096, 4'097, 65'536, 65'537, 1'000'000}) {
    for (const size_t before : {0, 1, 4'096, 13'000}) {
      const std::string bytes = random_bytes(before) + std::string(n, '\0') + random_bytes(77);
      TreeDigest digest(bytes.size());
      TreeDigest::Run run(digest, 0);
      run.add(as_bytes(bytes).first(before));
      run.add_zeros(n);
      CHECK(run.position() == before + n);
      run.add(as_bytes(bytes).last(77));
      CHECK(digest.text() == tree_digest_of(bytes));
      TreeDigest zeros(n);
      TreeDigest::Run(zeros, 0).add_zeros(n);
      CHECK(zeros.text() == tree_digest_of(std::string(n, '\0')));
    }
  }
  TreeDigest vast(UINT64_MAX);  // in no time
  TreeDigest::Run(vast, 0).add_zeros(UINT64_MAX);
  CHECK(vast.text().size() == 37);
}

TEST_CASE("the length is a part of it, and every byte") {
  CHECK(tree_digest_of("") != tree_digest_of(std::string(1, '\0')));
  CHECK(tree_digest_of(std::string(kLeaf, '\0')) != tree_digest_of(std::string(2 * kLeaf, '\0')));
  std::string bytes = random_bytes(5 * kLeaf + 5);
  const std::string whole = tree_digest_of(bytes);
  for (const size_t at : {size_t{0}, size_t{4095}, size_t{4096}, bytes.size() - 1}) {
    bytes[at] ^= 1;
    CHECK(tree_digest_of(bytes) != whole);
    bytes[at] ^= 1;
  }
}

TEST_CASE("nodes of one digest can be handed in to another") {
  const std::string bytes = random_bytes(1'000 * kLeaf + 3);
  TreeDigest even(bytes.size()), odd(bytes.size()), both(bytes.size());
  for (uint64_t i = 0; i < 10; ++i)
    add(i % 2 ? odd : even, bytes, i * 100 * kLeaf, (i + 1) * 100 * kLeaf);
  add(odd, bytes, 1'000 * kLeaf, bytes.size());
  CHECK(even.nodes().size() <= 5 * 8);
  for (const TreeDigest* part : {&odd, &even, &odd}) both.add(part->nodes());
  CHECK(both.text() == tree_digest_of(bytes));
  CHECK(both.nodes().size() == 7);  // 1001 is 1111101001 in binary
  both.add(even.nodes());
  CHECK(both.nodes().size() == 7);
}

TEST_CASE("what is known stays small, whoever hands in what") {
  const uint64_t n_leaves = 14'000;
  const std::string bytes = random_bytes(n_leaves * kLeaf - 1);
  TreeDigest digest(bytes.size());
  SECTION("one long run from within") {
    add(digest, bytes, 2'345 * kLeaf, 13'765 * kLeaf);
    CHECK(digest.nodes().size() <= 30);
    CHECK(n_missing(digest) == bytes.size() - (13'765 - 2'345) * kLeaf);
  }
  SECTION("every other leaf") {
    for (uint64_t i = 1; i < n_leaves; i += 2)
      add(digest, bytes, i * kLeaf, std::min<uint64_t>((i + 1) * kLeaf, bytes.size()));
    CHECK(digest.nodes().size() <= 4'200);
    CHECK(digest.nodes().size() >= 4'000);
  }
  SECTION("every third, from the end") {
    for (uint64_t i = n_leaves; i > 3; i -= 3)
      add(digest, bytes, (i - 1) * kLeaf, std::min<uint64_t>(i * kLeaf, bytes.size()));
    CHECK(digest.nodes().size() <= 4'200);
  }
  add_missing(digest, bytes);
  CHECK(digest.text() == tree_digest_of(bytes));
}

TEST_CASE("threads add ranges at the same time") {
  const std::string bytes = random_bytes(2'000'003);
  std::atomic<int64_t> room = 100'000;
  TreeDigest digest(bytes.size(), &room);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t at = t * 10'000; at < bytes.size(); at += 40'000)
        add(digest, bytes, at, std::min<uint64_t>(at + 10'000 + 500 * t, bytes.size()));
    });
  }
  for (auto& t : threads) t.join();
  add_missing(digest, bytes);
  CHECK(digest.text() == tree_digest_of(bytes));
  CHECK(room == 100'000);
}
