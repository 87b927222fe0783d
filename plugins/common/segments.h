// SPDX-License-Identifier: Apache-2.0

// A tensor's elements as they lie in files, piece by piece: what a reader makes of parts that many
// ranks wrote, without gathering them.
//
//   Segments s(4);                       // of four bytes each
//   s.add(file, offset, n_elems);        // the next elements, in the tensor's order
//   s.read(host, sources, begin, out);   // elements [begin, begin + out.size() / 4)
//
// Whoever adds a segment has checked that it lies inside its file. Immutable afterwards, so reads
// may run concurrently.
#pragma once

#include <crossdock/plugin.hpp>

#include <span>
#include <vector>

namespace crossdock::common {

class Segments {
 public:
  explicit Segments(uint64_t elem_bytes) : elem_bytes_(elem_bytes) {}

  // The next `n_elems` elements begin at byte `offset` of file number `file`. Those that continue
  // the segment before become part of it.
  void add(uint32_t file, uint64_t offset, uint64_t n_elems);

  uint64_t n_elems() const { return n_elems_; }
  uint64_t elem_bytes() const { return elem_bytes_; }
  size_t n_segments() const { return segments_.size(); }
  std::vector<manifest::Extent> extents() const;

  // One read of a file for each segment that the range touches. `files`: by number.
  Result<void> read(const Host& host, std::span<const Source> files, uint64_t begin,
                    std::span<std::byte> out) const;

 private:
  struct Segment {
    uint64_t begin;   // its first element
    uint64_t offset;  // of that one in its file, in bytes
    uint32_t file;
  };
  uint64_t end_of(size_t i) const {
    return i + 1 < segments_.size() ? segments_[i + 1].begin : n_elems_;
  }

  uint64_t elem_bytes_, n_elems_ = 0;
  std::vector<Segment> segments_;
};

}  // namespace crossdock::common
