// SPDX-License-Identifier: Apache-2.0
#include "core/io/tree_digest.h"

#include <crossdock/bytes.hpp>

#include <fmt/format.h>
#include <xxhash.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
// The same functions, with AVX2 or AVX512 where the processor has them.
#include <xxh_x86dispatch.h>
#endif

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <iterator>

namespace crossdock::io {

namespace {

// Runs leave a few nodes each. Only leaves from all over get beyond this many; then what touches no
// other node is not kept, and stays missing.
constexpr size_t kMaxNodes = 4096;  // 128 KiB
// What a part of a leaf takes beside its bytes.
constexpr int64_t kPartOverhead = 160;

constexpr std::array<std::byte, kLeafBytes> kZeroLeaf{};

TreeHash hash_of(const void* bytes, size_t n) {
  const XXH128_hash_t hash = XXH3_128bits(bytes, n);
  return {hash.high64, hash.low64};
}

TreeHash hash_of(std::span<const std::byte> bytes) { return hash_of(bytes.data(), bytes.size()); }

void put_be64(uint64_t value, unsigned char* to) {
  if constexpr (std::endian::native == std::endian::little) value = __builtin_bswap64(value);
  std::memcpy(to, &value, sizeof value);
}

TreeHash parent_of(TreeHash left, TreeHash right) {
  std::array<unsigned char, 32> both;
  put_be64(left.high, both.data());
  put_be64(left.low, both.data() + 8);
  put_be64(right.high, both.data() + 16);
  put_be64(right.low, both.data() + 24);
  return hash_of(both.data(), both.size());
}

// The level of the largest subtree that begins at this leaf and has no more than n, which is not 0.
unsigned level_at(uint64_t leaf, uint64_t n) {
  return static_cast<unsigned>(
      std::min(std::countr_zero(leaf), static_cast<int>(std::bit_width(n)) - 1));
}

// Of whole leaves. Level by level, for hashes that do not wait for each other overlap in the
// processor.
constexpr unsigned kMaxLevel = 6;
TreeHash subtree_of(const std::byte* leaves, unsigned level) {
  std::array<TreeHash, 1 << kMaxLevel> hashes;
  size_t n = size_t{1} << level;
  for (size_t i = 0; i < n; ++i) hashes[i] = hash_of(leaves + i * kLeafBytes, kLeafBytes);
  for (; n > 1; n /= 2) {
    for (size_t i = 0; i < n / 2; ++i) hashes[i] = parent_of(hashes[2 * i], hashes[2 * i + 1]);
  }
  return hashes[0];
}

// Of the subtrees of zeros, by level: as many as 64 bits of length can have.
const std::array<TreeHash, 53>& zero_hashes() {
  static const auto all = [] {
    std::array<TreeHash, 53> out{hash_of(kZeroLeaf)};
    for (size_t i = 1; i < out.size(); ++i) out[i] = parent_of(out[i - 1], out[i - 1]);
    return out;
  }();
  return all;
}

// Whether a node that begins at `first` is the right child of one whose left child is `left`.
bool are_siblings(const TreeNode& left, uint64_t first, unsigned level) {
  return left.level == level && left.end() == first && (left.first >> level) % 2 == 0;
}

bool are_siblings(const TreeNode& left, const TreeNode& right) {
  return are_siblings(left, right.first, right.level);
}

TreeNode parent_of(const TreeNode& left, const TreeNode& right) {
  return {left.first, left.level + 1, parent_of(left.hash, right.hash)};
}

uint64_t count_of(const TreeNode& node) { return uint64_t{1} << node.level; }

}  // namespace

TreeDigest::TreeDigest(uint64_t n_bytes, std::atomic<int64_t>* seam_room)
    : n_bytes_(n_bytes),
      n_leaves_(std::max<uint64_t>(n_bytes / kLeafBytes + (n_bytes % kLeafBytes != 0), 1)),
      seam_room_(seam_room) {
  if (n_bytes == 0) insert({0, 0, hash_of({})});
}

uint64_t TreeDigest::leaf_bytes(uint64_t leaf) const {
  return std::min(kLeafBytes, n_bytes_ - leaf * kLeafBytes);
}

// The nodes are those of the largest powers of two from the left then, as no two could be one.
std::string TreeDigest::text() const {
  const std::lock_guard lock(mutex_);
  if (known_ != n_leaves_) return "";
  TreeHash hash = nodes_.back().hash;
  for (size_t i = nodes_.size() - 1; i-- > 0;) hash = parent_of(nodes_[i].hash, hash);
  std::array<unsigned char, 24> root;
  put_be64(hash.high, root.data());
  put_be64(hash.low, root.data() + 8);
  for (unsigned i = 0; i < 8; ++i) root[16 + i] = static_cast<unsigned char>(n_bytes_ >> (8 * i));
  const TreeHash whole = hash_of(root.data(), root.size());
  return fmt::format("tree:{:016x}{:016x}", whole.high, whole.low);
}

std::vector<ByteRange> TreeDigest::missing() const {
  const std::lock_guard lock(mutex_);
  std::vector<ByteRange> out;
  uint64_t next = 0;
  const auto until = [&](uint64_t leaf) {
    if (leaf > next) out.push_back({next * kLeafBytes, std::min(leaf * kLeafBytes, n_bytes_)});
  };
  for (const TreeNode& node : nodes_) {
    until(node.first);
    next = node.end();
  }
  until(n_leaves_);
  return out;
}

std::vector<TreeNode> TreeDigest::nodes() const {
  const std::lock_guard lock(mutex_);
  return nodes_;
}

std::vector<TreeNode> TreeDigest::nodes(ByteRange range) const {
  const std::lock_guard lock(mutex_);
  std::vector<TreeNode> out;
  const uint64_t begin = range.begin / kLeafBytes;
  auto at = std::partition_point(nodes_.begin(), nodes_.end(),
                                 [begin](const TreeNode& n) { return n.end() <= begin; });
  for (; at != nodes_.end() && at->first * kLeafBytes < range.end; ++at) out.push_back(*at);
  return out;
}

std::vector<TreeDigest::Part> TreeDigest::parts(ByteRange range) const {
  const std::lock_guard lock(mutex_);
  std::vector<Part> out;
  for (auto seam = seams_.lower_bound(range.begin / kLeafBytes);
       seam != seams_.end() && seam->first * kLeafBytes < range.end; ++seam) {
    for (const auto& [begin, bytes] : seam->second.pieces)
      out.push_back({seam->first * kLeafBytes + begin, bytes});
  }
  return out;
}

void TreeDigest::add(const Part& part) {
  add_part(part.offset / kLeafBytes, part.offset % kLeafBytes, as_bytes(part.bytes));
}

bool TreeDigest::can_have(const TreeNode& node) const {
  return node.level < 52 && node.first % (uint64_t{1} << node.level) == 0 &&
         node.first < n_leaves_ && (uint64_t{1} << node.level) <= n_leaves_ - node.first;
}

bool TreeDigest::can_have(const Part& part) const {
  const uint64_t leaf = part.offset / kLeafBytes, begin = part.offset % kLeafBytes;
  return leaf < n_leaves_ && !part.bytes.empty() && begin < leaf_bytes(leaf) &&
         part.bytes.size() <= leaf_bytes(leaf) - begin;
}

void TreeDigest::add(std::span<const TreeNode> nodes) {
  const std::lock_guard lock(mutex_);
  for (const TreeNode& node : nodes) insert(node);
}

std::vector<TreeNode>::iterator TreeDigest::first_ending_after(uint64_t leaf) {
  return std::partition_point(nodes_.begin(), nodes_.end(),
                              [leaf](const TreeNode& n) { return n.end() <= leaf; });
}

// Subtrees lie within each other or apart.
void TreeDigest::insert(const TreeNode& node) {
  auto at = first_ending_after(node.first);
  if (at != nodes_.end() && at->first <= node.first && at->end() >= node.end()) return;
  forget_seams(node);
  auto behind = at;
  for (; behind != nodes_.end() && behind->first < node.end(); ++behind)
    known_ -= count_of(*behind);
  at = nodes_.insert(nodes_.erase(at, behind), node);
  known_ += count_of(node);
  while (true) {
    if (at != nodes_.begin() && are_siblings(at[-1], *at)) {
      --at;
    } else if (at + 1 == nodes_.end() || !are_siblings(*at, at[1])) {
      break;
    }
    *at = parent_of(*at, at[1]);
    nodes_.erase(at + 1);
  }
  // Who fills gaps from their left end on is always heard.
  const bool touches = at->first == 0 || (at != nodes_.begin() && at[-1].end() == at->first) ||
                       (at + 1 != nodes_.end() && at->end() == at[1].first);
  if (nodes_.size() <= kMaxNodes || touches) return;
  known_ -= count_of(*at);
  nodes_.erase(at);
}

void TreeDigest::forget_seams(const TreeNode& node) {
  for (auto it = seams_.lower_bound(node.first); it != seams_.end() && it->first < node.end();) {
    for (const auto& [begin, bytes] : it->second.pieces)
      *seam_room_ += static_cast<int64_t>(bytes.size()) + kPartOverhead;
    it = seams_.erase(it);
  }
}

void TreeDigest::add_part(uint64_t leaf, uint64_t begin, std::span<const std::byte> bytes) {
  if (!seam_room_) return;
  const int64_t cost = static_cast<int64_t>(bytes.size()) + kPartOverhead;
  const std::lock_guard lock(mutex_);
  if (const auto at = first_ending_after(leaf); at != nodes_.end() && at->first <= leaf) return;
  if (seam_room_->fetch_sub(cost) < cost) {
    *seam_room_ += cost;
    return;
  }
  Seam& seam = seams_[leaf];
  const auto next = seam.pieces.lower_bound(begin);
  const bool overlaps = (next != seam.pieces.end() && next->first < begin + bytes.size()) ||
                        (next != seam.pieces.begin() &&
                         std::prev(next)->first + std::prev(next)->second.size() > begin);
  if (overlaps) {  // read twice; if that leaves a gap, the leaf is missing
    *seam_room_ += cost;
    return;
  }
  seam.pieces.emplace_hint(next, begin,
                           std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  seam.n_bytes += bytes.size();
  if (seam.n_bytes < leaf_bytes(leaf)) return;
  std::string whole;
  for (const auto& [at, piece] : seam.pieces) whole += piece;
  insert({leaf, 0, hash_of(whole.data(), whole.size())});
}

void TreeDigest::Run::push(uint64_t first, unsigned level, TreeHash hash) {
  while (!nodes_.empty() && are_siblings(nodes_.back(), first, level)) {
    hash = parent_of(nodes_.back().hash, hash);
    first = nodes_.back().first;
    ++level;
    nodes_.pop_back();
  }
  nodes_.push_back({first, level, hash});
}

void TreeDigest::Run::add_to_part(std::span<const std::byte> bytes, uint64_t leaf_bytes) {
  const uint64_t leaf = position_ / kLeafBytes, end = position_ % kLeafBytes + bytes.size();
  std::copy(bytes.begin(), bytes.end(), part_.begin() + (end - bytes.size()));
  if (end < leaf_bytes) return;
  const std::span<const std::byte> part(part_.data() + part_begin_, end - part_begin_);
  if (part_begin_ == 0) {
    push(leaf, 0, hash_of(part));
  } else {
    digest_.add_part(leaf, part_begin_, part);
  }
  part_begin_ = 0;
}

void TreeDigest::Run::add(std::span<const std::byte> bytes) {
  assert(bytes.size() <= digest_.n_bytes_ - position_);
  while (!bytes.empty()) {
    const uint64_t leaf = position_ / kLeafBytes, at = position_ % kLeafBytes;
    const uint64_t size = digest_.leaf_bytes(leaf);
    uint64_t taken = std::min(bytes.size(), size - at);
    if (taken == kLeafBytes) {
      const unsigned level = std::min(level_at(leaf, bytes.size() / kLeafBytes), kMaxLevel);
      push(leaf, level, subtree_of(bytes.data(), level));
      taken <<= level;
    } else {
      add_to_part(bytes.first(taken), size);
    }
    position_ += taken;
    bytes = bytes.subspan(taken);
  }
  if (position_ == digest_.n_bytes_) hand_in();
}

void TreeDigest::Run::add_zeros(uint64_t n) {
  const uint64_t to_edge = std::min(n, (kLeafBytes - position_ % kLeafBytes) % kLeafBytes);
  add({kZeroLeaf.data(), to_edge});
  n -= to_edge;
  while (n >= kLeafBytes) {
    const uint64_t leaf = position_ / kLeafBytes;
    const unsigned level = level_at(leaf, n / kLeafBytes);
    push(leaf, level, zero_hashes()[level]);
    position_ += kLeafBytes << level;
    n -= kLeafBytes << level;
  }
  add({kZeroLeaf.data(), n});
}

void TreeDigest::Run::hand_in() {
  digest_.add(nodes_);
  nodes_.clear();
  if (position_ == digest_.n_bytes_) return;
  const uint64_t at = position_ % kLeafBytes;
  if (at > part_begin_)
    digest_.add_part(position_ / kLeafBytes, part_begin_,
                     {part_.data() + part_begin_, at - part_begin_});
  part_begin_ = at;
}

bool is_tree_digest(std::string_view text) {
  return text.size() == 37 && text.starts_with("tree:") &&
         text.find_first_not_of("0123456789abcdef", 5) == text.npos;
}

std::string tree_digest_of(std::string_view bytes) {
  TreeDigest digest(bytes.size());
  TreeDigest::Run(digest, 0).add(as_bytes(bytes));
  return digest.text();
}

}  // namespace crossdock::io
