// SPDX-License-Identifier: Apache-2.0
#include "core/convert/inspect.h"

#include "core/convert/scheduler.h"
#include "core/convert/tensor_digests.h"
#include "core/io/sha256.h"
#include "core/model/check.h"

#include <algorithm>

namespace crossdock::convert {

namespace {

Result<std::string> sha256_of(TensorSource& model, uint64_t tensor,
                              const std::atomic<bool>& cancelled) {
  const manifest::Tensor& t = model.manifest().tensors[tensor];
  const base::Block piece(model.host().memory(), kDigestMemory);
  if (!piece.data)
    return Error{XD_NO_MEMORY, "expected room for a piece of a tensor: raise --memory"};
  io::Sha256 sum;
  // Whole bytes at a time: eight sub-byte elements always fill some.
  const uint64_t step = kDigestMemory * 8 / manifest::info(t.dtype).bits / 8 * 8;
  const uint64_t count = model::element_count(t);
  for (uint64_t begin = 0; begin < count; begin += step) {
    if (cancelled) return Error{XD_CANCELLED, "cancelled"};
    const uint64_t n = std::min(step, count - begin);
    const std::span<std::byte> bytes(piece.data, *manifest::dense_bytes(t.dtype, n));
    if (auto r = model.read(tensor, begin, n, bytes); !r)
      return std::move(r).error().in(cat("tensor \"", t.name, '"'));
    sum.update(bytes);
    model.host().add_done(bytes.size());
  }
  return sum.finish();
}

Result<std::string> tree_of(TensorSource& model, uint64_t tensor,
                            const std::atomic<bool>& cancelled) {
  io::TreeDigest digest(model::value_bytes(model.manifest().tensors[tensor]));
  XD_TRY(read_missing(model, tensor, digest, cancelled));
  return digest.text();
}

}  // namespace

Result<std::vector<std::string>> digest_tensors(
    TensorSource& model, DigestKind kind, unsigned threads, const std::atomic<bool>& cancelled,
    const std::function<void(uint64_t done, uint64_t total)>& progress) {
  const auto& tensors = model.manifest().tensors;
  std::vector<std::string> digests(tensors.size());
  uint64_t total = 0;
  for (const auto& t : tensors) total += model::value_bytes(t);
  Schedule schedule;
  schedule.threads = threads;
  schedule.memory.assign(tensors.size(), kDigestMemory + model.scratch_bytes());
  schedule.run = [&](size_t i) -> Result<void> {
    XD_TRY_SET(digests[i], kind == DigestKind::kSha256 ? sha256_of(model, i, cancelled)
                                                       : tree_of(model, i, cancelled));
    return {};
  };
  schedule.on_tick = [&] {
    if (progress) progress(model.host().done_bytes(), total);
  };
  XD_TRY(run_schedule(schedule, model.host().memory(), cancelled));
  return digests;
}

}  // namespace crossdock::convert
