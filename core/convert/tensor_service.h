// SPDX-License-Identifier: Apache-2.0

// Where a writer's tensor bytes come from: ranges read through the reader, cast to the wanted type,
// digested on the way.
//
// A writer asks for small pieces, which stay in cache between the cast, its checksum and the write.
// When a cast is needed, a dequantised weight is transposed, or the reader says that a tensor is
// read from its start to its end only, the service reads ahead in windows of up to 4 MiB, so that
// the disk sees large reads; otherwise it reads straight into the writer's buffer. Whatever is
// read, in whatever order, contributes to the tensor's digest, of its values as the source has
// them; an item that reads in order, as writers do, hands in a few hashes for each range.
#pragma once

#include "core/convert/session.h"
#include "core/convert/source_proof.h"
#include "core/convert/tensor_digests.h"
#include "core/convert/tensor_source.h"
#include "core/plugin/call.h"
#include "core/plugin/plan.h"

#include <mutex>
#include <optional>

namespace crossdock::convert {

class TensorService {
 public:
  // Both outlive it. `digests`: of this model.
  TensorService(TensorSource& model, TensorDigests& digests, uint64_t window_bytes)
      : model_(model), digests_(digests), window_bytes_(window_bytes) {}

  // What one item of work may read: what its plan says that it needs. What was read has been handed
  // in to the digests when it ends. Threads: any, one at a time.
  class Item : public plugin::TensorReads {
   public:
    Item(TensorService& service, const plugin::PlanItem& item);
    ~Item() override;
    Item(const Item&) = delete;
    Item& operator=(const Item&) = delete;

    Result<void> read(const xd_range& range, std::span<std::byte> out) override;
    // Once it is done: an item that has not read all that it needs has written something else.
    Result<void> check_whole() const;

    // What plugins had to say meanwhile, the reader's among it.
    plugin::NoteSink& notes() { return notes_; }
    // What was read of files beside what their tensors' digests prove.
    std::vector<SourceProver::Range> take_rests() { return std::move(rests_); }

   private:
    Result<void> read_locked(const xd_range& range, std::span<std::byte> out);
    // Elements from the range's first on that may be read in one go: to the end of the need.
    Result<uint64_t> readable(const xd_range& range) const;
    Result<void> fill_window(uint64_t tensor, uint64_t begin, uint64_t count);
    // `bytes`: the values of elements from `begin` on.
    void digest(uint64_t tensor, uint64_t begin, std::span<const std::byte> bytes);
    void mark(const xd_range& range);

    TensorService& service_;
    const plugin::PlanItem& item_;
    plugin::NoteSink notes_;
    std::mutex mutex_;  // of all below
    std::vector<SourceProver::Range> rests_;
    std::vector<plugin::PlanNeed> read_;  // ranges, what is adjacent as one
    std::byte* window_ = nullptr;         // of window_bytes_, once it is needed
    uint64_t window_tensor_ = 0, window_begin_ = 0, window_count_ = 0;
    std::optional<io::TreeDigest::Run> run_;  // of the tensor read last
  };

  uint64_t window_bytes() const { return window_bytes_; }

 private:
  TensorSource& model_;
  TensorDigests& digests_;
  const uint64_t window_bytes_;
};

}  // namespace crossdock::convert
