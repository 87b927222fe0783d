#include "core/transform/gather.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace crossdock::transform {

namespace {

// Reading so many bytes that nobody wants costs about as much as another call.
constexpr uint64_t kCallBytes = 4 << 10;

// Some steps of each factor: `extent` of them from the element `below` on. The first of its
// elements is number `out` of those wanted.
struct Box {
  std::vector<uint64_t> extent;
  uint64_t below = 0, out = 0;
};

class Gather {
 public:
  Gather(std::span<const Factor> factors, uint64_t elem_bytes, uint64_t begin,
         std::span<std::byte> out, std::span<std::byte> scratch, const ReadBelow& read)
      : factors_(factors),
        elem_(elem_bytes),
        begin_(begin),
        out_(out),
        scratch_(scratch),
        read_(read),
        inner_(factors.size(), 1) {
    for (size_t d = inner_.size(); d-- > 1;) inner_[d - 1] = inner_[d] * factors[d].size;
  }

  // Elements [from, to) of the enumeration of the factors from number d on, which is the part of
  // the whole from `base` on. Whole steps of factor d are one box; the pieces of steps at both ends
  // are looked at one factor further in.
  Result<void> range(size_t d, uint64_t from, uint64_t to, uint64_t below, uint64_t base) {
    if (from == to) return {};
    if (d == factors_.size())
      return box({std::vector<uint64_t>(d, 1), below, base + from - begin_});
    const uint64_t step = inner_[d];
    const uint64_t first = from / step, last = to / step;  // touched; the first that is not whole
    const auto inside = [&](uint64_t i, uint64_t a, uint64_t b) {
      return range(d + 1, a, b, below + i * factors_[d].stride, base + i * step);
    };
    if (first == last) return inside(first, from - first * step, to - first * step);
    uint64_t whole = first;
    if (from % step != 0) {
      XD_TRY(inside(first, from % step, step));
      ++whole;
    }
    if (whole < last) {
      Box b{{}, below + whole * factors_[d].stride, base + whole * step - begin_};
      for (const Factor& f : factors_) b.extent.push_back(f.size);
      std::fill_n(b.extent.begin(), d, 1);
      b.extent[d] = last - whole;
      XD_TRY(box(std::move(b)));
    }
    return inside(last, 0, to % step);
  }

 private:
  // Reads a box at once where that is cheaper than to read its halves.
  Result<void> box(Box b) {
    uint64_t span = 1;       // elements below, from the box's first to its last
    uint64_t count = 1;      // elements of the box
    uint64_t different = 1;  // the same, but for those that a stride of 0 repeats
    uint64_t run = 1;        // neighbours below
    size_t widest = 0;
    for (size_t d = 0; d < b.extent.size(); ++d) {
      const uint64_t reach = (b.extent[d] - 1) * factors_[d].stride;
      span += reach;
      count *= b.extent[d];
      if (factors_[d].stride > 0) different *= b.extent[d];
      if (factors_[d].stride == 1) run = std::max(run, b.extent[d]);
      if (reach > (b.extent[widest] - 1) * factors_[widest].stride) widest = d;
    }
    const bool is_run = !factors_.empty() && factors_.back().stride == 1;
    if (count == (is_run ? b.extent.back() : 1))
      return read_(b.below, out_.subspan(b.out * elem_, count * elem_));
    const uint64_t unwanted = span - std::min(span, different);
    if (span <= scratch_.size() / elem_ && unwanted * elem_ / kCallBytes < different / run) {
      XD_TRY(read_(b.below, scratch_.first(span * elem_)));
      return copy(b), Result<void>();
    }
    Box other = b;
    const uint64_t half = b.extent[widest] / 2;
    b.extent[widest] = half;
    other.extent[widest] -= half;
    other.below += half * factors_[widest].stride;
    other.out += half * inner_[widest];
    XD_TRY(box(std::move(b)));
    return box(std::move(other));
  }

  // From the scratch, whose first element is the box's first.
  void copy(const Box& b) {
    switch (elem_) {
      case 1:
        return copy_steps<1>(b, 0, 0, b.out);
      case 2:
        return copy_steps<2>(b, 0, 0, b.out);
      case 4:
        return copy_steps<4>(b, 0, 0, b.out);
      case 8:
        return copy_steps<8>(b, 0, 0, b.out);
      default:
        return copy_steps<16>(b, 0, 0, b.out);
    }
  }

  template <size_t Size>
  void copy_steps(const Box& b, size_t d, uint64_t from, uint64_t to) {
    if (d + 1 == b.extent.size()) return copy_row<Size>(b, from, to);
    if (d + 2 == b.extent.size() && factors_[d].stride == 1) return turn<Size>(b, from, to);
    for (uint64_t i = 0; i < b.extent[d]; ++i)
      copy_steps<Size>(b, d + 1, from + i * factors_[d].stride, to + i * inner_[d]);
  }

  // The innermost factor.
  template <size_t Size>
  void copy_row(const Box& b, uint64_t from, uint64_t to) {
    const std::byte* source = scratch_.data() + from * Size;
    std::byte* target = out_.data() + to * Size;
    const uint64_t n = b.extent.back(), stride = factors_.back().stride;
    if (stride == 1) {
      std::memcpy(target, source, n * Size);
      return;
    }
    for (uint64_t i = 0; i < n; ++i)
      std::memcpy(target + i * Size, source + i * stride * Size, Size);
  }

  // The two innermost factors, the outer of which has neighbours: a matrix turned over, in bands
  // whose rows fill a cache line, so that each line is fetched once.
  template <size_t Size>
  void turn(const Box& b, uint64_t from, uint64_t to) {
    constexpr uint64_t kBand = 64 / Size;
    const size_t d = b.extent.size() - 2;
    const uint64_t rows = b.extent[d], columns = b.extent[d + 1];
    const uint64_t stride = factors_[d + 1].stride, row_out = inner_[d];
    for (uint64_t band = 0; band < rows; band += kBand) {
      const uint64_t n = std::min(kBand, rows - band);
      for (uint64_t column = 0; column < columns; ++column) {
        const std::byte* source = scratch_.data() + (from + band + column * stride) * Size;
        std::byte* target = out_.data() + (to + band * row_out + column) * Size;
        for (uint64_t i = 0; i < n; ++i)
          std::memcpy(target + i * row_out * Size, source + i * Size, Size);
      }
    }
  }

  const std::span<const Factor> factors_;
  const uint64_t elem_, begin_;
  const std::span<std::byte> out_, scratch_;
  const ReadBelow& read_;
  std::vector<uint64_t> inner_;  // elements of one step of each factor
};

}  // namespace

Result<void> gather(std::span<const Factor> factors, uint64_t offset, uint64_t elem_bytes,
                    uint64_t begin, std::span<std::byte> out, std::span<std::byte> scratch,
                    const ReadBelow& read) {
  const uint64_t count = out.size() / elem_bytes;
  return Gather(factors, elem_bytes, begin, out, scratch, read)
      .range(0, begin, begin + count, offset, 0);
}

}  // namespace crossdock::transform
