// SPDX-License-Identifier: Apache-2.0
#include "core/transform/expression.h"

#include "tests/unit/core_test_support.h"

#include <cmath>
#include <cstring>
#include <random>

using namespace crossdock;
using namespace crossdock::transform;
using manifest::DType;

namespace {

// The stored elements are their own indexes.
std::vector<uint32_t> iota(uint64_t n) {
  std::vector<uint32_t> out(n);
  for (uint32_t i = 0; i < n; ++i) out[i] = i;
  return out;
}

// One element at a time, by the definition.
std::vector<uint32_t> naive(const View& view) {
  const auto factors = view.factors();
  uint64_t n = 1;
  for (const Factor& f : factors) n *= f.size;
  std::vector<uint32_t> out;
  for (uint64_t i = 0; i < n; ++i) {
    uint64_t at = view.offset(), rest = i;
    for (size_t k = factors.size(); k-- > 0;) {
      at += rest % factors[k].size * factors[k].stride;
      rest /= factors[k].size;
    }
    out.push_back(static_cast<uint32_t>(at));
  }
  return out;
}

struct Stored {
  std::vector<uint32_t> values;
  uint64_t reads = 0;
  ReadBelow read() {
    return [this](const Runs& runs, std::span<std::byte> out) -> Result<void> {
      const uint64_t n = out.size() / 4 / runs.count;
      for (uint64_t i = 0; i < runs.count; ++i) {
        const uint64_t begin = runs.begin + i * runs.stride;
        ++reads;
        REQUIRE(begin + n <= values.size());
        std::memcpy(out.data() + i * 4 * n, values.data() + begin, 4 * n);
      }
      return {};
    };
  }
};

std::vector<uint32_t> gathered(const View& view, Stored& stored, uint64_t begin, uint64_t count,
                               uint64_t scratch) {
  std::vector<uint32_t> out(count);
  std::vector<std::byte> room(scratch * 4);
  REQUIRE(gather(view.factors(), view.offset(), 4, begin, std::as_writable_bytes(std::span(out)),
                 room, stored.read()));
  return out;
}

View view_of(std::initializer_list<uint64_t> shape) {
  return View::of(std::vector<uint64_t>(shape));
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

template <class... T>
std::vector<uint64_t> list(T... v) {
  return {static_cast<uint64_t>(v)...};
}

std::string message(const Result<void>& r) { return r ? "" : r.error().message; }

}  // namespace

TEST_CASE("view: split, permute, merge, slice") {
  View v = view_of({6, 4});
  REQUIRE(v.split(0, list(3, 2)));
  REQUIRE(v.permute(list(1, 0, 2)));
  REQUIRE(v.merge(0, 2));
  CHECK(v.shape() == list(6, 4));
  CHECK(naive(v) == std::vector<uint32_t>{0, 1, 2, 3, 8,  9,  10, 11, 16, 17, 18, 19,
                                          4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23});
  REQUIRE(v.split(0, list(2, 3)));  // along the parts that it was merged of
  REQUIRE(v.permute(list(1, 0, 2)));
  REQUIRE(v.merge(0, 3));
  CHECK(naive(v) == iota(24));
  CHECK(v.factors() == std::vector<Factor>{{24, 1}});
  REQUIRE(v.slice(0, 5, 2));
  CHECK(naive(v) == std::vector<uint32_t>{5, 6});
  REQUIRE(v.unsqueeze(1));
  REQUIRE(v.unsqueeze(0));
  CHECK(v.shape() == list(1, 2, 1));
  REQUIRE(v.squeeze(2));
  REQUIRE(v.squeeze(0));
  CHECK(v.shape() == list(2));
}

TEST_CASE("view: what does not fit") {
  View v = view_of({6, 4});
  CHECK(
      contains(message(v.split(0, list(4, 2))), "expected sizes whose product is 6, found [4, 2]"));
  CHECK(contains(message(v.split(2, list(1))),
                 "expected a dimension below 2 of the shape [6, 4], found 2"));
  CHECK(contains(message(v.split(0, list(UINT64_MAX, 2))), "expected sizes whose product is 6"));
  CHECK(contains(message(v.merge(1, 2)), "expected to merge 1 to 1 dimensions"));
  CHECK(
      contains(message(v.permute(list(0, 0))), "expected each of 2 dimensions once, found [0, 0]"));
  CHECK(contains(message(v.slice(0, 6, 1)), "expected a part of 6 elements, found 1 at 6"));
  CHECK(contains(message(v.slice(0, UINT64_MAX, 2)), "expected a part of 6 elements"));
  CHECK(contains(message(v.slice(0, 2, 0)), "expected a part of 6 elements"));
  CHECK(contains(message(v.squeeze(0)), "expected a dimension of size 1, found 6"));
  CHECK(contains(message(v.unsqueeze(3)), "expected a dimension below 3"));
  View none = view_of({0, 4});
  CHECK(
      contains(message(none.split(0, list(0, 2))), "expected to split a dimension with elements"));
  REQUIRE(v.permute(list(1, 0)));
  REQUIRE(v.merge(0, 2));
  CHECK(contains(message(v.slice(0, 1, 2)), "before it is merged"));
  CHECK(contains(message(v.split(0, list(3, 8))), "expected to split whole parts"));
}

TEST_CASE("gather: any view, any range, any room, as one element at a time") {
  std::mt19937 random(7);
  const auto pick = [&](uint64_t n) { return random() % n; };
  for (int round = 0; round < 3000; ++round) {
    View v = view_of({2 + 2 * pick(4), 2 + 2 * pick(4), 2 + 2 * pick(5)});
    Stored stored{iota(v.size(0) * v.size(1) * v.size(2))};
    for (int step = 0; step < 4; ++step) {
      const uint64_t dim = pick(v.rank());
      std::vector<uint64_t> order(v.rank());
      for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
      std::shuffle(order.begin(), order.end(), random);
      // Some do not fit, which must leave a view that works.
      if (const uint64_t what = pick(5); what == 0) {
        (void)v.split(dim, list(v.size(dim) / 2, 2));
      } else if (what == 1) {
        (void)v.merge(dim, 1 + pick(v.rank() - dim));
      } else if (what == 2) {
        (void)v.slice(dim, pick(v.size(dim)), 1 + pick(v.size(dim)));
      } else {
        REQUIRE(v.permute(order));
      }
    }
    const auto want = naive(v);
    const uint64_t begin = pick(want.size()), count = 1 + pick(want.size() - begin);
    const auto got = gathered(v, stored, begin, count, 1 + pick(3) * pick(100));
    REQUIRE(got == std::vector<uint32_t>(want.begin() + static_cast<ptrdiff_t>(begin),
                                         want.begin() + static_cast<ptrdiff_t>(begin + count)));
  }
}

TEST_CASE("gather: few reads where the stored elements are near each other") {
  View heads = view_of({8 * 64, 32});  // rows of 8 heads, un-permuted
  REQUIRE(heads.split(0, list(8, 32, 2)));
  REQUIRE(heads.permute(list(0, 2, 1, 3)));
  Stored stored{iota(8 * 64 * 32)};
  CHECK(gathered(heads, stored, 0, 8 * 64 * 32, 64 * 32) == naive(heads));
  CHECK(stored.reads == 8);
  View turned = view_of({512, 256});
  REQUIRE(turned.permute(list(1, 0)));
  Stored matrix{iota(512 * 256)};
  CHECK(gathered(turned, matrix, 0, 512 * 256, 16384) == naive(turned));
  CHECK(matrix.reads <= 512 * 256 / 16);
}

namespace {

// Three stored tensors of F32: "a" [4, 6], "b" [4, 2] and "c" [3, 4, 2], each element of a value of
// its own.
const std::vector<std::vector<uint64_t>> kShapes{{4, 6}, {4, 2}, {3, 4, 2}};

float stored_value(uint64_t tensor, uint64_t i) {
  return -(static_cast<float>(tensor * 100 + i) + 1);
}

std::vector<manifest::Tensor> source() {
  std::vector<manifest::Tensor> out;
  for (size_t i = 0; i < kShapes.size(); ++i) {
    out.push_back(test::tensor(std::string(1, static_cast<char>('a' + i)), DType::F32, kShapes[i]));
  }
  return out;
}

Expression stored(uint64_t tensor) {
  return Expression::stored(tensor, DType::F32, kShapes[tensor]);
}

struct Reads {
  uint64_t count = 0;
  const std::byte* into = nullptr;
  ReadStored reader() {
    return [this](uint64_t tensor, uint64_t begin, uint64_t n, std::span<std::byte> out) {
      ++count;
      into = out.data();
      REQUIRE(out.size() == 4 * n);
      REQUIRE(begin + n <= *checked_product(kShapes[tensor]));
      for (uint64_t i = 0; i < n; ++i) {
        const float value = stored_value(tensor, begin + i);
        std::memcpy(&out[4 * i], &value, 4);
      }
      return Result<void>();
    };
  }
};

// All values of a node by its definition, each node whole.
std::vector<float> reference(const std::vector<Node>& nodes, size_t index) {
  const Node& node = nodes[index];
  std::vector<float> out;
  const uint64_t n = *checked_product(node.shape);
  if (const auto* s = std::get_if<Node::Stored>(&node.what)) {
    for (uint64_t i = 0; i < n; ++i) out.push_back(stored_value(s->tensor, i));
  } else if (const auto* v = std::get_if<Node::Viewed>(&node.what)) {
    const auto below = reference(nodes, v->of);
    for (uint64_t i = 0; i < n; ++i) {
      uint64_t at = v->offset, rest = i;
      for (size_t k = v->factors.size(); k-- > 0;) {
        at += rest % v->factors[k].size * v->factors[k].stride;
        rest /= v->factors[k].size;
      }
      out.push_back(below.at(at));
    }
  } else if (const auto* c = std::get_if<Node::Concat>(&node.what)) {
    // Element by element: its index along the joined dimension says whose it is.
    std::vector<std::vector<float>> children;
    for (const uint32_t child : c->of) children.push_back(reference(nodes, child));
    for (uint64_t i = 0; i < n; ++i) {
      uint64_t behind = 1;
      for (size_t d = c->dim + 1; d < node.shape.size(); ++d) behind *= node.shape[d];
      const uint64_t before = i / behind / node.shape[c->dim];
      uint64_t along = i / behind % node.shape[c->dim];
      for (size_t k = 0; k < children.size(); ++k) {
        const uint64_t size = nodes[c->of[k]].shape[c->dim];
        if (along < size) {
          out.push_back(children[k].at((before * size + along) * behind + i % behind));
          break;
        }
        along -= size;
      }
    }
  } else {
    const auto& map = std::get<Node::Map>(node.what);
    for (const float value : reference(nodes, map.of)) {
      out.push_back(map.mapping == Mapping::kAdd
                        ? value + map.operand
                        : static_cast<float>(std::log(-static_cast<double>(value))));
    }
  }
  return out;
}

Expression turned(Expression e) {
  View view = View::of(e.root().shape);
  REQUIRE(view.permute(list(1, 0)));
  return Expression::view(std::move(e), view, {{"transpose", ""}});
}

Expression with_new_dimension(Expression e) {
  View view = View::of(e.root().shape);
  REQUIRE(view.unsqueeze(0));
  return Expression::view(std::move(e), view, {{"unsqueeze", "0"}});
}

std::vector<float> evaluated(const Expression& e, uint64_t begin, uint64_t count,
                             uint64_t scratch_elems) {
  std::vector<float> out(count);
  std::vector<std::byte> scratch(4 * scratch_elems * e.scratch_blocks());
  Reads reads;
  REQUIRE(e.evaluate(begin, std::as_writable_bytes(std::span(out)), scratch, reads.reader()));
  return out;
}

std::vector<float> whole(const Expression& e, uint64_t scratch_elems = 64) {
  return evaluated(e, 0, *checked_product(e.root().shape), scratch_elems);
}

}  // namespace

TEST_CASE("expression: a stored tensor is one read into the caller's buffer, without scratch") {
  Reads reads;
  std::vector<float> out(5);
  View rows = View::of(kShapes[0]);
  REQUIRE(rows.split(0, list(2, 2)));
  View part = View::of(kShapes[0]);
  REQUIRE(part.slice(0, 1, 2));
  for (const auto& [e, first] : {std::pair{stored(0), 3},
                                 {Expression::view(stored(0), rows, {}), 3},
                                 {Expression::view(stored(0), part, {}), 9}}) {
    reads.count = 0;
    CHECK(e.scratch_blocks() == 0);
    REQUIRE(e.evaluate(3, std::as_writable_bytes(std::span(out)), {}, reads.reader()));
    CHECK(reads.count == 1);
    CHECK(reads.into == reinterpret_cast<std::byte*>(out.data()));
    for (uint64_t i = 0; i < 5; ++i)
      CHECK(out[i] == stored_value(0, static_cast<uint64_t>(first) + i));
  }
  CHECK(stored(0).as_stored());
  CHECK(Expression::view(stored(0), View::of(kShapes[0]), {}) == stored(0));
  CHECK_FALSE(Expression::view(stored(0), rows, {}).as_stored());
}

TEST_CASE("expression: joined tensors, and a change of each value") {
  const Expression joined = *Expression::concat({stored(0), stored(1)}, 1);
  CHECK(joined.root().shape == list(4, 8));
  const Expression e =
      *Expression::map(*Expression::map(joined, Mapping::kLogOfNegated), Mapping::kAdd, 0.5f);
  std::vector<float> want;
  for (uint64_t row = 0; row < 4; ++row) {
    for (uint64_t i = 0; i < 8; ++i) {
      const float value = i < 6 ? stored_value(0, row * 6 + i) : stored_value(1, row * 2 + i - 6);
      want.push_back(static_cast<float>(std::log(-static_cast<double>(value))) + 0.5f);
    }
  }
  for (size_t begin = 0; begin < want.size(); ++begin) {
    for (size_t end = begin + 1; end <= want.size(); ++end)
      CHECK(evaluated(e, begin, end - begin, 4) ==
            std::vector<float>(want.begin() + static_cast<ptrdiff_t>(begin),
                               want.begin() + static_cast<ptrdiff_t>(end)));
  }
}

TEST_CASE("expression: joins in joins, and views of joins") {
  // stack(a[:, :2], b) turned over, beside itself
  View part = View::of(kShapes[0]);
  REQUIRE(part.slice(1, 0, 2));
  const Expression left = Expression::view(stored(0), part, {{"slice", "1, 0, 2"}});
  const Expression stack =
      *Expression::concat({with_new_dimension(left), with_new_dimension(stored(1))}, 0);
  CHECK(stack.root().shape == list(2, 4, 2));
  View over = View::of(stack.root().shape);
  REQUIRE(over.permute(list(2, 1, 0)));
  const Expression turned_over = Expression::view(stack, over, {{"permute", "[2, 1, 0]"}});
  const Expression e = *Expression::concat({turned_over, turned_over}, 2);
  CHECK(e.root().shape == list(2, 4, 4));
  CHECK(e.scratch_blocks() == 2);
  std::vector<float> want;
  for (uint64_t x = 0; x < 2; ++x) {
    for (uint64_t y = 0; y < 4; ++y) {
      for (uint64_t z = 0; z < 4; ++z)
        want.push_back(z % 2 == 0 ? stored_value(0, y * 6 + x) : stored_value(1, y * 2 + x));
    }
  }
  for (const uint64_t scratch : {1, 3, 1000}) CHECK(whole(e, scratch) == want);
  CHECK(e.tensors() == list(0, 1));
}

TEST_CASE("expression: any tree, any range, any room, as by the definitions") {
  std::mt19937 random(11);
  const auto pick = [&](uint64_t n) { return random() % n; };
  for (int round = 0; round < 400; ++round) {
    Expression e = stored(pick(kShapes.size()));
    for (int step = 0; step < 5; ++step) {
      const uint64_t what = pick(4);
      const auto& shape = e.root().shape;
      if (what == 0) {
        const auto joined = Expression::concat({e, e}, pick(shape.size()));
        REQUIRE(joined);
        if (*checked_product(joined->root().shape) < 500) e = *joined;
      } else if (what == 1) {
        e = *Expression::map(e, Mapping::kAdd, static_cast<float>(pick(3)));
      } else {
        View view = View::of(shape);
        std::vector<uint64_t> order(shape.size());
        for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
        std::shuffle(order.begin(), order.end(), random);
        const uint64_t dim = pick(shape.size()), begin = pick(shape[dim]);
        if (shape[dim] > 2) REQUIRE(view.slice(dim, begin, 1 + pick(shape[dim] - begin)));
        REQUIRE(view.permute(order));
        e = Expression::view(e, view, {});
      }
    }
    const auto want = reference(e.nodes(), e.nodes().size() - 1);
    REQUIRE(want.size() == *checked_product(e.root().shape));
    const uint64_t begin = pick(want.size()), count = 1 + pick(want.size() - begin);
    REQUIRE(evaluated(e, begin, count, 1 + pick(3) * pick(100)) ==
            std::vector<float>(want.begin() + static_cast<ptrdiff_t>(begin),
                               want.begin() + static_cast<ptrdiff_t>(begin + count)));
  }
}

TEST_CASE("expression: a stored tensor with strides") {
  manifest::Tensor t = test::tensor("t", DType::F32, {3, 2, 2});
  t.strides = {0, 1, 6};  // expanded, and transposed
  t.storage_offset = 2;
  t.storage_elements = 24;
  const Expression e = stored_tensor(0, t);
  std::vector<float> want;
  for (uint64_t i = 0; i < 12; ++i) want.push_back(stored_value(0, 2 + i % 4 / 2 + i % 2 * 6));
  CHECK(whole(e) == want);
  std::vector<manifest::Tensor> tensors{t};
  describe(e, tensors, t);
  CHECK(t.expression == "strided([0, 1, 6], 2, t)");
  CHECK(t.strides.empty());
  CHECK(t.storage_offset + t.storage_elements == 0);
  manifest::Tensor plain = test::tensor("a", DType::F32, {4, 6});
  describe(stored_tensor(0, plain), {&plain, 1}, plain);
  CHECK(plain.expression.empty());
}

TEST_CASE("expression: texts") {
  const auto text = [](const Expression& e) { return e.text(source()); };
  CHECK(text(stored(2)) == "c");
  CHECK(text(turned(stored(1))) == "transpose(b)");
  CHECK(text(*Expression::concat({turned(stored(0)), turned(stored(0))}, 0)) ==
        "concat(0, transpose(a), transpose(a))");
  CHECK(text(*Expression::map(*Expression::map(stored(0), Mapping::kLogOfNegated), Mapping::kAdd,
                              -0.1f)) == "add(-0.1, log_of_negated(a))");
  const Expression up = with_new_dimension(stored(1)), one = with_new_dimension(turned(stored(1)));
  CHECK(text(up) == "unsqueeze(0, b)");
  CHECK(text(*Expression::concat({up, up}, 0)) == "stack(0, b, b)");
  CHECK(text(*Expression::concat({up, up}, 1)) == "concat(1, unsqueeze(0, b), unsqueeze(0, b))");
  CHECK(text(*Expression::concat({one, one, one, one, one}, 0)) ==
        "stack(0, transpose(b), transpose(b), ..., transpose(b))");
}

TEST_CASE("expression: what does not fit") {
  const auto error = [](const Result<Expression>& r) { return r ? "" : r.error().message; };
  CHECK(contains(error(Expression::concat({stored(0), stored(1)}, 0)),
                 "shapes differ along the joined dimension alone"));
  CHECK(contains(error(Expression::concat({stored(0), stored(2)}, 0)), "shapes differ"));
  CHECK(contains(error(Expression::concat({stored(0), stored(0)}, 2)),
                 "expected a dimension below 2 to join, found 2"));
  const Expression half = Expression::stored(0, DType::BF16, kShapes[0]);
  CHECK(error(Expression::concat({stored(0), half}, 0)) ==
        "expected tensors of one type to join, found two");
  CHECK(error(Expression::map(half, Mapping::kAdd, 1)) ==
        "expected F32 values to compute on, found BF16");
  const Expression huge = Expression::stored(0, DType::U8, {uint64_t{1} << 63});
  CHECK(error(Expression::concat({huge, huge}, 0)) ==
        "expected fewer than 2^64 elements to join, found more");
  for (const uint64_t last : {1, 4}) {  // of no elements, for the first dimension is empty
    const Expression none = Expression::stored(0, DType::U8, {0, uint64_t{1} << 63, last});
    CHECK(contains(error(Expression::concat({none, none}, 1)), "fewer than 2^64 elements"));
  }
  const auto failing = [](uint64_t, uint64_t, uint64_t, std::span<std::byte>) -> Result<void> {
    return Error{XD_IO, "gone"};
  };
  std::vector<std::byte> out(16), scratch(64);
  CHECK(message(turned(*Expression::concat({stored(0), stored(1)}, 1))
                    .evaluate(0, out, scratch, failing)) == "gone");
}
