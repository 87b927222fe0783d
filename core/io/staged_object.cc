// SPDX-License-Identifier: Apache-2.0
#include "core/io/staged_object.h"

#include "core/base/activity.h"

#include <algorithm>
#include <iterator>

namespace crossdock::io {

namespace {
// As many writers may take turns at one object, each in order, and still share no leaf with
// themselves.
constexpr size_t kMaxRuns = 16;
constexpr uint64_t kReadBackBytes = 256 << 10;
}  // namespace

Result<void> StagedObject::claim(uint64_t offset, uint64_t n) {
  const auto end = checked_add(offset, n);
  if (!end || *end > size_)
    return Error{XD_OUT_OF_RANGE, cat(name_, ": expected a write inside ", size_, " bytes, found ",
                                      n, " at ", offset)};
  if (n == 0) return {};
  auto next = written_.upper_bound({offset, 0});
  if ((next != written_.end() && next->begin < *end) ||
      (next != written_.begin() && std::prev(next)->end > offset)) {
    return Error{
        XD_INTERNAL,
        cat(name_, ": expected each byte to be written once, found a second write at ", offset)};
  }
  Written merged{offset, *end};
  if (next != written_.end() && next->begin == *end) {
    merged.end = next->end;
    next = written_.erase(next);
  }
  if (next != written_.begin() && std::prev(next)->end == offset) {
    merged.begin = std::prev(next)->begin;
    written_.erase(std::prev(next));
  }
  written_.insert(merged);
  return {};
}

std::unique_ptr<TreeDigest::Run> StagedObject::take_run(uint64_t offset) {
  const auto it = std::find_if(runs_.rbegin(), runs_.rend(),
                               [offset](const auto& run) { return run->position() == offset; });
  if (it == runs_.rend()) return std::make_unique<Run>(*digest_, offset);
  auto run = std::move(*it);
  runs_.erase(std::next(it).base());
  return run;
}

void StagedObject::give_back(std::unique_ptr<Run> run) {
  if (run->position() == size_) return;  // it has handed in all
  runs_.push_back(std::move(run));
  if (runs_.size() <= kMaxRuns) return;
  runs_.front()->hand_in();
  runs_.erase(runs_.begin());
}

// `add`: adds the n bytes to a run.
template <class Add>
Result<void> StagedObject::add(uint64_t offset, uint64_t n, std::vector<ByteRange>* written,
                               Add&& add) {
  std::unique_lock lock(mutex_);
  XD_TRY(claim(offset, n));
  if (n == 0) return {};
  if (written) {
    if (!written->empty() && written->back().end == offset) {
      written->back().end += n;
    } else {
      written->push_back({offset, offset + n});
    }
  }
  if (!digest_) return {};
  auto run = take_run(offset);
  lock.unlock();
  {
    const base::Span span(base::Activity::kDigest);
    add(*run);
  }
  lock.lock();
  give_back(std::move(run));
  return {};
}

Result<void> StagedObject::write(uint64_t offset, std::span<const std::byte> bytes,
                                 std::vector<ByteRange>* written) {
  XD_TRY(add(offset, bytes.size(), written, [&](Run& run) { run.add(bytes); }));
  const base::Span span(base::Activity::kWrite);
  if (auto r = write_exact(os_, fd_.get(), offset, bytes); !r)
    return std::move(r).error().in(name_);
  return {};
}

Result<void> StagedObject::zero(uint64_t offset, uint64_t n, std::vector<ByteRange>* written) {
  return add(offset, n, written, [&](Run& run) { run.add_zeros(n); });
}

Result<void> StagedObject::take_as_written(std::span<const ByteRange> ranges,
                                           std::span<const TreeNode> nodes) {
  const std::lock_guard lock(mutex_);
  for (const ByteRange& range : ranges) {
    if (range.end < range.begin) return corrupt(cat(name_, ": expected ranges of bytes"));
    XD_TRY(claim(range.begin, range.end - range.begin));
  }
  if (digest_) digest_->add(nodes);
  return {};
}

std::vector<TreeNode> StagedObject::nodes_of(std::span<const ByteRange> ranges) {
  const std::lock_guard lock(mutex_);
  std::vector<TreeNode> out;
  if (!digest_) return out;
  for (const auto& run : runs_) run->hand_in();
  for (const ByteRange& range : ranges) {
    for (const TreeNode& node : digest_->nodes(range)) {
      if (out.empty() || out.back().end() <= node.first) out.push_back(node);
    }
  }
  return out;
}

uint64_t StagedObject::end() const {
  const std::lock_guard lock(mutex_);
  return written_.empty() ? 0 : written_.rbegin()->end;
}

Result<void> StagedObject::read(uint64_t offset, std::span<std::byte> out) const {
  if (out.empty()) return {};
  {
    const std::lock_guard lock(mutex_);
    auto range = written_.upper_bound({offset, 0});
    const bool begins_before = range == written_.end() || range->begin > offset;
    if (begins_before && range != written_.begin()) --range;
    if (range == written_.end() || range->begin > offset || range->end < offset ||
        out.size() > range->end - offset)
      return Error{XD_OUT_OF_RANGE, cat(name_, ": expected bytes that were written, found ",
                                        out.size(), " at ", offset)};
  }
  if (auto r = read_exact(os_, fd_.get(), offset, out); !r) return std::move(r).error().in(name_);
  return {};
}

Result<void> StagedObject::cut_to_size() {
  size_ = written_.empty() ? 0 : written_.rbegin()->end;
  if (os_.ftruncate(fd_.get(), size_) != 0)
    return os_error(cat("cut ", name_, " to ", size_, " bytes"));
  digest_.emplace(size_);
  return {};
}

Result<void> StagedObject::read_back(ByteRange range) {
  std::vector<std::byte> buffer(std::min(range.end - range.begin, kReadBackBytes));
  Run run(*digest_, range.begin);
  while (run.position() < range.end) {
    const auto piece =
        std::span(buffer).first(std::min<uint64_t>(buffer.size(), range.end - run.position()));
    if (auto r = read_exact(os_, fd_.get(), run.position(), piece); !r)
      return std::move(r).error().in(name_);
    run.add(piece);
  }
  run.hand_in();
  return {};
}

Result<std::string> StagedObject::seal() {
  const std::lock_guard lock(mutex_);
  if (!digest_) XD_TRY(cut_to_size());
  const bool whole = size_ == 0 || (written_.size() == 1 && written_.begin()->begin == 0 &&
                                    written_.begin()->end == size_);
  if (!whole) {
    const uint64_t gap =
        written_.empty() || written_.begin()->begin != 0 ? 0 : written_.begin()->end;
    return Error{XD_INTERNAL, cat(name_, ": expected all of ", size_,
                                  " bytes to be written, found none at ", gap)};
  }
  for (const auto& run : runs_) run->hand_in();
  runs_.clear();
  for (const ByteRange& range : digest_->missing()) XD_TRY(read_back(range));
  // Network file systems and quotas may tell only now that bytes were not taken.
  if (os_.close(fd_.release()) != 0) return os_error(name_);
  return digest_->text();
}

}  // namespace crossdock::io
