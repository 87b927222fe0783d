// SPDX-License-Identifier: Apache-2.0

// What readers' read() have in common: the checks of a range of dense values, and the tensor's name
// in front of an error.
#pragma once

#include "plugins/common/quote.h"

#include <crossdock/plugin.hpp>

#include <span>
#include <vector>

namespace crossdock::common {

// Values of a tensor in its own type, whole bytes each, and a buffer that they fill.
inline Result<void> check_dense(const xd_range& range, manifest::DType dtype, uint64_t n_elems,
                                std::span<const std::byte> out) {
  if (range.dtype != 0 && range.dtype != static_cast<uint32_t>(dtype)) {
    return invalid(cat("expected to be asked for ", manifest::name(dtype), ", found dtype ",
                       range.dtype, ": casts are the host's"));
  }
  if (range.begin > n_elems || range.count > n_elems - range.begin) {
    return Error{XD_OUT_OF_RANGE, cat("expected a range inside ", n_elems, " elements, found ",
                                      range.count, " at ", range.begin)};
  }
  const uint64_t n_bytes = range.count * (manifest::info(dtype).bits / 8);
  if (out.size() != n_bytes)
    return invalid(cat("expected a buffer of ", n_bytes, " bytes, found ", out.size()));
  return {};
}

// read(tensor) of the one that the range is of; name_of(tensor) is its name.
template <class T, class NameOf, class Read>
Result<void> read_one_of(const std::vector<T>& tensors, const xd_range& range, NameOf&& name_of,
                         Read&& read) {
  if (range.tensor >= tensors.size()) {
    return Error{XD_OUT_OF_RANGE,
                 cat("expected one of ", tensors.size(), " tensors, found index ", range.tensor)};
  }
  const T& t = tensors[range.tensor];
  auto done = read(t);
  return done || done.error().held_by_host
             ? std::move(done)
             : std::move(done).error().in(cat("tensor ", in_quotes(name_of(t))));
}

}  // namespace crossdock::common
