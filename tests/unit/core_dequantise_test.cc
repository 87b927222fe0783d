// SPDX-License-Identifier: Apache-2.0

// The node of codes: any range, with any room, is what the definition gives, bit by bit. What real
// libraries make of their codes the interop tests show.
#include "core/transform/dequantise.h"

#include "tests/unit/core_dequantise_maker.h"
#include "tests/unit/core_test_support.h"

#include <algorithm>

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using transform::kMinBlock;

TEST_CASE("dequantise: codes of any bits, in words of any size, rows of odd lengths") {
  Maker maker(1);
  for (uint32_t bits = 1; bits <= 8; ++bits) {
    for (const DType words : {DType::U8, DType::I32, DType::F8_E4M3, DType::I16, DType::I64}) {
      for (const uint64_t columns : {1, 3, 7, 8, 9, 15, 17}) {
        INFO(bits << " bits, " << columns << " columns of " << manifest::name(words));
        maker.check(maker.make({.rows = 2, .columns = columns, .bits = bits, .words = words}));
      }
    }
  }
}

TEST_CASE("dequantise: the orders of codes of 4 bits") {
  Maker maker(2);
  for (const CodeOrder order :
       {CodeOrder::kLowFirst, CodeOrder::kHighFirst, CodeOrder::kInterleaved}) {
    for (const DType words : {DType::U8, DType::I32, DType::BF16}) {
      for (const uint64_t columns : {8, 16, 24, 40}) {
        INFO(static_cast<int>(order) << ", " << columns << " columns of " << manifest::name(words));
        maker.check(
            maker.make({.rows = 2, .columns = columns, .bits = 4, .order = order, .words = words}));
      }
    }
  }
  // An odd number of codes whose last byte's high half comes first.
  maker.check(maker.make({.rows = 3, .columns = 7, .bits = 4, .order = CodeOrder::kHighFirst}));
}

TEST_CASE("dequantise: blocks, types and operations of all kinds") {
  Maker maker(3);
  for (int round = 0; round < 400; ++round) {
    Recipe r;
    r.matrices = 1 + maker.pick(3);
    r.rows = 1 + maker.pick(5);
    r.columns = 1 + maker.pick(11);
    // Some are larger than the matrix, some fill no row.
    r.block_rows = 1 + maker.pick(r.rows + 2);
    r.block_columns = 1 + maker.pick(r.columns + 2);
    r.bits = 1 + static_cast<uint32_t>(maker.pick(8));
    r.words = maker.one_of({DType::U8, DType::I32});
    if (maker.flip()) r.zeros = maker.float_type();
    if (maker.pick(4) > 0) r.scales = maker.float_type();
    r.has_groups = maker.pick(3) == 0;
    r.divides = maker.flip();
    r.factor = maker.one_of({1.0f, 0.0078740157f, -3.0f});
    r.scale = maker.float_type();
    r.product = maker.float_type();
    r.result = maker.float_type();
    if (maker.flip()) r.shape = {r.matrices * r.rows * r.columns};  // as blocks over a whole tensor
    INFO("round " << round);
    maker.check(maker.make(r), round % 16 == 0 ? UINT64_MAX : 12);
  }
}

