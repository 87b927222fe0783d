// SPDX-License-Identifier: Apache-2.0

// Nodes of codes below and above other nodes, with which they share the scratch that they read
// ahead into.
#include "core/transform/dequantise.h"

#include "tests/unit/core_dequantise_maker.h"
#include "tests/unit/core_test_support.h"

#include <algorithm>

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using transform::kMinBlock;
using transform::View;

namespace {

Expression turned(Expression e, uint64_t a, uint64_t b) {
  View view = View::of(e.root().shape);
  Shape order(view.rank());
  for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
  std::swap(order[a], order[b]);
  REQUIRE(view.permute(order));
  return Expression::view(std::move(e), view, {{"transpose", ""}});
}

Expression sliced(Expression e, uint64_t dim, uint64_t begin, uint64_t count) {
  View view = View::of(e.root().shape);
  REQUIRE(view.slice(dim, begin, count));
  return Expression::view(std::move(e), view, {{"slice", ""}});
}

Expression widened(Expression e, uint64_t dim) {
  View view = View::of(e.root().shape);
  REQUIRE(view.unsqueeze(dim));
  return Expression::view(std::move(e), view, {{"unsqueeze", std::to_string(dim)}});
}

// Random trees, each of a shape that is asked for.
class Trees {
 public:
  explicit Trees(Maker& maker) : maker_(maker) {}

  Expression tree(const Shape& shape, DType dtype, int depth) {
    const uint64_t dim = maker_.pick(shape.size());
    const uint64_t what = depth == 0 ? 0 : maker_.pick(6);
    if (what == 1 && shape.size() > 1) {
      const uint64_t other = maker_.pick(shape.size());
      Shape below = shape;
      std::swap(below[dim], below[other]);
      return turned(tree(below, dtype, depth - 1), dim, other);
    }
    if (what == 2) {
      Shape below = shape;
      below[dim] += 1 + maker_.pick(4);
      const uint64_t begin = maker_.pick(below[dim] - shape[dim] + 1);
      return sliced(tree(below, dtype, depth - 1), dim, begin, shape[dim]);
    }
    if (what == 3 && shape[dim] > 1) {
      Shape first = shape, second = shape;
      first[dim] = 1 + maker_.pick(shape[dim] - 1);
      second[dim] -= first[dim];
      return *Expression::concat({tree(first, dtype, depth - 1), tree(second, dtype, depth - 1)},
                                 dim);
    }
    if (what == 4 && shape.size() > 1 && shape[dim] <= 4) {
      Shape below = shape;
      below.erase(below.begin() + static_cast<ptrdiff_t>(dim));
      std::vector<Expression> parts;
      for (uint64_t i = 0; i < shape[dim]; ++i)
        parts.push_back(widened(tree(below, dtype, depth - 1), dim));
      return *Expression::concat(std::move(parts), dim);
    }
    if (what == 5 && dtype == DType::F32)
      return *Expression::map(tree(shape, dtype, depth - 1), transform::Mapping::kAdd, 0.5f);
    if (maker_.pick(6) == 0) return maker_.stored_floats(dtype, shape);
    return dequantised(shape, dtype, depth);
  }

 private:
  // What belongs to codes is a tree as well.
  Expression dequantised(const Shape& shape, DType dtype, int depth) {
    Recipe r;
    r.shape = shape;
    r.columns = shape.back();
    r.rows = shape.size() > 1 ? shape[shape.size() - 2] : 1;
    r.matrices = *checked_product(shape) / r.columns / r.rows;
    r.block_rows = 1 + maker_.pick(r.rows);
    r.block_columns = 1 + maker_.pick(r.columns);
    r.bits = 1 + static_cast<uint32_t>(maker_.pick(8));
    r.words = maker_.one_of({DType::U8, DType::I32});
    r.product = maker_.float_type();
    r.result = dtype;
    r.has_groups = maker_.pick(3) == 0;
    const uint64_t rows = r.matrices * r.rows, words = Maker::row_words(r);
    Expression::Operands operands{maker_.flip()
                                      ? turned(maker_.stored_bytes(r.words, {words, rows}), 0, 1)
                                      : maker_.stored_bytes(r.words, {rows, words}),
                                  {},
                                  {},
                                  {}};
    const Shape grid = Maker::grid(r);
    const auto values = [&] {
      const DType type = maker_.float_type();
      return depth < 2 ? maker_.stored_floats(type, grid) : tree(grid, type, depth - 2);
    };
    if (maker_.flip()) operands.zeros = values();
    if (maker_.pick(4) > 0) operands.scales = values();
    if (r.has_groups) operands.groups = maker_.stored_groups(r.columns, grid[1]);
    return *maker_.make(r, std::move(operands));
  }

