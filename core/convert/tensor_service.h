// Where a writer's tensor bytes come from: ranges read through the reader, cast to the wanted type,
// digested on the way.
//
// A writer asks for small pieces, which stay in cache between the cast, its checksum and the write.
// When a cast is needed, or a dequantised weight is transposed, the service reads ahead in windows
// of up to 4 MiB, so that the disk sees large reads; otherwise it reads straight into the writer's
// buffer. Whatever is read, in whatever
// order, contributes to the tensor's digest, of its values as the source has them; an item that
// reads in order, as writers do, hands in a few hashes for each range.
//
// Threads: read() and view() from any thread that holds an ItemScope.
#pragma once

#include "core/convert/tensor_digests.h"
#include "core/convert/tensor_source.h"
#include "core/plugin/plan.h"

#include <optional>

namespace crossdock::convert {

class TensorService {
 public:
  // Both outlive it. `digests`: of this model.
  TensorService(TensorSource& model, TensorDigests& digests, uint64_t window_bytes)
      : model_(model), digests_(digests), window_bytes_(window_bytes) {}

  // The thread works on this item while the scope lives; read() checks ranges against the item's
  // declared needs. What was read has been handed in to the digests when it ends.
  class ItemScope {
   public:
    ItemScope(TensorService& service, const plugin::PlanItem& item);
    ~ItemScope();
    ItemScope(const ItemScope&) = delete;
    ItemScope& operator=(const ItemScope&) = delete;

   private:
    friend class TensorService;
    TensorService& service_;
    const plugin::PlanItem& item_;
    std::byte* window_ = nullptr;  // of window_bytes_, once it is needed
    uint64_t window_tensor_ = 0, window_begin_ = 0, window_count_ = 0;
    std::optional<io::TreeDigest::Run> run_;  // of the tensor read last
  };

  uint64_t window_bytes() const { return window_bytes_; }
  Result<void> read(const xd_range& range, std::span<std::byte> out);
  xd_status view(const xd_range& range, xd_view* out, xd_error* err);

 private:
  // Elements from `begin` on that one item may read in one go: to the end of the need that holds
  // the range.
  Result<uint64_t> readable(const ItemScope& scope, const xd_range& range) const;
  // `bytes`: the values of elements from `begin` on.
  void digest(ItemScope& scope, uint64_t tensor, uint64_t begin, std::span<const std::byte> bytes);

  TensorSource& model_;
  TensorDigests& digests_;
  const uint64_t window_bytes_;
};

}  // namespace crossdock::convert
