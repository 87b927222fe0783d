// SPDX-License-Identifier: Apache-2.0

// Views by strides, as torch's files have them.
#include "core/transform/gather.h"

#include "core/transform/turn.h"
#include "tests/catch.h"

#include <crossdock/bytes.hpp>

#include <numeric>

using namespace crossdock;
using namespace crossdock::transform;

namespace {

template <class T>
struct Storage {
  std::vector<T> values;
  uint64_t reads = 0, most = 0;

  explicit Storage(size_t n) : values(n) { std::iota(values.begin(), values.end(), T{1}); }
  ReadBelow reader(uint64_t elem_bytes = sizeof(T)) {
    return [this, elem_bytes](const Runs& runs, std::span<std::byte> out) -> Result<void> {
      const auto bytes = std::as_bytes(std::span(values));
      const uint64_t n_bytes = out.size() / runs.count;
      for (uint64_t i = 0; i < runs.count; ++i) {
        const uint64_t offset = (runs.begin + i * runs.stride) * elem_bytes;
        REQUIRE(offset + n_bytes <= bytes.size());
        std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), n_bytes,
                    out.begin() + static_cast<ptrdiff_t>(i * n_bytes));
        ++reads;
        most = std::max(most, n_bytes);
      }
      return {};
    };
  }
};

struct Strided {
  std::vector<uint64_t> shape;
  std::vector<int64_t> strides;
  uint64_t offset = 0;
  View view() const { return View::strided(shape, strides, offset); }
};

// Element by element: what gather must equal.
template <class T>
std::vector<T> plain(const std::vector<T>& values, const Strided& view) {
  std::vector<T> out;
  const uint64_t n = *checked_product(view.shape);
  for (uint64_t i = 0; i < n; ++i) {
    uint64_t at = view.offset, rest = i;
    for (size_t d = view.shape.size(); d-- > 0;) {
      at += rest % view.shape[d] * static_cast<uint64_t>(view.strides[d]);
      rest /= view.shape[d];
    }
    out.push_back(values[at]);
  }
  return out;
}

template <class T>
std::vector<T> range(Storage<T>& s, const Strided& strided, uint64_t begin, uint64_t count,
                     size_t block_bytes) {
  std::vector<T> out(count);
  std::vector<std::byte> block(block_bytes);
  const View view = strided.view();
  REQUIRE(gather(view.factors(), view.offset(), sizeof(T), begin,
                 std::as_writable_bytes(std::span(out)), block, s.reader()));
  return out;
}

}  // namespace

TEST_CASE("gather: every range of views of every kind, with blocks of every size") {
  for (const Strided& view : std::vector<Strided>{
           {{3, 4}, {1, 3}, 0},               // transposed
           {{6}, {10}, 3},                    // a column
           {{3, 3}, {20, 3}, 0},              // every second row, every third column
           {{4, 7}, {1, 0}, 2},               // expanded
           {{2, 3, 4}, {1, 8, 2}, 1},         // permuted
           {{2, 3, 2, 2}, {12, 1, 6, 3}, 0},  // channels last
           {{1, 1, 5}, {7, 9, 2}, 0},
           {{}, {}, 5},
           {{3, 2, 2}, {4, 4, 1}, 0},  // overlapping
       }) {
    Storage<uint32_t> storage(80);
    const auto expected = plain(storage.values, view);
    for (const size_t block : {size_t{4}, size_t{12}, size_t{4096}}) {
      for (uint64_t begin = 0; begin < expected.size(); ++begin) {
        for (uint64_t end = begin; end <= expected.size(); ++end) {
          const auto got = range(storage, view, begin, end - begin, block);
          REQUIRE(
              std::equal(got.begin(), got.end(), expected.begin() + static_cast<ptrdiff_t>(begin)));
        }
      }
    }
    CHECK(storage.most <= 4096);
  }
}

TEST_CASE("gather: elements of every size") {
  const Strided view{{5, 3}, {1, 5}};
  const auto check = [&]<class T>(T) {
    Storage<T> s(15);
    CHECK(range(s, view, 0, 15, 64) == plain(s.values, view));
  };
  check(uint8_t{});
  check(uint16_t{});
  check(uint32_t{});
  check(uint64_t{});
  Storage<uint64_t> s(30);  // as pairs of 16 bytes
  std::vector<uint64_t> out(30);
  std::vector<std::byte> block(64);
  REQUIRE(gather(view.view().factors(), 0, 16, 0, std::as_writable_bytes(std::span(out)), block,
                 s.reader(16)));
  for (uint64_t i = 0; i < 15; ++i) CHECK(out[2 * i] == s.values[2 * (i % 3 * 5 + i / 3)]);
}

