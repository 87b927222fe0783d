// Where a writer's tensor bytes come from: ranges read through the reader, cast to the wanted type,
// digested on the way.
//
// A writer asks for small pieces, which stay in cache between the cast, its checksum and the write.
// When a cast is needed the service reads ahead in windows of up to 4 MiB, so that the disk sees
// large reads; otherwise it reads straight into the writer's buffer. A tensor's digest (of its
// values as the source has them) streams along when an item reads it in order from its first
// element to its last, as writers do.
//
// Threads: read() and view() from any thread that holds an ItemScope.
#pragma once

#include "core/convert/tensor_source.h"
#include "core/io/digest.h"
#include "core/plugin/plan.h"

#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace crossdock::convert {

class TensorService {
 public:
  TensorService(TensorSource& model, uint64_t window_bytes);

  // The thread works on this item while the scope lives; read() checks ranges against the item's
  // declared needs.
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
    std::byte* window_ = nullptr;  // of window_bytes_, once a cast needs it
    uint64_t window_tensor_ = 0, window_begin_ = 0, window_count_ = 0;
    std::optional<io::Digest> digest_;
    uint64_t digest_tensor_ = 0, digest_next_ = 0;
  };

  uint64_t window_bytes() const { return window_bytes_; }
  Result<void> read(const xd_range& range, std::span<std::byte> out);
  xd_status view(const xd_range& range, xd_view* out, xd_error* err);
  // "xxh3:..." of a tensor that was read whole and in order; empty for others.
  std::string digest_of(uint64_t tensor) const;

 private:
  // Elements from `begin` on that one item may read in one go: to the end of the need that holds
  // the range.
  Result<uint64_t> readable(const ItemScope& scope, const xd_range& range) const;
  void digest(ItemScope& scope, const manifest::Tensor& t, uint64_t tensor, uint64_t begin,
              uint64_t count, std::span<const std::byte> bytes);

  TensorSource& model_;
  const uint64_t window_bytes_;
  mutable std::mutex mutex_;
  std::vector<std::string> digests_;
};

}  // namespace crossdock::convert
