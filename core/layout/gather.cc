#include "core/layout/gather.h"

#include <algorithm>
#include <cstring>

namespace crossdock::layout {

namespace {

class Gather {
 public:
  Gather(std::span<const Factor> factors, uint64_t elem_bytes, std::span<std::byte> scratch,
         const ReadStored& read)
      : factors_(factors), elem_(elem_bytes), scratch_(scratch), read_(read) {}

  // Elements [begin, begin + count) of the factors from number `level` on, the first of which lies
  // at `offset`.
  Result<void> run(size_t level, uint64_t offset, uint64_t begin, uint64_t count, std::byte* out) {
    if (count == 0) return {};
    if (level == factors_.size()) return read_(offset, {out, elem_});
    const auto [size, stride] = factors_[level];
    const uint64_t inner = inner_size(level + 1);
    if (inner == 1 && stride == 1) return read_(offset + begin, {out, count * elem_});
    if (const Span span = span_of(level, offset, begin, count); is_dense(span, count))
      return pick(level, span, offset, begin, count, out);
    if (stride == 1) return turn(level, offset, begin, count, out);
    while (count > 0) {
      const uint64_t step = begin / inner, skip = begin % inner;
      // As many whole steps as can be read together, else one.
      const uint64_t steps = skip == 0 ? steps_at_once(level, offset, begin, count / inner) : 0;
      const uint64_t n = steps > 1 ? steps * inner : std::min(count, inner - skip);
      if (steps > 1) {
        XD_TRY(pick(level, span_of(level, offset, begin, n), offset, begin, n, out));
      } else {
        XD_TRY(run(level + 1, offset + step * stride, skip, n, out));
      }
      begin += n;
      count -= n;
      out += n * elem_;
    }
    return {};
  }

 private:
  static constexpr uint64_t kSmall = 4096;  // in bytes: not worth a second read
  struct Span {
    uint64_t begin, count;  // of stored elements
  };

  // Whether it is better to read the whole span at once.
  bool is_dense(Span span, uint64_t count) const {
    return span.count <= scratch_.size() / elem_ &&
           (span.count <= 2 * count || span.count * elem_ <= kSmall);
  }

  uint64_t steps_at_once(size_t level, uint64_t offset, uint64_t begin, uint64_t most) const {
    if (most < 2) return 0;
    const uint64_t inner = inner_size(level + 1),
                   extent = span_of(level, offset, begin, inner).count;
    const uint64_t room = scratch_.size() / elem_;
    if (extent > room) return 0;
    const uint64_t n = std::min(most, (room - extent) / factors_[level].stride + 1);
    return is_dense({0, (n - 1) * factors_[level].stride + extent}, n * inner) ? n : 0;
  }

  uint64_t inner_size(size_t level) const {
    uint64_t n = 1;
    for (; level < factors_.size(); ++level) n *= factors_[level].size;
    return n;
  }

  // The stored elements that a range of the enumeration lies between.
  Span span_of(size_t level, uint64_t offset, uint64_t begin, uint64_t count) const {
    uint64_t first = offset, last = offset;
    uint64_t from = begin, to = begin + count - 1;
    bool whole = false;  // an outer factor already takes more than one step
    for (; level < factors_.size(); ++level) {
      const auto [size, stride] = factors_[level];
      const uint64_t inner = inner_size(level + 1);
      const uint64_t a = whole ? 0 : from / inner, b = whole ? size - 1 : to / inner;
      first += a * stride;
      last += b * stride;
      if (a != b) whole = true;
      from %= inner;
      to %= inner;
    }
    return {first, last - first + 1};
  }

  Result<void> pick(size_t level, Span span, uint64_t offset, uint64_t begin, uint64_t count,
                    std::byte* out) {
    XD_TRY(read_(span.begin, scratch_.first(span.count * elem_)));
    copy(level, scratch_.data(), offset - span.begin, begin, count, out);
    return {};
  }

