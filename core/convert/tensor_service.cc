// SPDX-License-Identifier: Apache-2.0
#include "core/convert/tensor_service.h"

#include "core/base/activity.h"
#include "core/base/text.h"
#include "core/model/check.h"
#include "core/transform/cast.h"

#include <algorithm>

namespace crossdock::convert {

namespace {
std::string range_text(const xd_range& r) { return cat("elements ", r.begin, " + ", r.count); }
}  // namespace

TensorService::Item::Item(TensorService& service, const plugin::PlanItem& item)
    : service_(service), item_(item) {}

TensorService::Item::~Item() {
  if (run_) run_->hand_in();
  service_.model_.host().memory().dealloc(window_);
}

// Reading ahead must not go beyond what the item said that it needs, or its digest and memory would
// be another item's.
Result<uint64_t> TensorService::Item::readable(const xd_range& range) const {
  for (const plugin::PlanNeed& need : item_.needs) {
    if (need.tensor != range.tensor || range.begin < need.begin) continue;
    const uint64_t skipped = range.begin - need.begin;
    if (skipped <= need.count && range.count <= need.count - skipped) return need.count - skipped;
  }
  return Error{XD_OUT_OF_RANGE,
               cat("expected a read of what the item's plan needs, found ", range_text(range))};
}

Result<void> TensorService::Item::read(const xd_range& range, std::span<std::byte> out) {
  const std::lock_guard lock(mutex_);
  // The reader's share of the work belongs to this item, whatever thread it runs on.
  const Notes::Capture notes(notes_);
  const SourceProver::Capture rests(rests_);
  XD_TRY(read_locked(range, out));
  mark(range);
  return {};
}

Result<void> TensorService::Item::read_locked(const xd_range& range, std::span<std::byte> out) {
  TensorSource& model = service_.model_;
  if (range.tensor >= service_.digests_.size())
    return Error{XD_OUT_OF_RANGE, cat("expected a tensor below ", service_.digests_.size(),
                                      ", found ", range.tensor)};
  const manifest::Tensor& t = model.manifest().tensors[range.tensor];
  const auto fail = [&t](Error e) { return std::move(e).in(cat("tensor \"", t.name, '"')); };
  const auto room = readable(range);
  if (!room) return fail(room.error());
  const auto wanted = range.dtype == 0 ? t.dtype : static_cast<manifest::DType>(range.dtype);
  const auto out_bytes = manifest::dense_bytes(wanted, range.count);
  if (!out_bytes || *out_bytes != out.size())
    return fail({XD_INVALID_ARGUMENT, cat("expected a buffer for ", range_text(range), ", found ",
                                          out.size(), " bytes")});
  if (range.count == 0) return {};
  // The common case: no cast, so the values go straight into the caller's buffer.
  if (wanted == t.dtype && !model.likes_large_reads(range.tensor)) {
    if (auto r = model.read(range.tensor, range.begin, range.count, out); !r)
      return fail(std::move(r).error());
    digest(range.tensor, range.begin, out);
    return {};
  }
  const transform::CastFunction cast = transform::find_cast(t.dtype, wanted);
  if (!cast)
    return fail({XD_UNSUPPORTED_DATA, cat("expected a type that casts to ", manifest::name(wanted),
                                          ", found ", manifest::name(t.dtype))});

  // Others go through a window that is filled ahead, for writers ask for small pieces, and disks
  // and transposed weights like large ones.
  const uint64_t elem_bytes = manifest::info(t.dtype).bits / 8;
  const uint64_t out_elem_bytes = manifest::info(wanted).bits / 8;
  for (uint64_t begin = range.begin, end = range.begin + range.count; begin < end;) {
    const bool inside = window_tensor_ == range.tensor && begin >= window_begin_ &&
                        begin - window_begin_ < window_count_;
    if (!inside) {
      const uint64_t left = *room - (begin - range.begin);
      if (auto r = fill_window(range.tensor, begin, left); !r) return fail(std::move(r).error());
    }
    const uint64_t skip = begin - window_begin_;
    const uint64_t count = std::min(end - begin, window_count_ - skip);
    const std::byte* from = window_ + skip * elem_bytes;
    // Of the values before the cast, so that all formats and precisions give one digest.
    digest(range.tensor, begin, {from, count * elem_bytes});
    cast(from, out.data() + (begin - range.begin) * out_elem_bytes, count);
    begin += count;
  }
  return {};
}

// With elements of a tensor from `begin` on: as many of `count` as it holds.
Result<void> TensorService::Item::fill_window(uint64_t tensor, uint64_t begin, uint64_t count) {
  TensorSource& model = service_.model_;
  const uint64_t n_bytes = service_.window_bytes_;
  if (!window_) window_ = static_cast<std::byte*>(model.host().memory().alloc(n_bytes, 64));
  if (!window_)
    return Error{XD_NO_MEMORY,
                 cat("expected ", n_bytes, " bytes within the memory budget: raise --memory")};
  const uint64_t elem_bytes = manifest::info(model.manifest().tensors[tensor].dtype).bits / 8;
  count = std::min(count, n_bytes / elem_bytes);
  window_count_ = 0;
  XD_TRY(model.read(tensor, begin, count, {window_, count * elem_bytes}));
  window_tensor_ = tensor;
  window_begin_ = begin;
  window_count_ = count;
  return {};
}

void TensorService::Item::digest(uint64_t tensor, uint64_t begin,
                                 std::span<const std::byte> bytes) {
  const auto offset =
      manifest::dense_bytes(service_.model_.manifest().tensors[tensor].dtype, begin);
  if (!offset) return;  // sub-byte elements that begin within a byte
  // Ranges that follow each other are one run, which hashes in place; any other begins a new one.
  const base::Span span(base::Activity::kDigest);
  io::TreeDigest& digest = service_.digests_[tensor];
  if (!run_ || &run_->digest() != &digest || run_->position() != *offset) {
    if (run_) run_->hand_in();
    run_.emplace(digest, *offset);
  }
  run_->add(bytes);
}

void TensorService::Item::mark(const xd_range& range) {
  if (range.count == 0) return;
  if (!read_.empty() && read_.back().tensor == range.tensor &&
      read_.back().begin + read_.back().count == range.begin) {
    read_.back().count += range.count;
  } else {
    read_.push_back({range.tensor, range.begin, range.count});
  }
}

Result<void> TensorService::Item::check_whole() const {
  std::vector<plugin::PlanNeed> sorted = read_;
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return std::pair(a.tensor, a.begin) < std::pair(b.tensor, b.begin);
  });
  for (const plugin::PlanNeed& need : item_.needs) {
    uint64_t at = need.begin;
    const uint64_t end = need.begin + need.count;
    auto range = std::partition_point(sorted.begin(), sorted.end(), [&](const plugin::PlanNeed& r) {
      return r.tensor < need.tensor;
    });
    for (; range != sorted.end() && range->tensor == need.tensor && range->begin <= at; ++range)
      at = std::max(at, range->begin + range->count);
    if (at >= end) continue;
    return Error{XD_INTERNAL,
                 cat("expected all of tensor \"",
                     base::printable(service_.model_.manifest().tensors[need.tensor].name),
                     "\" to be read that the item's plan needs, up to element ", end,
                     ", found none read from ", at)};
  }
  return {};
}

}  // namespace crossdock::convert