TEST_CASE("dequantise: rows and scales that do not fit the room at once") {
  Maker maker(4);
  for (int round = 0; round < 30; ++round) {
    Recipe r;
    r.matrices = 1 + maker.pick(2);
    r.rows = 1 + maker.pick(20);
    r.columns = 1000 + maker.pick(12'000) * maker.pick(2);
    r.block_rows = 1 + maker.pick(3);
    r.block_columns = maker.one_of<uint64_t>({1, 1, 3, 32, 1000, r.columns});
    r.bits = 1 + static_cast<uint32_t>(maker.pick(8));
    r.words = maker.one_of({DType::U8, DType::I32});
    if (maker.pick(3) > 0) r.zeros = maker.float_type();
    r.scales = maker.float_type();
    r.has_groups = r.block_columns >= 32 && maker.flip();
    r.result = maker.float_type();
    INFO("round " << round << ", " << r.rows << " x " << r.columns << " in blocks of "
                  << r.block_rows << " x " << r.block_columns);
    maker.check(maker.make(r), 8);
  }
}

TEST_CASE("dequantise: codes read to the last byte of the room, behind a place in each eight") {
  Maker maker(11);
  for (const CodeOrder order : {CodeOrder::kLowFirst, CodeOrder::kInterleaved}) {
    const Expression e = maker.make({.columns = 40'000, .bits = 4, .order = order});
    const Raw want = Reference(maker.stored, maker.codes).of(e);
    for (uint64_t scratch = kMinBlock; scratch < kMinBlock + 16; ++scratch) {
      for (uint64_t begin = 0; begin < 8; ++begin)
        REQUIRE(maker.range(e, begin, 36'000, scratch) == part(want, 4 * begin, 4 * 36'000));
    }
  }
}

TEST_CASE("dequantise: the least room is enough for all operands, each as wide as can be") {
  Maker maker(5);
  Recipe r{.rows = 3, .columns = 5000, .block_columns = 1, .words = DType::U8};
  r.zeros = r.scales = DType::F32;
  const Expression single = maker.make(r);
  r.block_columns = 32;
  r.has_groups = true;
  const Expression grouped = maker.make(r);
  for (const Expression* e : {&single, &grouped}) {
    const Raw want = Reference(maker.stored, maker.codes).of(*e);
    CHECK(maker.range(*e, 0, 15'000, kMinBlock) == want);
    // Less is an error, or enough.
    for (const uint64_t scratch : {0, 1, 7, 63, 64, 100, 500, 3000, 9000}) {
      Raw out(want.size());
      const auto done = maker.evaluate(*e, 0, out, scratch);
      if (done) CHECK(out == want);
      if (!done) CHECK(message(done) == "expected room to dequantise a tensor: raise --memory");
      if (scratch <= 64) CHECK_FALSE(done);
    }
  }
}

TEST_CASE("dequantise: groups that no scale is for") {
  for (const int32_t wrong : {-1, 3, INT32_MAX, INT32_MIN}) {
    Maker maker(8);
    Raw groups(16);
    std::memcpy(&groups[8], &wrong, 4);
    Expression::Operands operands{maker.stored_bytes(DType::U8, {2, 4}), {}, {}, {}};
    operands.scales = maker.stored_floats(DType::F32, {2, 3});
    operands.groups = maker.stored.add(DType::I32, {4}, groups);
    const auto e = maker.make({.rows = 2, .columns = 4, .block_columns = 2}, operands);
    CHECK(message(e) == "expected 4 scales or zeros for [1, 2, 4], found [2, 3]");
    operands.scales = maker.stored_floats(DType::F32, {2, 2});
    const Expression fits = *maker.make({.rows = 2, .columns = 4, .block_columns = 2}, operands);
    Raw out(32);
    CHECK(message(maker.evaluate(fits, 0, out, kMinBlock)) ==
          cat("expected groups below 2, found ", wrong));
    CHECK(maker.range(fits, 0, 2, kMinBlock).size() == 8);  // of other columns
  }
}

namespace {

constexpr uint64_t kHuge = uint64_t{1} << 62;

Expression imagined(DType dtype, Shape shape) {
  return Expression::stored(0, dtype, std::move(shape));
}

// The message for codes, scales and groups of such sizes.
std::string refusal(const Recipe& r, Expression codes, std::optional<Expression> scales = {},
                    std::optional<Expression> groups = {}) {
  Maker maker(9);
  Expression::Operands operands{std::move(codes), {}, std::move(scales), std::move(groups)};
  return message(maker.make(r, std::move(operands)));
}

}  // namespace

TEST_CASE("dequantise: sizes that do not fit") {
  const Expression bytes = imagined(DType::U8, {4, 4});
  const auto no_matrix = [&](const Recipe& r, const char* sizes) {
    CHECK(contains(refusal(r, bytes), cat("expected matrices of ", sizes)));
  };
  no_matrix({.rows = 0, .columns = 4, .shape = {4, 4}}, "0 x 4, found [4, 4]");
  no_matrix({.rows = 4, .columns = 0, .shape = {4, 4}}, "4 x 0, found [4, 4]");
  no_matrix({.rows = 4, .columns = 4, .shape = {5, 3}}, "4 x 4, found [5, 3]");
  no_matrix({.rows = kHuge, .columns = 4}, "4611686018427387904 x 4");
  no_matrix({.rows = 4, .columns = 4, .shape = {kHuge, 4}}, "4 x 4");
  const Recipe whole{.rows = 4, .columns = 4};
  for (const Shape& shape : {Shape{4, 3}, {4}, {17}, {}, {0}, {4, 0}, {kHuge, 8}})
    CHECK(contains(refusal(whole, imagined(DType::U8, shape)),
                   "expected codes of 8 bits for 4 x 4 values, found ["));
  // More bits than can be counted.
  CHECK(contains(refusal({.columns = kHuge, .bits = 8}, bytes), "expected codes of 8 bits"));
  CHECK(contains(refusal({.columns = kHuge, .bits = 4}, imagined(DType::U8, {0})),
                 "expected codes of 4 bits"));
  // Elements of no whole bytes.
  CHECK(contains(refusal({.rows = 4, .columns = 4, .bits = 4}, imagined(DType::F4, {4, 4})),
                 "expected codes of 4 bits for 4 x 4 values, found [4, 4] of F4"));
  CHECK(contains(refusal(whole, imagined(DType::F6_E2M3, {4, 8})), "of F6_E2M3"));
  CHECK(contains(refusal(whole, imagined(DType::UNSPECIFIED, {4, 8})), "of unspecified"));
  // Of interleaved codes the second may lie behind others that there are not.
  CHECK(contains(refusal({.columns = 3, .bits = 4, .order = CodeOrder::kInterleaved},
                         imagined(DType::U8, {2})),
                 "expected codes of 4 bits for 1 x 3 values, found [2] of U8"));
  // A tensor without elements.
  for (const Recipe& r : {Recipe{.rows = 0, .columns = 4},
                          {.rows = 4, .columns = 0},
                          {.matrices = 0, .rows = 4, .columns = 4}})
    CHECK(contains(refusal(r, imagined(DType::U8, {0, 4})), "] without elements"));
}

TEST_CASE("dequantise: scales and groups that do not fit") {
  const Expression bytes = imagined(DType::U8, {4, 4});
  Recipe r{.rows = 4, .columns = 4, .block_rows = 2, .block_columns = 3};
  for (const Shape& shape : {Shape{2, 3}, {4, 4}, {}, {0}, {kHuge, 4}, {kHuge, 8}})
    CHECK(contains(refusal(r, bytes, imagined(DType::F32, shape)),
                   "expected 4 scales or zeros for [1, 4, 4], found ["));
  for (const DType dtype : {DType::I64, DType::F64, DType::F8_E4M3, DType::F4, DType::U8})
    CHECK(contains(
        refusal(r, bytes, imagined(dtype, {2, 2})),
        cat("expected scales or zeros of F32, BF16 or F16, found ", manifest::name(dtype))));
  const Expression scales = imagined(DType::F32, {2, 2});
  for (const Shape& shape : {Shape{3}, {0}, {}, {kHuge, 8}})
    CHECK(contains(refusal(r, bytes, scales, imagined(DType::I32, shape)),
                   "expected a group of type I32 for each of 4 columns, found ["));
  CHECK(contains(refusal(r, bytes, scales, imagined(DType::I64, {4})),
                 "expected a group of type I32 for each of 4 columns, found [4] of I64"));
  CHECK(refusal({.rows = 4, .columns = 4, .block_rows = 0}, bytes, scales) ==
        "expected blocks of 1 x 1 or more, found 0 x 1");
  CHECK(refusal({.rows = 4, .columns = 4, .block_columns = 0}, bytes, scales) ==
        "expected blocks of 1 x 1 or more, found 1 x 0");
  for (Recipe wrong :
       {Recipe{.product = DType::U8}, {.scale = DType::F8_E4M3}, {.result = DType::F64}}) {
    wrong.rows = wrong.columns = 4;
    CHECK(contains(refusal(wrong, bytes), "expected to compute in F32, BF16 or F16, found "));
  }
}

TEST_CASE("dequantise: in a report it is a call of all that it is made of") {
  Maker maker(10);
  Recipe r{.rows = 2, .columns = 4, .block_columns = 2};
  r.zeros = r.scales = DType::F32;
  r.has_groups = true;
  std::vector<manifest::Tensor> source;
  for (const char* name : {"w", "z", "s", "g"}) source.push_back(tensor(name, DType::F32, {1}));
  const Expression e = maker.make(r);
  CHECK(e.text(source) == "dequantise(some, w, z, s, g)");
  CHECK(e.tensors() == Shape{0, 1, 2, 3});
  CHECK(e.scratch_blocks() == 1);
}
