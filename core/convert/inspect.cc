#include "core/convert/inspect.h"

#include "core/convert/scheduler.h"
#include "core/model/check.h"

#include <algorithm>

namespace crossdock::convert {

namespace {
constexpr uint64_t kPieceBytes = 1 << 20;
}  // namespace

Result<std::string> digest_tensor(TensorSource& model, uint64_t index, io::DigestKind kind,
                                  const std::atomic<bool>& cancelled) {
  const manifest::Tensor& t = model.manifest().tensors[index];
  const base::Block piece(model.host().memory(), kPieceBytes);
  if (!piece.data)
    return Error{XD_NO_MEMORY, "expected room for a piece of a tensor: raise --memory"};
  io::Digest digest(kind);
  // Whole bytes at a time: eight sub-byte elements always fill some.
  const uint64_t step = kPieceBytes * 8 / manifest::info(t.dtype).bits / 8 * 8;
  const uint64_t count = model::element_count(t);
  for (uint64_t begin = 0; begin < count; begin += step) {
    if (cancelled) return Error{XD_CANCELLED, "cancelled"};
    const uint64_t n = std::min(step, count - begin);
    const std::span<std::byte> bytes(piece.data, *manifest::dense_bytes(t.dtype, n));
    if (auto r = model.read(index, begin, n, bytes); !r)
      return std::move(r).error().in(cat("tensor \"", t.name, '"'));
    digest.update(bytes);
    model.host().add_done(bytes.size());
  }
  return digest.finish();
}

Result<std::vector<std::string>> digest_tensors(
    TensorSource& model, io::DigestKind kind, unsigned threads, const std::atomic<bool>& cancelled,
    const std::function<void(uint64_t done, uint64_t total)>& progress) {
  const auto& tensors = model.manifest().tensors;
  std::vector<std::string> digests(tensors.size());
  uint64_t total = 0;
  for (const auto& t : tensors) total += model::value_bytes(t);
  Schedule schedule;
  schedule.threads = threads;
  schedule.memory.assign(tensors.size(), kPieceBytes + model.scratch_bytes());
  schedule.run = [&](size_t i) -> Result<void> {
    XD_TRY_SET(digests[i], digest_tensor(model, i, kind, cancelled));
    return {};
  };
  schedule.on_tick = [&] {
    if (progress) progress(model.host().done_bytes(), total);
  };
  XD_TRY(run_schedule(schedule, model.host().memory(), cancelled));
  return digests;
}

}  // namespace crossdock::convert
