// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/content.h"

#include <algorithm>
#include <cstring>

namespace crossdock::reader_zero {

namespace {

constexpr uint64_t kAtOnce = 256 << 10;  // bytes of a scratch buffer

}  // namespace

Content::Content(common::Segments segments)
    : elem_bytes_(segments.elem_bytes()), n_elems_(segments.n_elems()) {
  parts_.push_back(std::move(segments));
}

Content::Content(std::vector<uint64_t> shape, uint64_t elem_bytes,
                 std::vector<common::Segments> parts, std::vector<std::string> names,
                 std::vector<common::Box> boxes, std::vector<common::Box> copies, bool is_average)
    : shape_(std::move(shape)),
      elem_bytes_(elem_bytes),
      n_elems_(*checked_product(shape_)),
      parts_(std::move(parts)),
      names_(std::move(names)),
      boxes_(std::move(boxes)),
      copies_(std::move(copies)),
      is_average_(is_average) {}

void Content::add_copy(const Content& other) {
  const auto shift = static_cast<uint32_t>(parts_.size());
  parts_.insert(parts_.end(), other.parts_.begin(), other.parts_.end());
  names_.insert(names_.end(), other.names_.begin(), other.names_.end());
  for (const auto* boxes : {&other.boxes_, &other.copies_}) {
    for (common::Box box : *boxes) {
      box.file += shift;
      copies_.push_back(std::move(box));
    }
  }
}

std::vector<manifest::Extent> Content::extents() const {
  std::vector<manifest::Extent> out;
  for (const common::Segments& part : parts_) {
    const auto extents = part.extents();
    out.insert(out.end(), extents.begin(), extents.end());
  }
  return out;
}

Result<void> Content::read(const Host& host, std::span<const Source> files, uint64_t begin,
                           std::span<std::byte> out) const {
  if (!is_merged()) return parts_[0].read(host, files, begin, out);
  const uint64_t count = out.size() / elem_bytes_;
  if (begin > n_elems_ || count > n_elems_ - begin)
    return Error{XD_OUT_OF_RANGE, cat("expected a range inside ", n_elems_, " elements, found ",
                                      count, " at ", begin)};
  if (is_average_) return read_average(host, files, begin, out);
  XD_TRY(read_boxes(host, files, boxes_, begin, out));
  for (const common::Box& copy : copies_) XD_TRY(compare(host, files, copy, begin, out));
  return {};
}

Result<void> Content::read_boxes(const Host& host, std::span<const Source> files,
                                 std::span<const common::Box> boxes, uint64_t begin,
                                 std::span<std::byte> out) const {
  const auto read = [&](uint32_t part, uint64_t offset, std::span<std::byte> to) {
    return parts_[part].read(host, files, offset / elem_bytes_, to);
  };
  return common::read_boxes(shape_, boxes, elem_bytes_, begin, out.size() / elem_bytes_, out, read);
}

// What the copy has replaces the same values in a piece of `out`, which then is as it was.
Result<void> Content::compare(const Host& host, std::span<const Source> files,
                              const common::Box& copy, uint64_t begin,
                              std::span<const std::byte> out) const {
  std::vector<std::byte> scratch;
  const uint64_t step = kAtOnce / elem_bytes_ * elem_bytes_;
  for (uint64_t at = 0; at < out.size(); at += step) {
    const auto piece = out.subspan(at, std::min<uint64_t>(step, out.size() - at));
    scratch.assign(piece.begin(), piece.end());
    XD_TRY(read_boxes(host, files, {&copy, 1}, begin + at / elem_bytes_, scratch));
    const auto differs = std::mismatch(scratch.begin(), scratch.end(), piece.begin()).first;
    if (differs == scratch.end()) continue;
    const auto byte = static_cast<uint64_t>(differs - scratch.begin());
    return corrupt(cat("expected the same values on all ranks that hold it, found others on ",
                       names_[copy.file], ", first at element ", begin + (at + byte) / elem_bytes_,
                       ": the ranks' copies have drifted apart, or are of different saves"));
  }
  return {};
}

// As torch's sum(shares) / len(shares).
Result<void> Content::read_average(const Host& host, std::span<const Source> files, uint64_t begin,
                                   std::span<std::byte> out) const {
  std::vector<float> sum, one;
  const uint64_t step = kAtOnce / sizeof(float);
  for (uint64_t at = 0, n = out.size() / sizeof(float); at < n; at += step) {
    const uint64_t count = std::min(step, n - at);
    sum.assign(count, 0.0f);
    one.resize(count);
    for (const common::Segments& part : parts_) {
      XD_TRY(part.read(host, files, begin + at, std::as_writable_bytes(std::span(one))));
      for (uint64_t i = 0; i < count; ++i) sum[i] += one[i];
    }
    for (float& value : sum) value /= static_cast<float>(parts_.size());
    std::memcpy(out.data() + at * sizeof(float), sum.data(), count * sizeof(float));
  }
  return {};
}

}  // namespace crossdock::reader_zero
