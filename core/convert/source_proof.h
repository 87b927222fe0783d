// SPDX-License-Identifier: Apache-2.0

// What proves a source's bytes beside the digests of its tensors, so that a report can tell any
// later change of any file that was read, down to a bit.
//
// A tensor's digest proves the bytes that it lies in where its values are those bytes: stored
// densely, and used as they are or in another order. What else a file of weights holds (headers,
// padding, codes of which values are computed, tensors with strides) is its *rest*, which has a
// digest of its own; of any other file that was read all bytes have.
#pragma once

#include "core/convert/prepare.h"
#include "core/io/tree_digest.h"
#include "core/report/report.h"

#include <atomic>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace crossdock::convert {

struct SourceProof {
  std::vector<std::string> rests;          // of the manifest's source files, by index
  std::vector<report::SourceFile> beside;  // the others, by name
};

// Takes the digests while the source is read for the conversion, so that codes, which no tensor's
// digest proves, are read once too; what nobody read is read in the end.
class SourceProver {
 public:
  // Sees what the session's host reads of the source from now on, as long as it lives. Both outlive
  // it.
  SourceProver(Session& session, const Prepared& prepared);
  ~SourceProver();
  SourceProver(const SourceProver&) = delete;
  SourceProver& operator=(const SourceProver&) = delete;

  // A range of a file's rest.
  struct Range {
    uint64_t file;
    io::ByteRange bytes;
  };
  // While it lives, what this thread reads of the rests is noted in `out`, what is adjacent as one.
  class Capture {
   public:
    explicit Capture(std::vector<Range>& out);
    ~Capture();
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
  };
  // Of a file's rest; null for a file that there is none of. [any]
  io::TreeDigest* rest(uint64_t file) {
    return file < rests_.size() ? rests_[file].digest.get() : nullptr;
  }

  // Once all else was read: only then is it known which files that took.
  Result<SourceProof> finish();

 private:
  struct Rest {
    std::vector<io::ByteRange> ranges;  // of the file
    std::vector<uint64_t> begins;       // where each begins in the digest
    std::unique_ptr<io::TreeDigest> digest;
  };
  void see(const io::InputEntry& entry, uint64_t offset, std::span<const std::byte> bytes);
  Result<void> read_missing(const std::string& name, Rest& rest);
  static Rest make_rest(std::vector<io::ByteRange> ranges, std::atomic<int64_t>* seam_room);

  Session& session_;
  const Prepared& prepared_;
  std::atomic<int64_t> seam_room_;
  std::vector<Rest> rests_;  // of the manifest's source files, by index
  std::map<const io::InputEntry*, size_t> index_;
};

// For its test: the bytes of each source file, in order, that no tensor's digest proves.
std::vector<std::vector<io::ByteRange>> unproved_ranges(const TensorSource& model);

}  // namespace crossdock::convert
