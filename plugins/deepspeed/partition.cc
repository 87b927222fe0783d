// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/partition.h"

#include <crossdock/bytes.hpp>

#include <algorithm>

namespace crossdock::deepspeed {

namespace {

constexpr uint64_t kMaxElements = uint64_t{1} << 56;

uint64_t part_of(uint64_t size, uint64_t n_ranks) { return size / n_ranks + (size % n_ranks != 0); }

}  // namespace

Result<uint64_t> sum_of(std::span<const uint64_t> sizes) {
  uint64_t sum = 0;
  for (const uint64_t size : sizes) {
    if (size > kMaxElements - sum)
      return corrupt("expected at most 2^56 elements in all, found more");
    sum += size;
  }
  return sum;
}

uint64_t elements_of_rank(std::span<const uint64_t> sizes, uint64_t n_ranks) {
  uint64_t out = 0;
  for (const uint64_t size : sizes) out += part_of(size, n_ranks);
  return out;
}

std::vector<Pieces> cut_each(std::span<const uint64_t> sizes, uint64_t n_ranks) {
  std::vector<Pieces> out;
  uint64_t offset = 0;
  for (const uint64_t size : sizes) {
    Pieces& pieces = out.emplace_back();
    const uint64_t part = part_of(size, n_ranks);
    for (uint64_t rank = 0, begin = 0; begin < size; ++rank, begin += part)
      pieces.push_back({rank, offset, std::min(part, size - begin)});
    offset += part;
  }
  return out;
}

Result<std::vector<Pieces>> cut_row(std::span<const uint64_t> sizes, std::span<const uint64_t> gaps,
                                    std::span<const uint64_t> held) {
  if (!gaps.empty() && gaps.size() != sizes.size())
    return corrupt(cat("expected an alignment padding for each of ", sizes.size(),
                       " parameters, found ", gaps.size()));
  XD_TRY_SET(const uint64_t n_sizes, sum_of(sizes));
  XD_TRY_SET(const uint64_t n_gaps, sum_of(gaps));
  XD_TRY_SET(const uint64_t n_held, sum_of(held));
  const uint64_t least = n_sizes + n_gaps - (gaps.empty() ? 0 : gaps.back());
  // DeepSpeed aligns the row to two elements of each rank.
  const uint64_t most = round_up(n_sizes + n_gaps, 2 * held.size());
  if (n_held < least || n_held > most)
    return corrupt(cat("expected ", least, " elements, as many as its parameters have",
                       n_gaps > 0 ? " with their paddings" : "", ", found ", n_held));
  std::vector<uint64_t> ends;  // of each rank's part of the row
  for (const uint64_t n : held) ends.push_back((ends.empty() ? 0 : ends.back()) + n);
  std::vector<Pieces> out;
  uint64_t at = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    Pieces& pieces = out.emplace_back();
    for (const uint64_t end = at + sizes[i]; at < end; at += pieces.back().count) {
      const auto rank =
          static_cast<uint64_t>(std::upper_bound(ends.begin(), ends.end(), at) - ends.begin());
      pieces.push_back({rank, at - (ends[rank] - held[rank]), std::min(end, ends[rank]) - at});
    }
    at += gaps.empty() ? 0 : gaps[i];
  }
  return out;
}

}  // namespace crossdock::deepspeed