TEST_CASE("gather: a large transposed matrix in few reads of little more than it needs") {
  const Strided view{{512, 512}, {1, 512}};
  Storage<uint16_t> s(512 * 512);
  const auto expected = plain(s.values, view);
  CHECK(range(s, view, 0, 512 * 512, 1 << 20) == expected);
  CHECK(s.reads == 1);
  s.reads = 0;
  const auto rows =
      range(s, view, 512 * 100, 512 * 8, 64 << 10);  // 8 rows: 8 neighbours in each column
  CHECK(std::equal(rows.begin(), rows.end(), expected.begin() + 512 * 100));
  CHECK(s.reads <= 64);
}

TEST_CASE("gather: runs far from each other are read one by one, and no more") {
  for (const Strided& view : std::vector<Strided>{
           {{130, 70}, {1, 6000}, 7},
           {{3, 50, 40}, {130'000, 1, 3000}},
           {{40, 50, 3}, {3000, 1, 130'000}, 1},
           {{50, 3, 40}, {1, 130'000, 3000}},
           {{5, 6, 4, 30}, {1, 100'000, 5, 3000}},  // pieces of a run
           {{20, 10, 30}, {1, 1, 20'000}},          // overlapping
           {{20, 3, 30}, {1, 0, 20'000}},           // repeated
       }) {
    Storage<uint16_t> s(700'000);
    const auto expected = plain(s.values, view);
    for (const size_t block : {size_t{2}, size_t{1000}, size_t{64 << 10}}) {
      for (const uint64_t begin : {uint64_t{0}, uint64_t{1}, expected.size() / 3}) {
        const uint64_t count = expected.size() / 2;
        const auto got = range(s, view, begin, count, block);
        REQUIRE(
            std::equal(got.begin(), got.end(), expected.begin() + static_cast<ptrdiff_t>(begin)));
      }
    }
  }
  const Strided matrix{{130, 70}, {1, 6000}, 7};
  Storage<uint16_t> s(500'000);
  CHECK(range(s, matrix, 0, 130 * 70, 64 << 10) == plain(s.values, matrix));
  CHECK(s.reads == 70);
  CHECK(s.most == 2 * 130);
}

TEST_CASE("view: strides that are none") {
  const auto whole = [](std::vector<uint64_t> shape, std::vector<int64_t> strides,
                        uint64_t offset = 0) {
    return View::strided(shape, strides, offset).is_all_of(shape);
  };
  CHECK(whole({}, {}));
  CHECK(whole({4, 5}, {5, 1}));
  CHECK(whole({4, 1, 5}, {5, 77, 1}));
  CHECK_FALSE(whole({4, 5}, {5, 1}, 3));
  CHECK_FALSE(whole({4, 5}, {1, 4}));
  CHECK_FALSE(whole({4}, {0}));
  CHECK_FALSE(whole({2, 2}, {4, 1}));
}

TEST_CASE("gather: a column of a large matrix skips what lies between") {
  Storage<uint32_t> s(64 * 100'000);
  const Strided column{{64, 50'000}, {100'000, 1}};
  CHECK(range(s, column, 0, 64 * 50'000, 4 << 20) == plain(s.values, column));
  CHECK(s.reads == 64);
  CHECK(s.most == 4 * 50'000);
}

TEST_CASE("gather: an element that is repeated is read once") {
  Storage<uint32_t> s(8);
  const Strided repeated{{1'000'000}, {0}, 3};
  CHECK(range(s, repeated, 7, 999'000, 4) == std::vector<uint32_t>(999'000, 4));
  CHECK(s.reads == 1);
}

TEST_CASE("gather: matrices of every size turned over") {
  const auto check = [](auto element, uint64_t rows, uint64_t columns) {
    using T = decltype(element);
    const uint64_t from_stride = rows + 3, to_stride = columns + 5;
    std::vector<T> from(columns * from_stride), to(rows * to_stride, T{77}), want = to;
    for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<T>(i * 2654435761u >> 7);
    for (uint64_t r = 0; r < rows; ++r) {
      for (uint64_t c = 0; c < columns; ++c) want[r * to_stride + c] = from[c * from_stride + r];
    }
    turn(reinterpret_cast<const std::byte*>(from.data()), from_stride,
         reinterpret_cast<std::byte*>(to.data()), to_stride, rows, columns, sizeof(T));
    CHECK(to == want);
  };
  for (const uint64_t rows : {1, 3, 8, 16, 37, 64, 130}) {
    for (const uint64_t columns : {1, 7, 16, 31, 32, 33, 64, 71, 129}) {
      check(uint8_t{}, rows, columns);
      check(uint16_t{}, rows, columns);
      check(uint32_t{}, rows, columns);
      check(uint64_t{}, rows, columns);
    }
  }
}

TEST_CASE("gather: an error of the source is passed on") {
  std::vector<std::byte> block(64), out(16);
  const auto failing = [](const Runs&, std::span<std::byte>) -> Result<void> {
    return Error{XD_IO, "gone"};
  };
  const auto factors = Strided{{2, 2}, {1, 2}}.view().factors();
  const auto r = gather(factors, 0, 4, 0, out, block, failing);
  REQUIRE_FALSE(r);
  CHECK(r.error().message == "gone");
}
