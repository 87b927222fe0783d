// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/boxes.h"

#include "tests/support/plugin_checks.h"

#include <cstring>
#include <random>

using namespace crossdock;
using namespace crossdock::common;
using test::has;

namespace {

using Sizes = std::vector<uint64_t>;
using Random = std::mt19937;

// Cuts a box at random places, again and again; all in one file, one behind the other.
void cut(Random& random, const Sizes& offsets, const Sizes& sizes, int depth, uint64_t& at,
         std::vector<Box>& out) {
  const size_t d = sizes.empty() ? 0 : random() % sizes.size();
  if (depth > 0 && !sizes.empty() && sizes[d] > 1) {
    const uint64_t first = 1 + random() % (sizes[d] - 1);
    Sizes a = sizes, b = sizes, behind = offsets;
    a[d] = first;
    b[d] -= first;
    behind[d] += first;
    cut(random, offsets, a, depth - 1, at, out);
    cut(random, behind, b, depth - 1, at, out);
    return;
  }
  out.push_back({offsets, sizes, 0, at});
  at += *checked_product(sizes) * sizeof(uint32_t);
}

std::string outcome(const Sizes& shape, const std::vector<Box>& boxes, uint64_t pairs = kMaxPairs) {
  const auto done = check_tiling(shape, boxes, pairs);
  return done ? "tiles" : done.error().message;
}

}  // namespace

TEST_CASE("boxes of any cut give every range") {
  Random random(7);
  for (int round = 0; round < 200; ++round) {
    Sizes shape;
    for (size_t d = random() % 5; d > 0; --d) shape.push_back(1 + random() % 9);
    CAPTURE(round, shape);
    uint64_t bytes = 0;
    std::vector<Box> boxes;
    cut(random, Sizes(shape.size()), shape, static_cast<int>(random() % 5), bytes, boxes);
    std::shuffle(boxes.begin(), boxes.end(), random);
    REQUIRE(outcome(shape, boxes) == "tiles");
    // The file holds, for each element of a box, its number in the tensor.
    std::vector<uint32_t> file(bytes / sizeof(uint32_t));
    for (const Box& box : boxes) {
      for (uint64_t i = 0; i < *checked_product(box.sizes); ++i) {
        uint64_t rest = i, number = 0, stride = 1;
        for (size_t d = shape.size(); d-- > 0;) {
          number += (box.offsets[d] + rest % box.sizes[d]) * stride;
          rest /= box.sizes[d];
          stride *= shape[d];
        }
        file[box.data / sizeof(uint32_t) + i] = static_cast<uint32_t>(number);
      }
    }
    const uint64_t n = *checked_product(shape);
    for (int range = 0; range < 20; ++range) {
      const uint64_t begin = range == 0 ? 0 : random() % n;
      const uint64_t count = range == 0 ? n : 1 + random() % (n - begin);
      std::vector<uint32_t> out(count);
      REQUIRE(read_boxes(
          shape, boxes, sizeof(uint32_t), begin, count, std::as_writable_bytes(std::span(out)),
          [&](uint32_t, uint64_t offset, std::span<std::byte> to) -> Result<void> {
            REQUIRE(offset + to.size() <= bytes);
            std::memcpy(to.data(), reinterpret_cast<std::byte*>(file.data()) + offset, to.size());
            return {};
          }));
      bool same = true;
      for (uint64_t i = 0; i < count; ++i) same = same && out[i] == begin + i;
      CHECK(same);
    }
  }
}

TEST_CASE("boxes with strides give every range") {
  // A tensor of 4 x 6: two columns in the middle of rows of 5, four of a transposed 4 x 4.
  const Sizes shape{4, 6};
  const std::vector<Box> boxes{{{0, 0}, {4, 2}, 0, 3, {5, 1}}, {{0, 2}, {4, 4}, 1, 0, {1, 4}}};
  std::vector<std::byte> files[2] = {std::vector<std::byte>(24), std::vector<std::byte>(16)};
  for (uint64_t i = 0; i < 24; ++i) {
    const uint64_t row = i / 6, column = i % 6;
    (column < 2 ? files[0][3 + row * 5 + column] : files[1][row + (column - 2) * 4]) = std::byte(i);
  }
  REQUIRE(outcome(shape, boxes) == "tiles");
  for (uint64_t begin = 0; begin < 24; ++begin) {
    for (uint64_t count = 1; count <= 24 - begin; ++count) {
      std::vector<std::byte> out(count);
      REQUIRE(
          read_boxes(shape, boxes, 1, begin, count, out,
                     [&](uint32_t file, uint64_t offset, std::span<std::byte> to) -> Result<void> {
                       REQUIRE(offset + to.size() <= files[file].size());
                       std::memcpy(to.data(), files[file].data() + offset, to.size());
                       return {};
                     }));
      bool same = true;
      for (uint64_t i = 0; i < count; ++i) same = same && out[i] == std::byte(begin + i);
      CHECK(same);
    }
  }
}

