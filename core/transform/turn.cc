// SPDX-License-Identifier: Apache-2.0
#include "core/transform/turn.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace crossdock::transform {

namespace {

// What is turned, and where to. Strides are in bytes.
struct Matrix {
  const std::byte* from;
  uint64_t from_stride;
  std::byte* to;
  uint64_t to_stride;
  uint64_t rows, columns;

  template <size_t Size>
  Matrix part(uint64_t row, uint64_t column, uint64_t n_rows, uint64_t n_columns) const {
    return {from + column * from_stride + row * Size,
            from_stride,
            to + row * to_stride + column * Size,
            to_stride,
            n_rows,
            n_columns};
  }
};

template <size_t Size>
void by_elements(const Matrix& m) {
  for (uint64_t r = 0; r < m.rows; ++r) {
    for (uint64_t c = 0; c < m.columns; ++c)
      std::memcpy(m.to + r * m.to_stride + c * Size, m.from + c * m.from_stride + r * Size, Size);
  }
}

// By way of square tiles that are read and written a cache line at a time.
template <size_t Size>
void by_tiles(const Matrix& m) {
  constexpr uint64_t kSide = 64 / Size;
  std::byte tile[kSide * 64];
  for (uint64_t row = 0; row < m.rows; row += kSide) {
    const uint64_t n_rows = std::min(kSide, m.rows - row);
    for (uint64_t column = 0; column < m.columns; column += kSide) {
      const uint64_t n_columns = std::min(kSide, m.columns - column);
      const Matrix part = m.part<Size>(row, column, n_rows, n_columns);
      for (uint64_t c = 0; c < n_columns; ++c) {
        const std::byte* line = part.from + c * part.from_stride;
        n_rows == kSide ? std::memcpy(tile + 64 * c, line, 64)
                        : std::memcpy(tile + 64 * c, line, n_rows * Size);
      }
      by_elements<Size>({tile, 64, part.to, part.to_stride, n_rows, n_columns});
    }
  }
}

#if defined(__x86_64__)
__m128i load(const std::byte* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
void store(std::byte* to, __m128i value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), value);
}

// A square whose rows are a register each.
template <size_t Size>
void square(const Matrix& m);
template <>
void square<4>(const Matrix& m) {
  __m128i pairs[4];  // of elements 0 and 1 of two rows, and of 2 and 3
  for (size_t i = 0; i < 4; i += 2) {
    const __m128i a = load(m.from + i * m.from_stride), b = load(m.from + (i + 1) * m.from_stride);
    pairs[i] = _mm_unpacklo_epi32(a, b);
    pairs[i + 1] = _mm_unpackhi_epi32(a, b);
  }
  for (size_t i = 0; i < 2; ++i) {
    store(m.to + 2 * i * m.to_stride, _mm_unpacklo_epi64(pairs[i], pairs[i + 2]));
    store(m.to + (2 * i + 1) * m.to_stride, _mm_unpackhi_epi64(pairs[i], pairs[i + 2]));
  }
}
template <>
void square<2>(const Matrix& m) {
  __m128i pairs[8], fours[8];  // of elements 0 to 3 of the rows, and of 4 to 7
  for (size_t i = 0; i < 4; ++i) {
    const __m128i a = load(m.from + 2 * i * m.from_stride);
    const __m128i b = load(m.from + (2 * i + 1) * m.from_stride);
    pairs[i] = _mm_unpacklo_epi16(a, b);
    pairs[i + 4] = _mm_unpackhi_epi16(a, b);
  }
  for (size_t i = 0; i < 8; i += 2) {
    fours[i] = _mm_unpacklo_epi32(pairs[i], pairs[i + 1]);
    fours[i + 1] = _mm_unpackhi_epi32(pairs[i], pairs[i + 1]);
  }
  for (size_t i = 0; i < 4; ++i) {
    const size_t at = i / 2 * 4 + i % 2;
    store(m.to + 2 * i * m.to_stride, _mm_unpacklo_epi64(fours[at], fours[at + 2]));
    store(m.to + (2 * i + 1) * m.to_stride, _mm_unpackhi_epi64(fours[at], fours[at + 2]));
  }
}

template <size_t Size>
void by_squares(const Matrix& m) {
  constexpr uint64_t kSide = 16 / Size;
  const uint64_t rows = m.rows / kSide * kSide, columns = m.columns / kSide * kSide;
  for (uint64_t row = 0; row < rows; row += kSide) {
    for (uint64_t column = 0; column < columns; column += kSide)
      square<Size>(m.part<Size>(row, column, kSide, kSide));
    by_elements<Size>(m.part<Size>(row, columns, kSide, m.columns - columns));
  }
  by_elements<Size>(m.part<Size>(rows, 0, m.rows - rows, m.columns));
}
#endif

// Squares are faster, but write several rows at once: short ones, if they lie a power of two apart,
// push each other out of the cache before their lines are whole.
template <size_t Size>
void turn(const Matrix& m) {
#if defined(__x86_64__)
  constexpr uint64_t kLong = 128;
  if constexpr (Size == 2 || Size == 4) {
    if (m.columns * Size >= kLong) return by_squares<Size>(m);
  }
#endif
  by_tiles<Size>(m);
}

}  // namespace

void turn(const std::byte* from, uint64_t from_stride, std::byte* to, uint64_t to_stride,
          uint64_t rows, uint64_t columns, uint64_t elem_bytes) {
  const Matrix m{from, from_stride * elem_bytes, to, to_stride * elem_bytes, rows, columns};
  switch (elem_bytes) {
    case 1:
      return turn<1>(m);
    case 2:
      return turn<2>(m);
    case 4:
      return turn<4>(m);
    case 8:
      return turn<8>(m);
    default:
      return turn<16>(m);
  }
}

}  // namespace crossdock::transform
