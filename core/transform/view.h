// SPDX-License-Identifier: Apache-2.0

// A tensor seen through operations on its shape: which element below each element of the view is.
//
// A dimension is a list of factors, outermost first, each with a size and a stride in elements
// below. A stride of 0 repeats one element, as torch's expand does. So to split, permute and merge
// dimensions (as un-permuting the rows of q and k does) never moves a byte: only reading the view's
// elements in order does. The same idea as numpy's strides, but that merged dimensions need not be
// even ones.
#pragma once

#include <crossdock/result.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace crossdock::transform {

struct Factor {
  uint64_t size = 1;
  uint64_t stride = 1;
  bool operator==(const Factor&) const = default;
};

class View {
 public:
  // A whole dense tensor.
  static View of(std::span<const uint64_t> shape);
  // A tensor whose elements lie apart: `strides` has one for each dimension, in elements, and
  // `offset` is the place of the first.
  static View strided(std::span<const uint64_t> shape, std::span<const int64_t> strides,
                      uint64_t offset);

  uint64_t rank() const { return dims_.size(); }
  uint64_t size(uint64_t dim) const;
  std::vector<uint64_t> shape() const;
  // All factors in order, those of size 1 left out and even neighbours as one; the first element's
  // place.
  std::vector<Factor> factors() const;
  uint64_t offset() const { return offset_; }
  // Whether it is nothing but a tensor of this shape, dense and whole.
  bool is_all_of(std::span<const uint64_t> shape) const;

  // Errors name the dimension and the sizes: a rule that does not fit its tensor.
  Result<void> split(uint64_t dim, std::span<const uint64_t> sizes);
  Result<void> merge(uint64_t first, uint64_t count);
  Result<void> permute(std::span<const uint64_t> order);
  Result<void> slice(uint64_t dim, uint64_t begin, uint64_t count);
  Result<void> unsqueeze(uint64_t dim);
  Result<void> squeeze(uint64_t dim);

 private:
  using Dim = std::vector<Factor>;
  Result<void> check_dim(uint64_t dim, uint64_t limit) const;
  std::vector<Dim> dims_;
  uint64_t offset_ = 0;
};

}  // namespace crossdock::transform