TEST_CASE("short runs are read together, long ones by themselves") {
  // Two halves of the columns of 1000 rows: each half is one piece of the file.
  const std::vector<Box> boxes{{{0, 0}, {1000, 4}, 0, 0}, {{0, 4}, {1000, 4}, 1, 0}};
  std::vector<std::byte> out(8000);
  size_t n_reads = 0;
  const auto read = [&](uint32_t, uint64_t, std::span<std::byte>) -> Result<void> {
    ++n_reads;
    return {};
  };
  const Sizes shape{1000, 8};
  REQUIRE(read_boxes(shape, boxes, 1, 0, 8000, out, read));
  CHECK(n_reads == 2);
  std::vector<std::byte> large(8 << 20);  // 4 MiB of each half, in pieces of 256 KiB
  const std::vector<Box> wide{{{0, 0}, {1024, 4096}, 0, 0}, {{0, 4096}, {1024, 4096}, 1, 0}};
  n_reads = 0;
  const Sizes wide_shape{1024, 8192};
  REQUIRE(read_boxes(wide_shape, wide, 1, 0, large.size(), large, read));
  CHECK(n_reads == 32);
  n_reads = 0;
  const std::vector<Box> rows{{{0, 0}, {512, 8192}, 0, 0}, {{512, 0}, {512, 8192}, 1, 0}};
  REQUIRE(read_boxes(wide_shape, rows, 1, 0, large.size(), large, read));
  CHECK(n_reads == 2);
}

TEST_CASE("boxes that are not the tensor are refused") {
  const std::vector<Box> rows{{{0, 0}, {2, 3}, 0, 0}, {{2, 0}, {2, 3}, 0, 0}};
  CHECK(outcome({4, 3}, rows) == "tiles");
  CHECK(outcome({5, 3}, rows) ==
        "expected chunks that hold all 15 elements, found 12 in 2: the "
        "checkpoint lacks some");
  CHECK(outcome({3, 3}, rows) ==
        "expected chunks inside the tensor of [3, 3], found one of [2, 3] at [2, 0]");
  CHECK(outcome({4, 3}, {rows[0], {{1, 0}, {3, 3}, 0, 0}}) ==
        "expected chunks side by side, found that of [3, 3] at [1, 0] to overlap that at [0, 0]: "
        "save the checkpoint again");
  CHECK(outcome({4, 3}, {rows[0], rows[0]}) ==
        "expected chunks side by side, found that of [2, 3] at [0, 0] to overlap that at [0, 0]: "
        "save the checkpoint again");
  CHECK(outcome({2, 2}, {{{UINT64_MAX, 0}, {2, 2}, 0, 0}}).find("expected chunks inside") == 0);
  CHECK(outcome({}, {{{}, {}, 0, 0}}) == "tiles");
  CHECK(outcome({}, {{{}, {}, 0, 0}, {{}, {}, 0, 0}}) ==
        "expected one chunk of a scalar, found more");
  CHECK(outcome({}, {}) ==
        "expected chunks that hold all 1 elements, found 0 in 0: the checkpoint "
        "lacks some");
  CHECK(outcome({0, 3}, {}) == "tiles");
  CHECK(has(outcome({UINT64_MAX, 3}, {}), "expected a shape whose elements can be counted"));
}

TEST_CASE("comparing boxes costs little in a grid, and is bounded elsewhere") {
  std::vector<Box> grid, columns;
  for (uint64_t row = 0; row < 64; ++row) {
    for (uint64_t column = 0; column < 16; ++column)
      grid.push_back({{row, column * 2}, {1, 2}, 0, 0});
  }
  CHECK(outcome({64, 32}, grid, 64 * 16 * 16) == "tiles");
  for (uint64_t i = 0; i < 4096; ++i) columns.push_back({{0, i}, {3, 1}, 0, 0});
  CHECK(outcome({3, 4096}, columns, 4096) == "tiles");
  CHECK(has(outcome({64, 32}, grid, 100), "expected chunks in a grid, found 1024 in disorder"));
}
