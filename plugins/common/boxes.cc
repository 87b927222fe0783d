// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/boxes.h"

#include <algorithm>
#include <cstring>

namespace crossdock::common {
namespace {

// Shorter runs of elements are read together, up to this many bytes, and put in their places.
constexpr uint64_t kTogether = 256 << 10;

std::string text_of(std::span<const uint64_t> numbers) {
  std::string out = "[";
  for (const uint64_t n : numbers) out += cat(out.size() == 1 ? "" : ", ", n);
  return out + "]";
}

bool overlap(const Box& a, const Box& b) {
  for (size_t d = 0; d < a.offsets.size(); ++d) {
    if (a.offsets[d] >= b.offsets[d] + b.sizes[d] || b.offsets[d] >= a.offsets[d] + a.sizes[d])
      return false;
  }
  return true;
}

// The dimension in which most boxes begin at different places.
size_t most_cut(std::span<const Box> boxes, size_t n_dims) {
  size_t best = 0, most = 0;
  std::vector<uint64_t> begins(boxes.size());
  for (size_t d = 0; d < n_dims; ++d) {
    for (size_t i = 0; i < boxes.size(); ++i) begins[i] = boxes[i].offsets[d];
    std::ranges::sort(begins);
    const size_t n =
        static_cast<size_t>(std::unique(begins.begin(), begins.end()) - begins.begin());
    if (n > most) {
      most = n;
      best = d;
    }
  }
  return best;
}

// A sweep along one dimension: a box can only overlap those that have begun and not ended.
Result<void> check_apart(std::span<const Box> boxes, size_t n_dims, uint64_t& pairs) {
  if (boxes.size() < 2) return {};
  if (n_dims == 0) return corrupt("expected one chunk of a scalar, found more");
  const size_t d = most_cut(boxes, n_dims);
  std::vector<const Box*> sorted, open;
  for (const Box& box : boxes) sorted.push_back(&box);
  std::ranges::sort(sorted, {}, [d](const Box* b) { return b->offsets[d]; });
  for (const Box* box : sorted) {
    std::erase_if(open,
                  [&](const Box* b) { return b->offsets[d] + b->sizes[d] <= box->offsets[d]; });
    if (open.size() > pairs)
      return unsupported(cat("expected chunks in a grid, found ", boxes.size(), " in disorder"));
    pairs -= open.size();
    for (const Box* other : open) {
      if (overlap(*box, *other))
        return corrupt(cat("expected chunks side by side, found that of ", text_of(box->sizes),
                           " at ", text_of(box->offsets), " to overlap that at ",
                           text_of(other->offsets), ": save the checkpoint again"));
    }
    open.push_back(box);
  }
  return {};
}

// In elements.
std::vector<uint64_t> dense_strides(std::span<const uint64_t> sizes) {
  std::vector<uint64_t> out(sizes.size());
  uint64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    out[d] = stride;
    stride *= sizes[d];
  }
  return out;
}

// A box as runs of elements that follow one another both in the whole tensor and in the file.
class Runs {
 public:
  Runs(std::span<const uint64_t> shape, const Box& box)
      : box_(box),
        strides_(dense_strides(shape)),
        in_file_(box.strides.empty() ? dense_strides(box.sizes) : box.strides),
        outer_(shape.size()) {
    // The dimensions behind `outer_` are whole in the box, and without gaps in the file.
    const auto is_next = [&] {
      if (outer_ == shape.size()) return in_file_[outer_ - 1] == 1 || box.sizes[outer_ - 1] == 1;
      return box.sizes[outer_] == shape[outer_] && in_file_[outer_ - 1] == length_;
    };
    while (outer_ > 0 && is_next()) {
      --outer_;
      length_ *= box.sizes[outer_];
    }
    for (size_t d = 0; d < outer_; ++d) count_ *= box.sizes[d];
  }

