// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/tensor_parallel.h"

#include "plugins/common/boxes.h"
#include "plugins/common/quote.h"

#include <algorithm>

namespace crossdock::reader_zero {

namespace {

using common::in_quotes;

std::string text_of(std::span<const uint64_t> shape) {
  std::string out = "[";
  for (const uint64_t n : shape) out += cat(out.size() == 1 ? "" : ", ", n);
  return out + "]";
}

uint64_t n_elems(std::span<const uint64_t> shape) { return checked_product(shape).value_or(0); }

const std::string& text_of(const Pattern& pattern) { return pattern.text(); }
template <class T>
const std::string& text_of(const std::pair<Pattern, T>& entry) {
  return entry.first.text();
}
bool matches(const Pattern& pattern, std::string_view name) { return pattern.matches(name); }
template <class T>
bool matches(const std::pair<Pattern, T>& entry, std::string_view name) {
  return entry.first.matches(name);
}

// The only entry whose pattern matches; null where none does.
template <class Entry>
Result<const Entry*> find(const std::vector<Entry>& entries, std::string_view name) {
  const Entry* found = nullptr;
  for (const Entry& entry : entries) {
    if (!matches(entry, name)) continue;
    if (found)
      return corrupt(cat("expected one pattern of its kind for ", in_quotes(name), ", found ",
                         in_quotes(text_of(*found)), " and ", in_quotes(text_of(entry))));
    found = &entry;
  }
  return found;
}

// ---- what an affine map says: views by offset and strides, which here are boxes
// The box's first index in each dimension, where the strides are those of the dense shape.
std::optional<Shape> box_at(std::span<const uint64_t> shape, std::span<const uint64_t> sizes,
                            uint64_t offset, std::span<const uint64_t> strides) {
  if (shape.size() != sizes.size() || shape.size() != strides.size()) return std::nullopt;
  Shape out(shape.size());
  uint64_t stride = n_elems(shape);
  for (size_t d = 0; d < shape.size(); ++d) {
    stride /= shape[d];  // no size is 0, for the box is in it and has elements
    if (sizes[d] > 1 && strides[d] != stride) return std::nullopt;
    out[d] = offset / stride;
    offset %= stride;
    if (out[d] > shape[d] || sizes[d] > shape[d] - out[d]) return std::nullopt;
  }
  return offset == 0 ? std::optional(out) : std::nullopt;
}

Result<Sharing> by_affine_map(const AffineMap& map, std::span<const Shape> shares) {
  Sharing out{map.logical_shape, {}, {}, false};
  for (const auto& [rank, of_rank] : map.ranks) {
    if (rank >= shares.size())
      return corrupt(cat("expected an affine map of ", shares.size(), " ranks, found rank ", rank));
    if (checked_product(of_rank.shard_shape) != checked_product(shares[rank]))
      return corrupt(cat("expected a share of ", text_of(of_rank.shard_shape), " on rank ", rank,
                         ", as the affine map says, found ", text_of(shares[rank])));
  }
  if (!checked_product(map.logical_shape))
    return corrupt("expected a shape whose elements can be counted, found a larger one");
  out.shares.resize(shares.size(), {0});
  for (const auto& [rank, of_rank] : map.ranks) {
    out.shares[rank] = of_rank.shard_shape;
    uint64_t n_held = 0;
    for (const AffinePiece& piece : of_rank.pieces) {
      const uint64_t n = n_elems(piece.shape);
      n_held += std::min(n, UINT64_MAX - n_held);
      if (n == 0) continue;
      if (piece.is_scaled)
        return unsupported(
            "expected shares that hold the values themselves, found scaled ones in its affine map, "
            "which DeepSpeed does not convert either");
      const bool has_space = n_elems(map.logical_shape) > 0 && n_elems(of_rank.shard_shape) > 0;
      auto source = has_space ? box_at(map.logical_shape, piece.shape, piece.source_offset,
                                       piece.source_strides)
                              : std::nullopt;
      auto dest = has_space ? box_at(of_rank.shard_shape, piece.shape, piece.dest_offset,
                                     piece.dest_strides)
                            : std::nullopt;
      if (!source || !dest)
        return unsupported(cat("expected pieces that are boxes of ", text_of(map.logical_shape),
                               " and of rank ", rank, "'s share, found others in its affine map"));
      out.boxes.push_back({rank, std::move(*source), piece.shape, std::move(*dest)});
    }
    if (n_held != n_elems(of_rank.shard_shape))
      return corrupt(cat("expected pieces of all ", n_elems(of_rank.shard_shape),
                         " elements of rank ", rank, "'s share in its affine map, found ", n_held));
  }
  return out;
}

// ---- what patterns say
Result<Sharing> whole(std::span<const Shape> shares, bool is_average) {
  Sharing out{shares[0], {shares.begin(), shares.end()}, {}, is_average};
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    if (shares[rank] != shares[0])
      return corrupt(cat("expected it whole on every rank, found ", text_of(shares[0]),
                         " on rank 0 and ", text_of(shares[rank]), " on rank ", rank));
    const Shape zeros(shares[0].size());
    if (n_elems(shares[0]) > 0) out.boxes.push_back({rank, zeros, shares[0], zeros});
  }
  return out;
}

// widths[i][rank] of each part along a dimension: the whole has part 0 of all ranks, then part 1.
Sharing in_parts(Shape shape, std::span<const Shape> shares, size_t dim,
                 std::span<const Shape> widths) {
  Sharing out{std::move(shape), {shares.begin(), shares.end()}, {}, false};
  Shape begins(shares.size());
  uint64_t at = 0;
  for (const Shape& of_part : widths) {
    for (size_t rank = 0; rank < shares.size(); ++rank) {
      Held box{rank, Shape(out.shape.size()), out.shape, Shape(out.shape.size())};
      box.offsets[dim] = at;
      box.sizes[dim] = of_part[rank];
      box.in_share[dim] = begins[rank];
      at += of_part[rank];
      begins[rank] += of_part[rank];
      if (n_elems(box.sizes) > 0) out.boxes.push_back(std::move(box));
    }
  }
  return out;
}

// Joined along `dim`, in `n_parts` parts of each share.
Result<Sharing> joined(std::span<const Shape> given, size_t dim, uint64_t n_parts) {
  std::vector<Shape> shares(given.begin(), given.end());
  const auto first =
      std::find_if(shares.begin(), shares.end(), [](const Shape& s) { return n_elems(s) > 0; });
  Shape shape = first == shares.end() ? shares[0] : *first;
  if (dim >= shape.size())
    return corrupt(cat("expected shares that are cut along dimension ", dim, ", found a shape of ",
                       shape.size()));
  shape[dim] = 0;
  std::vector<Shape> widths(n_parts, Shape(shares.size()));
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    Shape& share = shares[rank];
    if (n_elems(share) == 0) {
      share = shape;
      share[dim] = 0;
    }
    for (size_t d = 0; d < shape.size(); ++d) {
      if (share.size() != shape.size() || (d != dim && share[d] != shape[d]))
        return corrupt(cat("expected shares that differ in dimension ", dim, " alone, found ",
                           text_of(*first), " and ", text_of(share), " on rank ", rank));
    }
    const uint64_t size = share[dim], part = size / n_parts + (size % n_parts != 0);
    for (uint64_t i = 0; i < n_parts; ++i)
      widths[i][rank] = std::min(part, size - std::min(size, i * part));
    shape[dim] += size;
  }
  return in_parts(std::move(shape), shares, dim, widths);
}

