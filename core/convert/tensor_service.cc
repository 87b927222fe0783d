#include "core/convert/tensor_service.h"

#include "core/base/activity.h"
#include "core/model/check.h"
#include "core/transform/cast.h"

#include <algorithm>

namespace crossdock::convert {

namespace {
// The item whose turn it is on this thread: a plugin's reads carry no item of their own.
thread_local TensorService::ItemScope* current = nullptr;

std::string range_text(const xd_range& r) { return cat("elements ", r.begin, " + ", r.count); }
}  // namespace

TensorService::ItemScope::ItemScope(TensorService& service, const plugin::PlanItem& item)
    : service_(service), item_(item) {
  current = this;
}

TensorService::ItemScope::~ItemScope() {
  current = nullptr;
  if (run_) run_->hand_in();
  service_.model_.host().memory().dealloc(window_);
}

// How many elements from the range's first on the item may read: reading ahead must not go beyond
// what it said that it needs, or its digest and memory would be another item's.
Result<uint64_t> TensorService::readable(const ItemScope& scope, const xd_range& range) const {
  for (const plugin::PlanNeed& need : scope.item_.needs) {
    if (need.tensor != range.tensor || range.begin < need.begin) continue;
    const uint64_t skipped = range.begin - need.begin;
    if (skipped <= need.count && range.count <= need.count - skipped) return need.count - skipped;
  }
  return Error{XD_OUT_OF_RANGE,
               cat("expected a read of what the item's plan needs, found ", range_text(range))};
}

Result<void> TensorService::read(const xd_range& range, std::span<std::byte> out) {
  if (!current || &current->service_ != this)
    return Error{XD_INTERNAL, "tensors are read in write_item only"};
  ItemScope& scope = *current;
  if (range.tensor >= digests_.size())
    return Error{XD_OUT_OF_RANGE,
                 cat("expected a tensor below ", digests_.size(), ", found ", range.tensor)};
  const manifest::Tensor& t = model_.manifest().tensors[range.tensor];
  const auto fail = [&t](Error e) { return std::move(e).in(cat("tensor \"", t.name, '"')); };
  if (range.form != XD_FORM_DENSE) return fail({XD_UNIMPLEMENTED, "only dense values can be read"});
  const auto room = readable(scope, range);
  if (!room) return fail(room.error());
  const auto wanted = range.dtype == 0 ? t.dtype : static_cast<manifest::DType>(range.dtype);
  const auto out_bytes = manifest::dense_bytes(wanted, range.count);
  if (!out_bytes || *out_bytes != out.size())
    return fail({XD_INVALID_ARGUMENT, cat("expected a buffer for ", range_text(range), ", found ",
                                          out.size(), " bytes")});
  if (range.count == 0) return {};
  // The common case: no cast, so the values go straight into the caller's buffer.
  if (wanted == t.dtype && !model_.likes_large_reads(range.tensor)) {
    if (auto r = model_.read(range.tensor, range.begin, range.count, out); !r)
      return fail(std::move(r).error());
    digest(scope, range.tensor, range.begin, out);
    return {};
  }
  const transform::CastFunction cast = transform::find_cast(t.dtype, wanted);
  if (!cast)
    return fail({XD_UNSUPPORTED_DATA, cat("expected a type that casts to ", manifest::name(wanted),
                                          ", found ", manifest::name(t.dtype))});

  // Others go through a window that is filled ahead, for writers ask for small pieces, and disks
  // and transposed weights like large ones. It lives as long as the item.
  if (!scope.window_)
    scope.window_ = static_cast<std::byte*>(model_.host().memory().alloc(window_bytes_, 64));
  if (!scope.window_)
    return fail({XD_NO_MEMORY, cat("expected ", window_bytes_,
                                   " bytes within the memory budget: raise --memory")});
  const uint64_t elem_bytes = manifest::info(t.dtype).bits / 8;
  const uint64_t out_elem_bytes = manifest::info(wanted).bits / 8;
  for (uint64_t begin = range.begin, end = range.begin + range.count; begin < end;) {
    const bool inside = scope.window_tensor_ == range.tensor && begin >= scope.window_begin_ &&
                        begin - scope.window_begin_ < scope.window_count_;
    if (!inside) {
      const uint64_t left = *room - (begin - range.begin);
      scope.window_count_ = 0;
      const uint64_t count = std::min(left, window_bytes_ / elem_bytes);
      if (auto r = model_.read(range.tensor, begin, count, {scope.window_, count * elem_bytes}); !r)
        return fail(std::move(r).error());
      scope.window_tensor_ = range.tensor;
      scope.window_begin_ = begin;
      scope.window_count_ = count;
    }
    const uint64_t skip = begin - scope.window_begin_;
    const uint64_t count = std::min(end - begin, scope.window_count_ - skip);
    const std::byte* from = scope.window_ + skip * elem_bytes;
    // Of the values before the cast, so that all formats and precisions give one digest.
    digest(scope, range.tensor, begin, {from, count * elem_bytes});
    cast(from, out.data() + (begin - range.begin) * out_elem_bytes, count);
    begin += count;
  }
  return {};
}

xd_status TensorService::view(const xd_range& range, xd_view* out, xd_error* err) {
  if (!current || range.tensor >= digests_.size() || !readable(*current, range))
    return XD_OUT_OF_RANGE;
  const manifest::Tensor& t = model_.manifest().tensors[range.tensor];
  if (range.dtype != 0 && static_cast<manifest::DType>(range.dtype) != t.dtype)
    return XD_UNIMPLEMENTED;
  const xd_status status = model_.view(range, out, err);
  const bool whole = status == XD_OK && range.form == XD_FORM_DENSE &&
                     manifest::dense_bytes(t.dtype, range.count) == out->size;
  if (whole)
    digest(*current, range.tensor, range.begin,
           {static_cast<const std::byte*>(out->data), out->size});
  return status;
}

void TensorService::digest(ItemScope& scope, uint64_t tensor, uint64_t begin,
                           std::span<const std::byte> bytes) {
  const auto offset = manifest::dense_bytes(model_.manifest().tensors[tensor].dtype, begin);
  if (!offset) return;  // sub-byte elements that begin within a byte
  // Ranges that follow each other are one run, which hashes in place; any other begins a new one.
  const base::Span span(base::Activity::kDigest);
  io::TreeDigest& digest = digests_[tensor];
  if (!scope.run_ || &scope.run_->digest() != &digest || scope.run_->position() != *offset) {
    if (scope.run_) scope.run_->hand_in();
    scope.run_.emplace(digest, *offset);
  }
  scope.run_->add(bytes);
}

}  // namespace crossdock::convert
