// SPDX-License-Identifier: Apache-2.0

// Where a tensor's elements lie: in the segments of one model-parallel rank's files, or in boxes of
// what several ranks hold. Nothing is gathered: a read goes to the files.
//
// Ranks may hold the same elements. Then those of the first are the tensor's, and a read compares
// the others with them. Immutable, so reads may run concurrently.
#pragma once

#include "plugins/common/boxes.h"
#include "plugins/common/segments.h"

#include <string>

namespace crossdock::reader_zero {

class Content {
 public:
  // As one rank's files have it.
  explicit Content(common::Segments segments);
  // `parts`: what each rank holds; `names`: of the ranks, for errors. Boxes are of the tensor:
  // `file` is a part, `data` and `strides` count in it, in bytes and in elements. `boxes` tile the
  // tensor, `copies` must have the same values. `is_average`: of all parts, which are whole and of
  // F32.
  Content(std::vector<uint64_t> shape, uint64_t elem_bytes, std::vector<common::Segments> parts,
          std::vector<std::string> names, std::vector<common::Box> boxes,
          std::vector<common::Box> copies, bool is_average);

  // The same tensor, of which `other` must have the same values.
  void add_copy(const Content& other);

  uint64_t n_elems() const { return n_elems_; }
  uint64_t elem_bytes() const { return elem_bytes_; }
  std::vector<manifest::Extent> extents() const;
  // Of the only part: a tensor with strides reads its storage.
  const common::Segments& segments() const { return parts_[0]; }
  bool is_merged() const { return !boxes_.empty() || parts_.size() != 1; }

  Result<void> read(const Host& host, std::span<const Source> files, uint64_t begin,
                    std::span<std::byte> out) const;

 private:
  Result<void> read_boxes(const Host& host, std::span<const Source> files,
                          std::span<const common::Box> boxes, uint64_t begin,
                          std::span<std::byte> out) const;
  Result<void> read_average(const Host& host, std::span<const Source> files, uint64_t begin,
                            std::span<std::byte> out) const;
  Result<void> compare(const Host& host, std::span<const Source> files, const common::Box& copy,
                       uint64_t begin, std::span<const std::byte> out) const;

  std::vector<uint64_t> shape_;
  uint64_t elem_bytes_ = 0, n_elems_ = 0;
  std::vector<common::Segments> parts_;
  std::vector<std::string> names_;
  std::vector<common::Box> boxes_, copies_;
  bool is_average_ = false;
};

}  // namespace crossdock::reader_zero