// The widths of each sub-parameter on each rank.
Result<std::vector<Shape>> widths_of(const SubParameters& sub, double version,
                                     std::span<const Shape> shares) {
  constexpr double kHasWidths = 0.4;
  const size_t n_ranks = shares.size(), dim = sub.partition_dim;
  Shape sizes = sub.sizes;
  if (version < kHasWidths && sizes.empty()) {  // then it is their number
    uint64_t all = 0;
    const auto n = static_cast<uint64_t>(std::max<int64_t>(sub.shape[dim], 0));
    for (const Shape& share : shares) {
      if (dim >= share.size()) return corrupt("expected shares of its sub-parameters' dimensions");
      all += share[dim];
    }
    if (n == 0 || n > all || all % n != 0)
      return corrupt(cat("expected sub-parameters of the same size, found ", n, " in ", all));
    sizes.assign(n, all / n);
  }
  std::vector<Shape> out = sub.widths;
  if (version < kHasWidths) {
    out.clear();
    for (const uint64_t size : sizes) {
      if (size % n_ranks != 0)
        return unsupported(cat("expected sub-parameters that ", n_ranks,
                               " ranks divide, found one of ", size,
                               " in a checkpoint that does not tell how it is cut"));
      out.emplace_back(n_ranks, size / n_ranks);
    }
  }
  bool fits = !out.empty() && out.size() == sizes.size();
  for (size_t i = 0; fits && i < out.size(); ++i) {
    uint64_t sum = 0;
    for (const uint64_t width : out[i]) sum += std::min(width, sizes[i] + 1);
    fits = out[i].size() == n_ranks && sum == sizes[i];
  }
  if (fits) return out;
  return corrupt(cat("expected sub_param_shard_widths of its ", sizes.size(),
                     " sub-parameters on each of ", n_ranks, " ranks, found others"));
}

