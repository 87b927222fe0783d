// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/segments.h"

#include <algorithm>

namespace crossdock::common {

void Segments::add(uint32_t file, uint64_t offset, uint64_t n_elems) {
  if (n_elems == 0) return;
  const Segment* last = segments_.empty() ? nullptr : &segments_.back();
  const bool continues =
      last && last->file == file && last->offset + (n_elems_ - last->begin) * elem_bytes_ == offset;
  if (!continues) segments_.push_back({n_elems_, offset, file});
  n_elems_ += n_elems;
}

std::vector<manifest::Extent> Segments::extents() const {
  std::vector<manifest::Extent> out;
  out.reserve(segments_.size());
  for (size_t i = 0; i < segments_.size(); ++i) {
    const Segment& s = segments_[i];
    out.push_back({s.file, s.offset, (end_of(i) - s.begin) * elem_bytes_});
  }
  return out;
}

Result<void> Segments::read(const Host& host, std::span<const Source> files, uint64_t begin,
                            std::span<std::byte> out) const {
  const uint64_t count = out.size() / elem_bytes_;
  if (begin > n_elems_ || count > n_elems_ - begin) {
    return Error{XD_OUT_OF_RANGE, cat("expected a range inside ", n_elems_, " elements, found ",
                                      count, " at ", begin)};
  }
  if (count == 0) return {};
  const auto after = std::upper_bound(segments_.begin(), segments_.end(), begin,
                                      [](uint64_t at, const Segment& s) { return at < s.begin; });
  for (auto i = static_cast<size_t>(after - segments_.begin()) - 1; !out.empty(); ++i) {
    if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    const Segment& s = segments_[i];
    const uint64_t n_bytes = std::min<uint64_t>((end_of(i) - begin) * elem_bytes_, out.size());
    XD_TRY(
        files[s.file].read(host, s.offset + (begin - s.begin) * elem_bytes_, out.first(n_bytes)));
    begin += n_bytes / elem_bytes_;
    out = out.subspan(n_bytes);
  }
  return {};
}

}  // namespace crossdock::common
