// SPDX-License-Identifier: Apache-2.0

// One output file, while it is written under OUT.partial (staging.h). Its size is known beforehand,
// or only when it is sealed: then it ends where the last byte was written, and its digest is taken
// from the file.
//
// Every byte must be written, or declared zero, exactly once, in any order and by several threads.
// Its digest is taken on the way: whoever writes on where an earlier write ended goes on with that
// one's run of leaves, so that only the leaves that two runs share are read back when it is sealed.
//
// Threads: write() and zero() may be called from any; seal() from one, after all of them.
#pragma once

#include "core/io/os.h"
#include "core/io/tree_digest.h"

#include <crossdock/bytes.hpp>

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace crossdock::io {

class StagedObject {
 public:
  // `fd`: of the file, which has its size already, to write and to read. `os` outlives it.
  // `is_sized_at_seal`: `size` is the most that it may have.
  StagedObject(Os& os, Fd fd, std::string name, uint64_t size, bool is_sized_at_seal = false)
      : os_(os), fd_(std::move(fd)), name_(std::move(name)), size_(size) {
    if (!is_sized_at_seal) digest_.emplace(size);
  }

  const std::string& name() const { return name_; }
  // After seal() its size, whatever it was before.
  uint64_t size() const { return size_; }
  // Where the last byte ends that was written so far. [any]
  uint64_t end() const;
  // Bytes that were written. [any]
  Result<void> read(uint64_t offset, std::span<std::byte> out) const;

  // `written`: where the caller keeps what it has written, one range for what is adjacent; only
  // changed under this object's lock.
  Result<void> write(uint64_t offset, std::span<const std::byte> bytes,
                     std::vector<ByteRange>* written = nullptr);
  // A hole where the file system has them.
  Result<void> zero(uint64_t offset, uint64_t n, std::vector<ByteRange>* written = nullptr);
  // What an earlier run wrote into the file counts as written, and has these subtrees. [one thread]
  Result<void> take_as_written(std::span<const ByteRange> ranges, std::span<const TreeNode> nodes);
  bool can_have(const TreeNode& node) const { return digest_ && digest_->can_have(node); }
  // The subtrees that are known of these ranges, and maybe of more. [any]
  std::vector<TreeNode> nodes_of(std::span<const ByteRange> ranges);
  // Checks that nothing is missing, and gives the file's digest, "tree:...". Closes the file.
  Result<std::string> seal();

 private:
  struct Written {
    uint64_t begin, end;
    bool operator<(const Written& other) const { return begin < other.begin; }
  };
  using Run = TreeDigest::Run;
  // Under mutex_, all three. A run that was taken is the caller's, who hashes without the lock.
  Result<void> claim(uint64_t offset, uint64_t n);
  std::unique_ptr<Run> take_run(uint64_t offset);
  void give_back(std::unique_ptr<Run> run);

  template <class Add>
  Result<void> add(uint64_t offset, uint64_t n, std::vector<ByteRange>* written, Add&& add);
  Result<void> cut_to_size();
  Result<void> read_back(ByteRange range);

  Os& os_;
  Fd fd_;
  const std::string name_;
  uint64_t size_;
  std::optional<TreeDigest> digest_;  // none while the size is not known

  mutable std::mutex mutex_;
  std::set<Written> written_;               // disjoint, adjacent ones merged
  std::vector<std::unique_ptr<Run>> runs_;  // idle, the one used last at the end
};

}  // namespace crossdock::io