Result<Sharing> by_sub_parameters(const SubParameters& sub, double version,
                                  std::span<const Shape> shares) {
  XD_TRY_SET(const auto widths, widths_of(sub, version, shares));
  Shape shape;
  uint64_t all = 0, known = 1;
  size_t n_unknown = 0;
  for (const Shape& share : shares) all += n_elems(share);
  for (size_t d = 0; d < sub.shape.size(); ++d) {
    uint64_t size = sub.shape[d] < 0 ? 0 : static_cast<uint64_t>(sub.shape[d]);
    if (d == sub.partition_dim) {
      size = 0;
      for (const Shape& of_part : widths) {
        for (const uint64_t width : of_part) size += width;
      }
    } else if (sub.shape[d] < 0) {
      ++n_unknown;
      shape.push_back(0);
      continue;
    }
    shape.push_back(size);
    const uint64_t factors[] = {known, size};
    known = checked_product(factors).value_or(0);
  }
  if (n_unknown > 1 || known == 0 || all % known != 0)
    return corrupt(cat("expected sub-parameters of ", all, " elements, found other sizes"));
  for (size_t d = 0; d < shape.size(); ++d) {
    if (sub.shape[d] < 0 && d != sub.partition_dim) shape[d] = all / known;
  }
  std::vector<Shape> viewed;
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    Shape& share = viewed.emplace_back(shape);
    share[sub.partition_dim] = 0;
    for (const Shape& of_part : widths) share[sub.partition_dim] += of_part[rank];
    if (n_elems(share) != n_elems(shares[rank]))
      return corrupt(cat("expected a share of ", text_of(share), " on rank ", rank,
                         ", as its sub-parameters say, found ", text_of(shares[rank])));
  }
  return in_parts(std::move(shape), viewed, sub.partition_dim, widths);
}

Result<Sharing> by_patterns(const UniversalInfo& info, std::string_view name,
                            std::span<const Shape> shares) {
  XD_TRY_SET(const Pattern* const replicated, find(info.replicated, name));
  if (replicated) return whole(shares, false);
  XD_TRY_SET(const Pattern* const averaged, find(info.averaged, name));
  if (averaged) return whole(shares, true);
  XD_TRY_SET(const Pattern* const two, find(info.two_sub_parameters, name));
  if (two) return joined(shares, 0, 2);
  for (const auto& [pattern, sub] : info.sub_parameters) {
    if (pattern.matches(name)) return by_sub_parameters(sub, info.version, shares);
  }
  XD_TRY_SET(const Pattern* const row, find(info.row_parallel, name));
  return joined(shares, row ? 1 : 0, 1);
}

// Padding behind the vocabulary is no part of the parameter.
Result<void> strip(const UniversalInfo& info, std::string_view name, Sharing& out) {
  XD_TRY_SET(const Pattern* const vocabulary, find(info.vocabulary, name));
  if (!vocabulary) return {};
  if (!info.original_vocab_size)
    return corrupt("expected original_vocab_size in universal_checkpoint_info, found none");
  if (out.shape.size() != 2)
    return corrupt(cat("expected a vocabulary's shape of two sizes, found ", text_of(out.shape)));
  const uint64_t n = std::min(out.shape[0], *info.original_vocab_size);
  out.shape[0] = n;
  std::erase_if(out.boxes, [n](const Held& box) { return box.offsets[0] >= n; });
  for (Held& box : out.boxes) box.sizes[0] = std::min(box.sizes[0], n - box.offsets[0]);
  return {};
}

// That the boxes, each counted once, are the whole.
Result<void> check(const Sharing& sharing, uint64_t& pairs) {
  std::vector<common::Box> once;
  std::vector<const Held*> sorted;
  for (const Held& box : sharing.boxes) sorted.push_back(&box);
  const auto is_less = [](const Held* a, const Held* b) {
    return std::tie(a->offsets, a->sizes) < std::tie(b->offsets, b->sizes);
  };
  std::stable_sort(sorted.begin(), sorted.end(), is_less);
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (i == 0 || is_less(sorted[i - 1], sorted[i]))
      once.push_back({sorted[i]->offsets, sorted[i]->sizes, 0, 0});
  }
  return common::check_tiling(sharing.shape, once, pairs);
}

}  // namespace

Result<Sharing> sharing_of(const UniversalInfo& info, std::string_view name,
                           std::span<const Shape> shares, uint64_t& pairs) {
  const auto make = [&]() -> Result<Sharing> {
    XD_TRY_SET(const auto* const affine, find(info.affine, name));
    XD_TRY_SET(Sharing out,
               affine ? by_affine_map(affine->second, shares) : by_patterns(info, name, shares));
    XD_TRY(strip(info, name, out));
    XD_TRY(check(out, pairs));
    return out;
  };
  auto out = make();
  if (!out) return std::move(out).error().in(cat("tensor-parallel shares of ", in_quotes(name)));
  return out;
}

}  // namespace crossdock::reader_zero
