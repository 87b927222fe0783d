// SPDX-License-Identifier: Apache-2.0
#include "core/transform/gather.h"

#include "core/transform/turn.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace crossdock::transform {

namespace {

// All that is read at once stays in the processor's nearest caches.
constexpr size_t kNearBytes = 64 << 10;

class Gather {
 public:
  Gather(std::span<const Factor> factors, uint64_t elem_bytes, uint64_t begin,
         std::span<std::byte> out, std::span<std::byte> scratch, const ReadBelow& read,
         uint64_t call_bytes)
      : factors_(factors),
        elem_(elem_bytes),
        begin_(begin),
        out_(out),
        scratch_(scratch),
        read_(read),
        call_bytes_(call_bytes),
        inner_(factors.size(), 1),
        extent_(factors.size(), 1),
        strides_(factors.size(), 1) {
    for (size_t d = inner_.size(); d-- > 1;) inner_[d - 1] = inner_[d] * factors[d].size;
  }

  // Elements [from, to) of what factors d, d + 1, ... enumerate; that enumeration begins at element
  // `base` of the whole one. Whole steps of factor d are one box; the pieces of steps at both ends
  // are looked at one factor further in.
  Result<void> range(size_t d, uint64_t from, uint64_t to, uint64_t below, uint64_t base) {
    if (from == to) return {};
    if (d == factors_.size()) {
      std::fill(extent_.begin(), extent_.end(), 1);
      return box(below, base + from - begin_);
    }
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
      for (size_t i = 0; i < extent_.size(); ++i) extent_[i] = i < d ? 1 : factors_[i].size;
      extent_[d] = last - whole;
      XD_TRY(box(below + whole * factors_[d].stride, base + whole * step - begin_));
    }
    return inside(last, 0, to % step);
  }

 private:
  // A box is `extent_` steps of each factor from the element `below` on; the first of its elements
  // is number `out` of those wanted. Reads it at once where that is cheaper than to read its
  // halves. The extents are as they were afterwards.
  Result<void> box(uint64_t below, uint64_t out) {
    uint64_t span = 1;              // elements below, from the box's first to its last
    uint64_t count = 1;             // elements of the box
    uint64_t different = 1;         // the same, but for those that a stride of 0 repeats
    uint64_t run = 1;               // neighbours below
    uint64_t runs = 1;              // all others
    uint64_t nearest = UINT64_MAX;  // the smallest stride of these
    uint64_t farthest = 0;
    size_t widest = 0;
    for (size_t d = 0; d < extent_.size(); ++d) {
      const auto [size, stride] = Factor{extent_[d], factors_[d].stride};
      const uint64_t reach = (size - 1) * stride;
      span += reach;
      count *= size;
      if (stride > 0) different *= size;
      if (stride == 1) run = std::max(run, size);
      if (stride != 1) runs *= size;
      if (stride != 1 && size > 1) nearest = std::min(nearest, stride);
      if (reach > farthest) {
        farthest = reach;
        widest = d;
      }
    }
    const bool ends_in_run = !factors_.empty() && factors_.back().stride == 1;
    if (count == (ends_in_run ? extent_.back() : 1))
      return read_({below}, out_.subspan(out * elem_, count * elem_));
    const uint64_t unwanted = span - std::min(span, different);
    const bool is_cheap = span * elem_ <= kNearBytes || unwanted <= different;
    if (span <= scratch_.size() / elem_ && is_cheap &&
        unwanted * elem_ / call_bytes_ < different / run) {
      XD_TRY(read_({below}, scratch_.first(span * elem_)));
      for (size_t d = 0; d < strides_.size(); ++d) strides_[d] = factors_[d].stride;
      return copy(out), Result<void>();
    }
    // Runs that lie so far apart that each is a call of its own.
    const bool is_apart =
        runs * run == count && run > 1 && nearest > run && (nearest - run) * elem_ >= call_bytes_;
    if (is_apart && !ends_in_run && count * elem_ <= std::min(scratch_.size(), kNearBytes)) {
      XD_TRY(read_runs(below, run, runs));
      return copy(out), Result<void>();
    }
    const uint64_t whole = extent_[widest], half = whole / 2;
    extent_[widest] = half;
    XD_TRY(box(below, out));
    extent_[widest] = whole - half;
    XD_TRY(box(below + half * factors_[widest].stride, out + half * inner_[widest]));
    extent_[widest] = whole;
    return {};
  }

