// SPDX-License-Identifier: Apache-2.0
#include "core/transform/view.h"

#include <crossdock/bytes.hpp>

#include <algorithm>

namespace crossdock::transform {

namespace {

std::string text_of(std::span<const uint64_t> sizes) {
  std::string out = "[";
  for (size_t i = 0; i < sizes.size(); ++i) out += cat(i ? ", " : "", sizes[i]);
  return out + "]";
}

// Adds factors inside those of `out`: sizes of 1 are left out, and even neighbours become one.
void append(std::vector<Factor>& out, std::span<const Factor> inner) {
  for (const Factor& f : inner) {
    if (f.size == 1) continue;
    if (!out.empty() && out.back().stride == f.size * f.stride) {
      out.back() = {out.back().size * f.size, f.stride};
    } else {
      out.push_back(f);
    }
  }
}

// Takes the inner `size` elements off the end of the list.
Result<std::vector<Factor>> take_inner(std::vector<Factor>& list, uint64_t size) {
  std::vector<Factor> out;
  while (size > 1) {
    while (!list.empty() && list.back().size == 1) list.pop_back();
    if (list.empty()) return Error{XD_INTERNAL, "sizes were checked"};
    Factor& last = list.back();
    if (size % last.size == 0) {
      size /= last.size;
      out.insert(out.begin(), last);
      list.pop_back();
    } else if (last.size % size == 0) {
      out.insert(out.begin(), {size, last.stride});
      last = {last.size / size, last.stride * size};
      size = 1;
    } else {
      return invalid(
          cat("expected to split whole parts of ", last.size, " elements, found a size of ", size));
    }
  }
  return out;
}

}  // namespace

View View::of(std::span<const uint64_t> shape) {
  View out;
  uint64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0; stride *= shape[i])
    out.dims_.insert(out.dims_.begin(), {{shape[i], stride}});
  return out;
}

View View::strided(std::span<const uint64_t> shape, std::span<const int64_t> strides,
                   uint64_t offset) {
  View out;
  for (size_t i = 0; i < shape.size(); ++i)
    out.dims_.push_back({{shape[i], static_cast<uint64_t>(strides[i])}});
  out.offset_ = offset;
  return out;
}

bool View::is_all_of(std::span<const uint64_t> whole) const {
  const auto all = factors();
  const bool in_order = all.empty() || (all.size() == 1 && all[0].stride == 1);
  const auto mine = shape();
  return offset_ == 0 && in_order &&
         std::equal(mine.begin(), mine.end(), whole.begin(), whole.end());
}

uint64_t View::size(uint64_t dim) const {
  uint64_t n = 1;
  for (const Factor& f : dims_[dim]) n *= f.size;
  return n;
}

std::vector<uint64_t> View::shape() const {
  std::vector<uint64_t> out;
  for (uint64_t i = 0; i < dims_.size(); ++i) out.push_back(size(i));
  return out;
}

std::vector<Factor> View::factors() const {
  std::vector<Factor> out;
  for (const Dim& dim : dims_) append(out, dim);
  return out;
}

Result<void> View::check_dim(uint64_t dim, uint64_t limit) const {
  if (dim < limit) return {};
  return invalid(cat("expected a dimension below ", limit, " of the shape ", text_of(shape()),
                     ", found ", dim));
}

// The factors of the dimension are dealt out to the new ones, the innermost first.
Result<void> View::split(uint64_t dim, std::span<const uint64_t> sizes) {
  XD_TRY(check_dim(dim, rank()));
  if (checked_product(sizes) != size(dim))
    return invalid(cat("expected sizes whose product is ", size(dim), ", found ", text_of(sizes)));
  if (size(dim) == 0) return invalid("expected to split a dimension with elements, found none");
  Dim rest = dims_[dim];
  std::vector<Dim> parts;
  for (size_t i = sizes.size(); i-- > 0;) {
    XD_TRY_SET(auto part, take_inner(rest, sizes[i]));
    parts.insert(parts.begin(), std::move(part));
  }
  const auto at = dims_.erase(dims_.begin() + static_cast<ptrdiff_t>(dim));
  dims_.insert(at, parts.begin(), parts.end());
  return {};
}

// Nothing is computed: the merged dimension is the list of both's factors.
Result<void> View::merge(uint64_t first, uint64_t count) {
  XD_TRY(check_dim(first, rank()));
  if (count < 1 || count > rank() - first)
    return invalid(cat("expected to merge 1 to ", rank() - first, " dimensions of ",
                       text_of(shape()), ", found ", count));
  for (uint64_t i = 1; i < count; ++i) {
    append(dims_[first], dims_[first + 1]);
    dims_.erase(dims_.begin() + static_cast<ptrdiff_t>(first) + 1);
  }
  return {};
}

Result<void> View::permute(std::span<const uint64_t> order) {
  std::vector<Dim> out;
  std::vector<bool> used(rank());
  for (const uint64_t dim : order) {
    XD_TRY(check_dim(dim, rank()));
    if (!used[dim]) out.push_back(dims_[dim]);
    used[dim] = true;
  }
  if (order.size() != rank() || out.size() != rank())
    return invalid(cat("expected each of ", rank(), " dimensions once, found ", text_of(order)));
  dims_ = std::move(out);
  return {};
}

// Only of a dimension that is one factor: a range of a merged one is no rectangle of factors.
Result<void> View::slice(uint64_t dim, uint64_t begin, uint64_t count) {
  XD_TRY(check_dim(dim, rank()));
  const uint64_t n = size(dim);
  if (begin > n || count > n - begin || count == 0)
    return invalid(cat("expected a part of ", n, " elements, found ", count, " at ", begin));
  Dim& factors = dims_[dim];
  if (n == 1) return {};
  std::erase_if(factors, [](const Factor& f) { return f.size == 1; });
  if (factors.size() != 1)
    return invalid("expected to slice a dimension before it is merged of others");
  offset_ += begin * factors[0].stride;
  factors[0].size = count;
  return {};
}

Result<void> View::unsqueeze(uint64_t dim) {
  XD_TRY(check_dim(dim, rank() + 1));
  dims_.insert(dims_.begin() + static_cast<ptrdiff_t>(dim), Dim{});
  return {};
}

Result<void> View::squeeze(uint64_t dim) {
  XD_TRY(check_dim(dim, rank()));
  if (size(dim) != 1) return invalid(cat("expected a dimension of size 1, found ", size(dim)));
  dims_.erase(dims_.begin() + static_cast<ptrdiff_t>(dim));
  return {};
}

}  // namespace crossdock::transform