  // As run, from memory; `offset` may wrap, for it only ever grows back to a place inside the span.
  void copy(size_t level, const std::byte* from, uint64_t offset, uint64_t begin, uint64_t count,
            std::byte*& out) const {
    if (level == factors_.size()) {
      std::memcpy(out, from + offset * elem_, elem_);
      out += elem_;
      return;
    }
    const auto [size, stride] = factors_[level];
    if (level + 1 == factors_.size() && stride == 1) {
      std::memcpy(out, from + (offset + begin) * elem_, count * elem_);
      out += count * elem_;
      return;
    }
    const uint64_t inner = inner_size(level + 1);
    while (count > 0) {
      const uint64_t step = begin / inner, skip = begin % inner, n = std::min(count, inner - skip);
      copy(level + 1, from, offset + step * stride, skip, n, out);
      begin += n;
      count -= n;
    }
  }

  // Steps [first, first + n) of a factor of stride 1 that has others inside it: a tile of some
  // steps is read as runs, one for each inner element, and turned.
  Result<void> transpose(size_t level, uint64_t offset, uint64_t first, uint64_t n,
                         std::byte* out) {
    const uint64_t inner = inner_size(level + 1);
    const uint64_t width = std::min(n, std::max<uint64_t>(scratch_.size() / elem_ / kTileRows, 1));
    for (uint64_t at = 0; at < n; at += width) {
      const uint64_t steps = std::min(width, n - at);
      const uint64_t rows = std::max<uint64_t>(scratch_.size() / elem_ / steps, 1);
      for (uint64_t j = 0; j < inner; j += rows) {
        const uint64_t n_rows = std::min(rows, inner - j);
        for (uint64_t r = 0; r < n_rows; ++r) {
          const uint64_t place = offset + first + at + inner_offset(level + 1, j + r);
          XD_TRY(read_(place, scratch_.subspan(r * steps * elem_, steps * elem_)));
        }
        for (uint64_t s = 0; s < steps; ++s) {
          std::byte* to = out + ((at + s) * inner + j) * elem_;
          for (uint64_t r = 0; r < n_rows; ++r)
            std::memcpy(to + r * elem_, scratch_.data() + (r * steps + s) * elem_, elem_);
        }
      }
    }
    return {};
  }

  // A factor of stride 1 that has others inside it; the steps at both ends may be wanted in part.
  Result<void> turn(size_t level, uint64_t offset, uint64_t begin, uint64_t count, std::byte* out) {
    const uint64_t inner = inner_size(level + 1);
    const auto part = [&](uint64_t n) -> Result<void> {
      XD_TRY(run(level + 1, offset + begin / inner, begin % inner, n, out));
      begin += n;
      count -= n;
      out += n * elem_;
      return {};
    };
    if (begin % inner != 0) XD_TRY(part(std::min(count, inner - begin % inner)));
    const uint64_t steps = count / inner;
    XD_TRY(transpose(level, offset, begin / inner, steps, out));
    begin += steps * inner;
    count -= steps * inner;
    out += steps * inner * elem_;
    return count > 0 ? part(count) : Result<void>();
  }

  uint64_t inner_offset(size_t level, uint64_t index) const {
    uint64_t out = 0;
    for (size_t i = factors_.size(); i-- > level;) {
      out += index % factors_[i].size * factors_[i].stride;
      index /= factors_[i].size;
    }
    return out;
  }

  static constexpr uint64_t kTileRows = 1024;
  const std::span<const Factor> factors_;
  const uint64_t elem_;
  const std::span<std::byte> scratch_;
  const ReadStored& read_;
};

}  // namespace

Result<void> gather(std::span<const Factor> factors, uint64_t offset, uint64_t elem_bytes,
                    uint64_t begin, std::span<std::byte> out, std::span<std::byte> scratch,
                    const ReadStored& read) {
  return Gather(factors, elem_bytes, scratch, read)
      .run(0, offset, begin, out.size() / elem_bytes, out.data());
}

}  // namespace crossdock::layout
