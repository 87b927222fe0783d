// SPDX-License-Identifier: Apache-2.0

// A digest of bytes that many readers can take together, each of any range and in any order:
// "tree:<32 hex>".
//
// The bytes are cut into leaves of 4 KiB, the last one shorter; no bytes at all are one empty leaf.
// A leaf's hash is the XXH3-128 of its bytes. Above, as in BLAKE3: of n leaves the left subtree has
// the largest power of two below n, and an inner node's hash is the XXH3-128 of its two children's,
// 32 bytes. The digest is the XXH3-128 of the root's hash and the number of all bytes (64 bits,
// little endian). Hashes are in their canonical form, big endian.
//
//   TreeDigest digest(n_bytes);
//   TreeDigest::Run run(digest, offset);   // a reader's, of consecutive bytes
//   run.add(bytes);  run.add_zeros(1 << 30);  run.hand_in();
//   digest.text();                         // once no leaf is missing
//
// A run hands in the hashes of the largest subtrees that it saw whole, some 2 log2 of its leaves.
// What is handed in twice is harmless. Of leaves from all over only some thousands are kept: the
// others stay missing until somebody reads what is missing, in order. Threads: a TreeDigest from
// any, a Run from one at a time.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::io {

inline constexpr uint64_t kLeafBytes = 4096;

// Two numbers and not 16 bytes: to store bytes and load them as words at once stalls the processor.
struct TreeHash {
  uint64_t high = 0, low = 0;
  bool operator==(const TreeHash&) const = default;
};

// A subtree of 2^level leaves. `first`, its first leaf, is a multiple of as many.
struct TreeNode {
  uint64_t first = 0;
  unsigned level = 0;
  TreeHash hash;
  uint64_t end() const { return first + (uint64_t{1} << level); }
};

struct ByteRange {
  uint64_t begin = 0, end = 0;
  bool operator==(const ByteRange&) const = default;
};

class TreeDigest {
 public:
  class Run;

  // `seam_room`, if any, outlives it: the bytes that may still be kept of leaves that no run saw
  // whole, until other runs bring the rest. Several digests may share it. Without it, or once it is
  // used up, such leaves are missing until somebody adds them whole.
  explicit TreeDigest(uint64_t n_bytes, std::atomic<int64_t>* seam_room = nullptr);
  TreeDigest(const TreeDigest&) = delete;
  TreeDigest& operator=(const TreeDigest&) = delete;

  uint64_t size() const { return n_bytes_; }
  // Empty while a leaf is missing. [any]
  std::string text() const;
  // In order, ends on leaves' edges, none adjacent. [any]
  std::vector<ByteRange> missing() const;
  // All that is known, in order and disjoint: what another process would hand in. [any]
  std::vector<TreeNode> nodes() const;
  std::vector<TreeNode> nodes(ByteRange range) const;  // those that have some of its bytes [any]
  // Nodes of a tree of this size only. [any]
  void add(std::span<const TreeNode> nodes);
  // The bytes that are kept, in a range, of leaves that no run saw whole. [any]
  struct Part {
    uint64_t offset = 0;
    std::string bytes;
  };
  std::vector<Part> parts(ByteRange range) const;
  void add(const Part& part);  // bytes of one leaf [any]
  // Whether it is one that a tree of this size can have. [any]
  bool can_have(const TreeNode& node) const;
  bool can_have(const Part& part) const;

 private:
  struct Seam {  // a leaf's bytes so far: disjoint pieces, by where they begin in it
    std::map<uint64_t, std::string> pieces;
    uint64_t n_bytes = 0;
  };
  uint64_t leaf_bytes(uint64_t leaf) const;
  // Some of a leaf's bytes, from `begin` in it. [any]
  void add_part(uint64_t leaf, uint64_t begin, std::span<const std::byte> bytes);
  // Under mutex_, all three:
  std::vector<TreeNode>::iterator first_ending_after(uint64_t leaf);
  void insert(const TreeNode& node);
  void forget_seams(const TreeNode& node);

  const uint64_t n_bytes_, n_leaves_;
  std::atomic<int64_t>* const seam_room_;
  mutable std::mutex mutex_;
  std::vector<TreeNode> nodes_;  // in order, disjoint, no two that could be one
  uint64_t known_ = 0;           // leaves in nodes_
  std::map<uint64_t, Seam> seams_;
};

// Whether the text is one: "tree:" and 32 digits.
bool is_tree_digest(std::string_view text);

// Of bytes that are all there.
std::string tree_digest_of(std::string_view bytes);

class TreeDigest::Run {
 public:
  // Bytes from `offset` on. The digest outlives it.
  Run(TreeDigest& digest, uint64_t offset)
      : digest_(digest), position_(offset), part_begin_(offset % kLeafBytes) {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  const TreeDigest& digest() const { return digest_; }
  uint64_t position() const { return position_; }
  // The next bytes; never beyond the digest's end.
  void add(std::span<const std::byte> bytes);
  void add_zeros(uint64_t n);  // takes microseconds, however many
  // Else what was added is lost. The run may go on after it.
  void hand_in();

 private:
  void push(uint64_t first, unsigned level, TreeHash hash);
  // Of one leaf, which has `leaf_bytes`.
  void add_to_part(std::span<const std::byte> bytes, uint64_t leaf_bytes);

  TreeDigest& digest_;
  uint64_t position_;
  std::vector<TreeNode> nodes_;  // not handed in yet, consecutive
  uint64_t part_begin_;  // in the leaf at position_: what is in part_ begins here, and ends there
  std::array<std::byte, kLeafBytes> part_;
};

}  // namespace crossdock::io