  uint64_t count() const { return count_; }
  uint64_t length() const { return length_; }  // of each, in elements
  // The element of the tensor that run i begins at.
  uint64_t begin(uint64_t i) const {
    uint64_t out = 0;
    for (size_t d = 0; d < strides_.size(); ++d) out += box_.offsets[d] * strides_[d];
    return out + offset(i, strides_);
  }
  // Where it begins in the file, in elements behind the box's first.
  uint64_t begin_in_file(uint64_t i) const { return offset(i, in_file_); }
  // The first run that ends behind an element.
  uint64_t first_behind(uint64_t element) const {
    uint64_t low = 0, high = count_;
    while (low < high) {
      const uint64_t middle = low + (high - low) / 2;
      if (begin(middle) + length_ > element) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

 private:
  uint64_t offset(uint64_t i, std::span<const uint64_t> strides) const {
    uint64_t out = 0;
    for (size_t d = outer_; d-- > 0;) {
      out += i % box_.sizes[d] * strides[d];
      i /= box_.sizes[d];
    }
    return out;
  }

  const Box& box_;
  std::vector<uint64_t> strides_;  // of the tensor
  std::vector<uint64_t> in_file_;
  size_t outer_;
  uint64_t count_ = 1, length_ = 1;
};

struct Piece {
  uint64_t to = 0, n_bytes = 0;  // in the output
};

// Pieces of the output that lie one behind the other in a file.
class Together {
 public:
  Together(std::span<std::byte> out, uint32_t file, const ReadFile& read)
      : out_(out), file_(file), read_(read) {}

  Result<void> add(uint64_t from, Piece piece) {
    const bool fits = n_bytes_ + piece.n_bytes <= kTogether && from == from_ + n_bytes_;
    if (!pieces_.empty() && !fits) XD_TRY(flush());
    if (pieces_.empty()) from_ = from;
    pieces_.push_back(piece);
    n_bytes_ += piece.n_bytes;
    return {};
  }

  Result<void> flush() {
    if (pieces_.size() == 1) {
      XD_TRY(read_(file_, from_, out_.subspan(pieces_[0].to, pieces_[0].n_bytes)));
    } else if (!pieces_.empty()) {
      buffer_.resize(n_bytes_);
      XD_TRY(read_(file_, from_, buffer_));
      const std::byte* at = buffer_.data();
      for (const Piece& piece : pieces_) {
        std::memcpy(out_.data() + piece.to, at, piece.n_bytes);
        at += piece.n_bytes;
      }
    }
    pieces_.clear();
    n_bytes_ = 0;
    return {};
  }

 private:
  const std::span<std::byte> out_;
  const uint32_t file_;
  const ReadFile& read_;
  uint64_t from_ = 0, n_bytes_ = 0;
  std::vector<Piece> pieces_;
  std::vector<std::byte> buffer_;
};

}  // namespace

Result<void> check_tiling(std::span<const uint64_t> shape, std::span<const Box> boxes,
                          uint64_t& pairs) {
  const auto n_elems = checked_product(shape);
  if (!n_elems)
    return corrupt("expected a shape whose elements can be counted, found a larger one");
  uint64_t n_found = 0;
  for (const Box& box : boxes) {
    uint64_t n = 1;  // at most that of the shape
    for (size_t d = 0; d < shape.size(); ++d) {
      if (box.offsets[d] > shape[d] || box.sizes[d] > shape[d] - box.offsets[d])
        return corrupt(cat("expected chunks inside the tensor of ", text_of(shape),
                           ", found one of ", text_of(box.sizes), " at ", text_of(box.offsets)));
      n *= box.sizes[d];
    }
    n_found += std::min(n, UINT64_MAX - n_found);
  }
  XD_TRY(check_apart(boxes, shape.size(), pairs));
  if (n_found == *n_elems) return {};
  return corrupt(cat("expected chunks that hold all ", *n_elems, " elements, found ", n_found,
                     " in ", boxes.size(), ": the checkpoint lacks some"));
}

Result<void> read_boxes(std::span<const uint64_t> shape, std::span<const Box> boxes,
                        uint64_t elem_bytes, uint64_t begin, uint64_t count,
                        std::span<std::byte> out, const ReadFile& read) {
  const uint64_t end = begin + count;
  for (const Box& box : boxes) {
    const Runs runs(shape, box);
    Together together(out, box.file, read);
    for (uint64_t i = runs.first_behind(begin); i < runs.count(); ++i) {
      const uint64_t at = runs.begin(i);
      if (at >= end) break;
      const uint64_t from = std::max(at, begin), to = std::min(at + runs.length(), end);
      XD_TRY(together.add(box.data + (runs.begin_in_file(i) + (from - at)) * elem_bytes,
                          {(from - begin) * elem_bytes, (to - from) * elem_bytes}));
    }
    XD_TRY(together.flush());
  }
  return {};
}

}  // namespace crossdock::common