  Maker& maker_;
};

}  // namespace

TEST_CASE("dequantise: below and above views, joins and other codes, whose scratch they share") {
  uint32_t most_blocks = 0;
  for (uint32_t round = 0; round < 300; ++round) {
    INFO("round " << round);
    Maker maker(1000 + round);
    Shape shape;
    for (uint64_t i = 0; i < 1 + maker.pick(3); ++i) shape.push_back(1 + maker.pick(12));
    const Expression e = Trees(maker).tree(shape, maker.float_type(), 5);
    REQUIRE(e.root().shape == shape);
    maker.check(e, 8);
    most_blocks = std::max(most_blocks, e.scratch_blocks());
  }
  CHECK(most_blocks >= 5);
}

TEST_CASE("dequantise: joined and turned tensors that are larger than the room") {
  for (uint32_t round = 0; round < 4; ++round) {
    INFO("round " << round);
    Maker maker(2000 + round);
    Trees trees(maker);
    const Shape shape{40 + maker.pick(60), 200 + maker.pick(100)};
    const DType dtype = maker.float_type();
    std::vector<Expression> parts;
    for (int i = 0; i < 3; ++i) parts.push_back(turned(trees.tree(shape, dtype, 1), 0, 1));
    maker.check(*Expression::concat(std::move(parts), round % 2), 3);
  }
}

TEST_CASE("dequantise: what lies near is read at once, and each code once where there is room") {
  Maker maker(6);
  Recipe r{.rows = 256, .columns = 512, .block_columns = 32, .bits = 4};
  r.scales = DType::BF16;
  r.shape = {256, 512};
  const Expression rows = maker.make(r), columns = turned(rows, 0, 1);
  CHECK(columns.scratch_blocks() == 2);
  const uint64_t all = maker.stored.tensors[0].size() + maker.stored.tensors[1].size();
  const auto reads = [&](const Expression& e, uint64_t scratch) {
    maker.stored.bytes_read = maker.stored.n_reads = 0;
    CHECK(maker.range(e, 0, 256 * 512, scratch) == Reference(maker.stored, maker.codes).of(e));
    CHECK(maker.stored.bytes_read < all + 1024);
    return maker.stored.n_reads;
  };
  CHECK(reads(rows, 2 << 20) == 2);
  CHECK(reads(columns, 2 << 20) == 2);
  CHECK(reads(columns, 256 << 10) <= 4);
  CHECK(reads(columns, 64 << 10) <= 7);
}

TEST_CASE("dequantise: a read that fails is the error, whichever it is") {
  Maker maker(7);
  Recipe r{.rows = 40, .columns = 600, .block_columns = 30, .words = DType::I32};
  r.zeros = r.scales = DType::F32;
  r.has_groups = true;
  r.shape = {40, 600};
  const Expression first = maker.make(r), second = maker.make(r);
  const Expression e = *Expression::concat({turned(first, 0, 1), turned(second, 0, 1)}, 1);
  const Raw want = Reference(maker.stored, maker.codes).of(e);
  const uint64_t scratch = e.scratch_blocks() * kMinBlock;
  CHECK(maker.range(e, 0, 80 * 600, scratch) == want);
  const uint64_t n_reads = maker.stored.n_reads;
  CHECK(n_reads > 20);
  for (uint64_t i = 0; i < n_reads; i += 1 + i / 3) {
    maker.stored.fails_at = i;
    maker.stored.n_reads = 0;
    Raw out(want.size());
    CHECK(message(maker.evaluate(e, 0, out, scratch)) == "the disk is gone");
  }
  maker.stored.fails_at = UINT64_MAX;
  CHECK(maker.range(e, 0, 80 * 600, scratch) == want);
}
