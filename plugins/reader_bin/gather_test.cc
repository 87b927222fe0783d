#include "plugins/reader_bin/gather.h"

#include "tests/catch.h"

#include <numeric>
#include <random>

using namespace crossdock;
using namespace crossdock::reader_bin;

namespace {

template <class T>
struct Storage {
  std::vector<T> values;
  uint64_t reads = 0, most = 0;

  explicit Storage(size_t n) : values(n) { std::iota(values.begin(), values.end(), T{1}); }
  ReadBytes reader() {
    return [this](uint64_t offset, std::span<std::byte> out) -> Result<void> {
      const auto bytes = std::as_bytes(std::span(values));
      REQUIRE(offset + out.size() <= bytes.size());
      std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
      ++reads;
      most = std::max<uint64_t>(most, out.size());
      return {};
    };
  }
};

// Element by element: what gather must equal.
template <class T>
std::vector<T> plain(const std::vector<T>& values, const View& view) {
  std::vector<T> out;
  std::vector<uint64_t> index(view.shape.size(), 0);
  const uint64_t n = *checked_product(view.shape);
  for (uint64_t i = 0; i < n; ++i) {
    uint64_t at = view.offset, rest = i;
    for (size_t d = view.shape.size(); d-- > 0;) {
      at += rest % view.shape[d] * view.strides[d];
      rest /= view.shape[d];
    }
    out.push_back(values[at]);
  }
  return out;
}

template <class T>
std::vector<T> range(Storage<T>& s, const View& view, uint64_t begin, uint64_t count,
                     size_t block_bytes) {
  std::vector<T> out(count);
  std::vector<std::byte> block(block_bytes);
  REQUIRE(gather(view, begin, count, block, s.reader(), std::as_writable_bytes(std::span(out))));
  return out;
}

}  // namespace

TEST_CASE("gather: every range of views of every kind, with blocks of every size") {
  struct Shape {
    std::vector<uint64_t> shape, strides;
    uint64_t offset;
  };
  for (const Shape& s : std::vector<Shape>{
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
    const View view{s.shape, s.strides, s.offset, 4};
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
  const std::vector<uint64_t> shape{5, 3}, strides{1, 5};
  const auto check = [&]<class T>(T) {
    Storage<T> s(15);
    const View view{shape, strides, 0, sizeof(T)};
    CHECK(range(s, view, 0, 15, 64) == plain(s.values, view));
  };
  check(uint8_t{});
  check(uint16_t{});
  check(uint32_t{});
  check(uint64_t{});
  Storage<uint64_t> s(30);  // as pairs of 16 bytes
  std::vector<uint64_t> out(30);
  std::vector<std::byte> block(64);
  REQUIRE(gather({shape, strides, 0, 16}, 0, 15, block, s.reader(),
                 std::as_writable_bytes(std::span(out))));
  for (uint64_t i = 0; i < 15; ++i) CHECK(out[2 * i] == s.values[2 * (i % 3 * 5 + i / 3)]);
}

TEST_CASE("gather: a large transposed matrix in few reads of little more than it needs") {
  const std::vector<uint64_t> shape{512, 512}, strides{1, 512};
  Storage<uint16_t> s(512 * 512);
  const View view{shape, strides, 0, 2};
  const auto expected = plain(s.values, view);
  CHECK(range(s, view, 0, 512 * 512, 1 << 20) == expected);
  CHECK(s.reads == 1);
  s.reads = 0;
  const auto rows =
      range(s, view, 512 * 100, 512 * 8, 64 << 10);  // 8 rows: 8 neighbours in each column
  CHECK(std::equal(rows.begin(), rows.end(), expected.begin() + 512 * 100));
  CHECK(s.reads <= 64);
}

TEST_CASE("gather: what is dense") {
  const auto dense = [](std::vector<uint64_t> shape, std::vector<uint64_t> strides) {
    return is_dense({shape, strides, 3, 4});
  };
  CHECK(dense({}, {}));
  CHECK(dense({4, 5}, {5, 1}));
  CHECK(dense({4, 1, 5}, {5, 77, 1}));
  CHECK(dense({0, 5}, {9, 9}));
  CHECK_FALSE(dense({4, 5}, {1, 4}));
  CHECK_FALSE(dense({4}, {0}));
  CHECK_FALSE(dense({2, 2}, {4, 1}));
}

TEST_CASE("gather: an error of the source is passed on") {
  const std::vector<uint64_t> shape{2, 2}, strides{1, 2};
  std::vector<std::byte> block(64), out(16);
  const auto failing = [](uint64_t, std::span<std::byte>) -> Result<void> {
    return Error{XD_IO, "gone"};
  };
  const auto r = gather({shape, strides, 0, 4}, 0, 4, block, failing, out);
  REQUIRE_FALSE(r);
  CHECK(r.error().message == "gone");
}
