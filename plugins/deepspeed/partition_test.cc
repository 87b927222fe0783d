// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/partition.h"
#include "tests/catch.h"

#include <numeric>

using namespace crossdock;
using namespace crossdock::deepspeed;

namespace {

using Sizes = std::vector<uint64_t>;
using Places = std::vector<std::pair<uint64_t, uint64_t>>;  // (rank, offset) of each element

Places places_of(const Pieces& pieces) {
  Places out;
  for (const Piece& p : pieces) {
    CHECK(p.count > 0);
    for (uint64_t i = 0; i < p.count; ++i) out.emplace_back(p.rank, p.offset + i);
  }
  return out;
}

// All lists of `n` sizes below `limit`.
std::vector<Sizes> lists(size_t n, uint64_t limit) {
  std::vector<Sizes> out{{}};
  for (size_t i = 0; i < n; ++i) {
    std::vector<Sizes> longer;
    for (const Sizes& list : out) {
      for (uint64_t size = 0; size < limit; ++size) {
        longer.push_back(list);
        longer.back().push_back(size);
      }
    }
    out = std::move(longer);
  }
  return out;
}

}  // namespace

TEST_CASE("zero: stage 3 cuts each parameter by itself") {
  for (const Sizes& sizes : lists(3, 6)) {
    for (uint64_t n_ranks = 1; n_ranks < 5; ++n_ranks) {
      CAPTURE(sizes, n_ranks);
      // Element by element: rank r gets the next ceil(size / n_ranks) of each, the last ones
      // padding.
      std::vector<Places> expected(sizes.size());
      uint64_t n_held = 0;
      for (size_t i = 0; i < sizes.size(); ++i) {
        uint64_t part = 0;
        while (part * n_ranks < sizes[i]) ++part;
        for (uint64_t e = 0; e < sizes[i]; ++e)
          expected[i].emplace_back(e / part, n_held + e % part);
        n_held += part;
      }
      CHECK(elements_of_rank(sizes, n_ranks) == n_held);
      const auto cut = cut_each(sizes, n_ranks);
      REQUIRE(cut.size() == sizes.size());
      for (size_t i = 0; i < sizes.size(); ++i) CHECK(places_of(cut[i]) == expected[i]);
    }
  }
}

TEST_CASE("zero: stages 1 and 2 cut a row of all parameters") {
  for (const Sizes& sizes : lists(3, 4)) {
    for (const Sizes& gaps : lists(3, 3)) {
      for (const uint64_t part : {1u, 2u, 3u, 7u}) {
        CAPTURE(sizes, gaps, part);
        // The row's elements, one after the other: of which parameter each is, or of none.
        std::vector<int> row;
        for (size_t i = 0; i < sizes.size(); ++i) {
          row.insert(row.end(), sizes[i], static_cast<int>(i));
          row.insert(row.end(), i + 1 < sizes.size() ? gaps[i] : 0, -1);
        }
        Sizes held;
        std::vector<Places> expected(sizes.size());
        for (uint64_t e = 0; e < row.size(); ++e) {
          if (e % part == 0) held.push_back(0);
          if (row[e] >= 0) expected[static_cast<size_t>(row[e])].emplace_back(e / part, e % part);
          ++held.back();
        }
        if (held.empty()) held = {0};
        held.push_back(0);  // a rank of padding alone
        const bool has_gaps = std::accumulate(gaps.begin(), gaps.end(), uint64_t{0}) > 0;
        const auto cut = cut_row(sizes, has_gaps ? gaps : Sizes{}, held);
        REQUIRE(cut);
        for (size_t i = 0; i < sizes.size(); ++i) CHECK(places_of((*cut)[i]) == expected[i]);
      }
    }
  }
}

TEST_CASE("zero: a row that is not its parameters") {
  const auto outcome = [](const Sizes& sizes, const Sizes& gaps, const Sizes& held) {
    const auto cut = cut_row(sizes, gaps, held);
    return cut ? "cut" : cut.error().message;
  };
  CHECK(outcome({3, 4}, {}, {4, 3}) == "cut");
  CHECK(outcome({3, 4}, {}, {4, 4}) == "cut");  // with padding to two elements of each rank
  CHECK(outcome({3, 4}, {}, {4, 2}) ==
        "expected 7 elements, as many as its parameters have, found 6");
  CHECK(outcome({3, 4}, {}, {5, 4}) ==
        "expected 7 elements, as many as its parameters have, found 9");
  CHECK(outcome({3, 4}, {5, 1}, {4, 7}) ==
        "expected 12 elements, as many as its parameters have with their paddings, found 11");
  CHECK(outcome({3, 4}, {1}, {4, 3}) ==
        "expected an alignment padding for each of 2 parameters, found 1");
  const uint64_t huge = uint64_t{1} << 63;
  CHECK(outcome({huge, huge}, {}, {4}) == "expected at most 2^56 elements in all, found more");
  CHECK(outcome({4}, {}, {huge, huge}) == "expected at most 2^56 elements in all, found more");
  CHECK(outcome({4}, {huge}, {4}) == "expected at most 2^56 elements in all, found more");
}
