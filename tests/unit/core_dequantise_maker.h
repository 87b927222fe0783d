// SPDX-License-Identifier: Apache-2.0

// Makes nodes of codes with random values, and holds what they evaluate to against the definition.
#pragma once

#include "tests/unit/core_dequantise_reference.h"

namespace crossdock::test {

using Shape = std::vector<uint64_t>;

// All sizes of a node, and what it has beside its codes.
struct Recipe {
  uint64_t matrices = 1, rows = 1, columns = 1;
  uint64_t block_rows = 1, block_columns = 1;
  uint32_t bits = 8;
  CodeOrder order = CodeOrder::kLowFirst;
  manifest::DType words = manifest::DType::U8, zeros = manifest::DType::UNSPECIFIED,
                  scales = manifest::DType::UNSPECIFIED;
  bool has_groups = false, divides = false;
  float factor = 1;
  manifest::DType scale = manifest::DType::F32, product = manifest::DType::F32,
                  result = manifest::DType::F32;
  Shape shape = {};  // empty: matrices, rows, columns
};

inline Raw part(const Raw& of, uint64_t begin, uint64_t count) {
  const auto at = of.begin() + static_cast<ptrdiff_t>(begin);
  return {at, at + static_cast<ptrdiff_t>(count)};
}

inline uint64_t ceil_div(uint64_t n, uint64_t by) { return (n + by - 1) / by; }

class Maker {
 public:
  explicit Maker(uint32_t seed) : random_(seed) {}

  uint64_t pick(uint64_t n) { return random_() % n; }
  bool flip() { return pick(2) == 0; }
  template <class T>
  T one_of(std::initializer_list<T> all) {
    return all.begin()[pick(all.size())];
  }
  manifest::DType float_type() {
    return one_of({manifest::DType::F32, manifest::DType::BF16, manifest::DType::F16});
  }

  Expression stored_bytes(manifest::DType dtype, Shape shape) {
    Raw bytes(*checked_product(shape) * bytes_of(dtype));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random_());
    return stored.add(dtype, std::move(shape), std::move(bytes));
  }
  Expression stored_floats(manifest::DType dtype, Shape shape) {
    Raw bytes(*checked_product(shape) * bytes_of(dtype));
    for (size_t at = 0; at < bytes.size(); at += bytes_of(dtype)) {
      const float magnitude =
          std::ldexp(1 + static_cast<float>(pick(1024)) / 1024, static_cast<int>(pick(9)) - 6);
      put_float(rounded(flip() ? magnitude : -magnitude, dtype), dtype, &bytes[at]);
    }
    return stored.add(dtype, std::move(shape), std::move(bytes));
  }
  Expression stored_groups(uint64_t columns, uint64_t n) {
    Raw bytes(columns * 4);
    for (size_t at = 0; at < bytes.size(); at += 4) {
      const auto group = static_cast<int32_t>(pick(n));
      std::memcpy(&bytes[at], &group, 4);
    }
    return stored.add(manifest::DType::I32, {columns}, std::move(bytes));
  }

  Result<Expression> make(const Recipe& r, Expression::Operands operands) {
    const Codes made = codes_of(r.bits, r.order);
    codes.emplace(made.decoder.get(), made);
    transform::Dequantisation how;
    how.decoder = made.decoder;
    how.rows = r.rows;
    how.columns = r.columns;
    how.block_rows = r.block_rows;
    how.block_columns = r.block_columns;
    how.divides = r.divides;
    how.factor = r.factor;
    how.scale = r.scale;
    how.product = r.product;
    return Expression::dequantise(std::move(operands), how, r.result,
                                  r.shape.empty() ? Shape{r.matrices, r.rows, r.columns} : r.shape);
  }

  static uint64_t row_words(const Recipe& r) {
    return ceil_div(r.columns * r.bits, manifest::info(r.words).bits);
  }
  static Shape grid(const Recipe& r) {
    return {r.matrices * ceil_div(r.rows, r.block_rows), ceil_div(r.columns, r.block_columns)};
  }
  // With stored tensors for all that it is made of.
  Expression make(const Recipe& r) {
    Expression::Operands operands{
        stored_bytes(r.words, {r.matrices * r.rows, row_words(r)}), {}, {}, {}};
    if (r.zeros != manifest::DType::UNSPECIFIED) operands.zeros = stored_floats(r.zeros, grid(r));
    if (r.scales != manifest::DType::UNSPECIFIED)
      operands.scales = stored_floats(r.scales, grid(r));
    if (r.has_groups) operands.groups = stored_groups(r.columns, grid(r)[1]);
    return *make(r, std::move(operands));
  }

  Result<void> evaluate(const Expression& e, uint64_t begin, Raw& out, uint64_t scratch_bytes) {
    std::vector<std::byte> scratch(scratch_bytes);
    return e.evaluate(begin, out, scratch, stored.reader());
  }
  Raw range(const Expression& e, uint64_t begin, uint64_t n, uint64_t scratch_bytes) {
    Raw out(n * bytes_of(e.root().dtype));
    const auto done = evaluate(e, begin, out, scratch_bytes);
    if (!done) FAIL(done.error().message);
    return out;
  }
  // From the least that is promised to work on, seldom in whole words.
  uint64_t some_scratch(const Expression& e) {
    const uint64_t least = e.scratch_blocks() * transform::kMinBlock;
    return least == 0 ? 0 : least + (pick(3) == 0 ? pick(90'000) : pick(100));
  }
  // The whole, and `n_ranges` of it, or all there are.
  void check(const Expression& e, uint64_t n_ranges = UINT64_MAX) {
    const uint64_t n = *checked_product(e.root().shape), size = bytes_of(e.root().dtype);
    const Raw want = Reference(stored, codes).of(e);
    REQUIRE(range(e, 0, n, some_scratch(e)) == want);
    const auto one = [&](uint64_t begin, uint64_t count) {
      if (range(e, begin, count, some_scratch(e)) != part(want, begin * size, count * size))
        FAIL(count << " elements from " << begin << " on of " << n);
    };
    if (n_ranges < n * n / 2) {
      for (uint64_t i = 0; i < n_ranges; ++i) {
        const uint64_t begin = pick(n);
        one(begin, 1 + (flip() ? pick(n - begin) : pick(std::min<uint64_t>(n - begin, 50))));
      }
      return;
    }
    for (uint64_t begin = 0; begin < n; ++begin) {
      for (uint64_t end = begin + 1; end <= n; ++end) one(begin, end - begin);
    }
  }

  StoredBytes stored;
  std::map<const transform::Decoder*, Codes> codes;

 private:
  std::mt19937 random_;
};

}  // namespace crossdock::test
