// SPDX-License-Identifier: Apache-2.0
#include "core/convert/tensor_digests.h"

#include "core/model/check.h"

#include <algorithm>

namespace crossdock::convert {

TensorDigests::TensorDigests(const manifest::Manifest& manifest, uint64_t seam_bytes)
    : seam_room_(static_cast<int64_t>(seam_bytes)) {
  for (const manifest::Tensor& t : manifest.tensors)
    trees_.emplace_back(model::value_bytes(t), &seam_room_);
}

std::vector<std::string> TensorDigests::texts() const {
  std::vector<std::string> out;
  for (const io::TreeDigest& tree : trees_) out.push_back(tree.text());
  return out;
}

Result<void> read_missing(TensorSource& model, uint64_t tensor, io::TreeDigest& digest,
                          const std::atomic<bool>& cancelled) {
  const auto missing = digest.missing();
  if (missing.empty()) return {};
  const manifest::Tensor& t = model.manifest().tensors[tensor];
  const base::Block buffer(model.host().memory(), kDigestMemory);
  if (!buffer.data)
    return Error{XD_NO_MEMORY, "expected room for a piece of a tensor: raise --memory"};
  // Eight elements fill whole bytes whatever their type, and leaves too, but for six bits.
  const uint64_t eight = manifest::info(t.dtype).bits;
  const uint64_t step = kDigestMemory / eight * eight;
  for (const io::ByteRange& range : missing) {
    const uint64_t end = std::min((range.end + eight - 1) / eight * eight, digest.size());
    io::TreeDigest::Run run(digest, range.begin / eight * eight);
    while (run.position() < end) {
      if (cancelled) return Error{XD_CANCELLED, "cancelled"};
      const uint64_t begin = run.position();
      const std::span<std::byte> bytes(buffer.data, std::min(step, end - begin));
      const uint64_t begin_elem = begin / eight * 8, n_elems = bytes.size() * 8 / eight;
      if (auto r = model.read(tensor, begin_elem, n_elems, bytes); !r)
        return std::move(r).error().in(cat("tensor \"", t.name, '"'));
      run.add(bytes);
      model.host().add_done(bytes.size());
    }
    run.hand_in();
  }
  return {};
}

}  // namespace crossdock::convert
