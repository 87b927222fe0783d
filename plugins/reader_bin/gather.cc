#include "plugins/reader_bin/gather.h"

#include <algorithm>

namespace crossdock::reader_bin {

namespace {

// Reading what is not wanted costs less than another call, up to here.
constexpr uint64_t kSmallSpan = 32 << 10;
constexpr uint64_t kLeastDensity = 8;  // beyond that, at least one element in so many is wanted

// A box of the view: `extent` elements along each dimension from `first` on in the storage. Its
// elements lie at `out_strides` in the output, from `out` on.
struct Box {
  std::vector<uint64_t> extent;
  uint64_t first = 0, out = 0;
};

class Gather {
 public:
  Gather(const View& view, uint64_t begin, std::span<std::byte> block, const ReadBytes& read,
         std::span<std::byte> out)
      : view_(view),
        begin_(begin),
        block_(block),
        read_(read),
        out_(out),
        dense_(view.shape.size(), 1) {
    for (size_t d = dense_.size(); d-- > 1;) dense_[d - 1] = dense_[d] * view.shape[d];
  }

  // Rows of dimension d inside the range [from, to) of row-major elements below one index prefix:
  // whole rows are one box, the pieces of rows at both ends are looked at one dimension further in.
  Result<void> range(size_t d, uint64_t from, uint64_t to, uint64_t storage, uint64_t base) {
    if (from == to) return {};
    if (d == dense_.size())
      return box({std::vector<uint64_t>(d, 1), storage, base + from - begin_});
    const uint64_t row = dense_[d];
    const uint64_t first = from / row, last = to / row;  // first row touched, first row not whole
    const auto inside = [&](uint64_t i, uint64_t a, uint64_t b) {
      return range(d + 1, a, b, storage + i * view_.strides[d], base + i * row);
    };
    if (first == last) return inside(first, from - first * row, to - first * row);
    uint64_t whole = first;
    if (from % row != 0) {
      XD_TRY(inside(first, from % row, row));
      ++whole;
    }
    if (whole < last) {
      Box b{std::vector<uint64_t>(view_.shape.begin(), view_.shape.end()),
            storage + whole * view_.strides[d], base + whole * row - begin_};
      std::fill_n(b.extent.begin(), d, 1);
      b.extent[d] = last - whole;
      XD_TRY(box(std::move(b)));
    }
    return inside(last, 0, to % row);
  }

 private:
  Result<void> box(Box b) {
    uint64_t span = 1, count = 1;
    size_t widest = 0;
    for (size_t d = 0; d < b.extent.size(); ++d) {
      const uint64_t reach = (b.extent[d] - 1) * view_.strides[d];
      span += reach;
      count *= b.extent[d];
      if (reach > (b.extent[widest] - 1) * view_.strides[widest]) widest = d;
    }
    const uint64_t bytes = span * view_.elem_bytes;
    const bool fits =
        bytes <= block_.size() && (bytes <= kSmallSpan || span / kLeastDensity <= count);
    if (fits) return copy(b, bytes);
    Box other = b;
    const uint64_t half = b.extent[widest] / 2;
    b.extent[widest] = half;
    other.extent[widest] -= half;
    other.first += half * view_.strides[widest];
    other.out += half * dense_[widest];
    XD_TRY(box(std::move(b)));
    return box(std::move(other));
  }

  Result<void> copy(const Box& b, uint64_t bytes) {
    XD_TRY(read_(b.first * view_.elem_bytes, block_.first(bytes)));
    switch (view_.elem_bytes) {
      case 1:
        return copy_elems<1>(b, 0, 0, b.out), Result<void>();
      case 2:
        return copy_elems<2>(b, 0, 0, b.out), Result<void>();
      case 4:
        return copy_elems<4>(b, 0, 0, b.out), Result<void>();
      case 8:
        return copy_elems<8>(b, 0, 0, b.out), Result<void>();
      default:
        return copy_elems<16>(b, 0, 0, b.out), Result<void>();
    }
  }

  template <size_t Size>
  void copy_elems(const Box& b, size_t d, uint64_t from, uint64_t to) {
    if (d == b.extent.size()) {
      std::memcpy(out_.data() + to * Size, block_.data() + from * Size, Size);
      return;
    }
    if (d + 1 < b.extent.size()) {
      for (uint64_t i = 0; i < b.extent[d]; ++i)
        copy_elems<Size>(b, d + 1, from + i * view_.strides[d], to + i * dense_[d]);
      return;
    }
    const std::byte* source = block_.data() + from * Size;
    std::byte* target = out_.data() + to * Size;
    const uint64_t n = b.extent[d], step = view_.strides[d] * Size;
    for (uint64_t i = 0; i < n; ++i) std::memcpy(target + i * Size, source + i * step, Size);
  }

  const View& view_;
  const uint64_t begin_;
  const std::span<std::byte> block_;
  const ReadBytes& read_;
  const std::span<std::byte> out_;
  std::vector<uint64_t> dense_;  // row-major strides
};

}  // namespace

bool is_dense(const View& view) {
  if (std::find(view.shape.begin(), view.shape.end(), 0) != view.shape.end()) return true;
  uint64_t stride = 1;
  for (size_t d = view.shape.size(); d-- > 0;) {
    if (view.shape[d] == 1) continue;
    if (view.strides[d] != stride) return false;
    stride *= view.shape[d];
  }
  return true;
}

Result<void> gather(const View& view, uint64_t begin, uint64_t count, std::span<std::byte> block,
                    const ReadBytes& read, std::span<std::byte> out) {
  if (count == 0) return {};
  return Gather(view, begin, block, read, out).range(0, begin, begin + count, view.offset, 0);
}

}  // namespace crossdock::reader_bin