  // Into the scratch, one after the other: what is written from there is more than an element at
  // each of many places. Those of the innermost factor that is not the run itself are one read.
  Result<void> read_runs(uint64_t below, uint64_t run, uint64_t runs) {
    size_t inner = extent_.size();
    uint64_t n = run;
    for (size_t d = extent_.size(); d-- > 0;) {
      const bool is_run = factors_[d].stride == 1;
      strides_[d] = is_run ? 1 : n;
      if (is_run) continue;
      n *= extent_[d];
      if (inner == extent_.size()) inner = d;
    }
    const uint64_t count = extent_[inner], n_bytes = count * run * elem_;
    for (uint64_t i = 0; i < runs / count; ++i) {
      uint64_t at = below, rest = i;
      for (size_t d = inner; d-- > 0;) {
        if (factors_[d].stride == 1) continue;
        at += rest % extent_[d] * factors_[d].stride;
        rest /= extent_[d];
      }
      XD_TRY(read_({at, count, factors_[inner].stride}, scratch_.subspan(i * n_bytes, n_bytes)));
    }
    return {};
  }

  // From the scratch, whose first element is the box's first.
  void copy(uint64_t out) {
    switch (elem_) {
      case 1:
        return copy_steps<1>(0, 0, out);
      case 2:
        return copy_steps<2>(0, 0, out);
      case 4:
        return copy_steps<4>(0, 0, out);
      case 8:
        return copy_steps<8>(0, 0, out);
      default:
        return copy_steps<16>(0, 0, out);
    }
  }

  template <size_t Size>
  void copy_steps(size_t d, uint64_t from, uint64_t to) {
    const std::byte* source = scratch_.data() + from * Size;
    std::byte* target = out_.data() + to * Size;
    if (d + 1 == extent_.size()) return copy_row<Size>(source, target);
    constexpr uint64_t kSide = 64 / Size;
    // The two innermost factors, the outer of which has neighbours.
    const bool is_matrix = d + 2 == extent_.size() && strides_[d] == 1;
    if (is_matrix && extent_[d] >= kSide && strides_[d + 1] >= kSide)
      return turn(source, strides_[d + 1], target, inner_[d], extent_[d], extent_[d + 1], Size);
    for (uint64_t i = 0; i < extent_[d]; ++i)
      copy_steps<Size>(d + 1, from + i * strides_[d], to + i * inner_[d]);
  }

  // The innermost factor.
  template <size_t Size>
  void copy_row(const std::byte* source, std::byte* target) {
    const uint64_t n = extent_.back(), stride = strides_.back();
    if (stride == 1) {
      std::memcpy(target, source, n * Size);
      return;
    }
    for (uint64_t i = 0; i < n; ++i)
      std::memcpy(target + i * Size, source + i * stride * Size, Size);
  }

  const std::span<const Factor> factors_;
  const uint64_t elem_, begin_;
  const std::span<std::byte> out_, scratch_;
  const ReadBelow& read_;
  const uint64_t call_bytes_;
  std::vector<uint64_t> inner_;    // elements of one step of each factor
  std::vector<uint64_t> extent_;   // of the box at hand
  std::vector<uint64_t> strides_;  // of what the scratch has of it
};

}  // namespace

Result<void> gather(std::span<const Factor> factors, uint64_t offset, uint64_t elem_bytes,
                    uint64_t begin, std::span<std::byte> out, std::span<std::byte> scratch,
                    const ReadBelow& read, uint64_t call_bytes) {
  const uint64_t count = out.size() / elem_bytes;
  return Gather(factors, elem_bytes, begin, out, scratch, read, call_bytes)
      .range(0, begin, begin + count, offset, 0);
}

}  // namespace crossdock::transform
