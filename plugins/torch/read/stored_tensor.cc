// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/read/stored_tensor.h"

#include "plugins/common/read_range.h"

#include <algorithm>

namespace crossdock::torch_read {

using manifest::DType;

namespace {

Result<void> check_size(const StoredTensor& t, const Record& record) {
  if (t.strides.empty()) return {};
  const uint64_t n_bytes = t.n_elems() * t.elem_bytes();
  if (n_bytes > record.n_bytes && n_bytes > kMaxRepeatedBytes) {
    return unsupported(cat("expected a view that repeats its values to have at most ",
                           kMaxRepeatedBytes, " bytes, found ", n_bytes, " of a storage of ",
                           record.n_bytes, ": save it with .contiguous()"));
  }
  if (record.deflated && record.n_bytes > kMaxInflatedView) {
    return unsupported(
        cat("expected a strided tensor to lie in a plain record, found a deflated one of ",
            record.n_bytes, " bytes: load it in Python and torch.save it again"));
  }
  return {};
}

// Each element's bytes the other way round; a complex one is two numbers.
void swap_bytes(DType dtype, std::span<std::byte> values) {
  const auto& info = manifest::info(dtype);
  const size_t size = info.bits / 8 / (info.kind == manifest::Kind::kComplex ? 2 : 1);
  for (size_t at = 0; at < values.size(); at += size) std::reverse(&values[at], &values[at] + size);
}

}  // namespace

Result<StoredTensor> StoredTensor::of(const TorchFile& file, const Tensor& t) {
  StoredTensor out{t.dtype, t.shape, {}, t.offset, 0};
  if (!t.is_dense()) out.strides = t.strides;
  XD_TRY_SET(out.record, file.find_storage(file.pickle().storage(t.storage)));
  XD_TRY(check_size(out, file.record(out.record)));
  return out;
}

// Where the stored bytes lie: of a plain dense tensor exactly its own, else of its whole record.
void StoredTensor::describe(const TorchFile& file, uint32_t index, manifest::Tensor& out) const {
  const Record& record_of = file.record(record);
  out.dtype = dtype;
  out.shape = shape;
  if (!strides.empty()) {
    out.strides.assign(strides.begin(), strides.end());
    out.storage_offset = offset;
    out.storage_elements = record_of.n_bytes / elem_bytes();
  }
  const bool swapped = file.big_endian() && elem_bytes() > 1;
  out.extents = {{index, record_of.offset, record_of.n_stored}};
  if (record_of.deflated || swapped) {
    out.encoding = record_of.deflated ? swapped ? "deflate, big-endian" : "deflate" : "big-endian";
  } else if (strides.empty()) {
    out.extents = {{index, record_of.offset + offset * elem_bytes(), n_elems() * elem_bytes()}};
  }
}

Result<void> StoredTensor::read(const Host& host, TorchFile& file, const xd_range& range,
                                std::span<std::byte> out) const {
  const Record& record_of = file.record(record);
  const bool whole = !strides.empty();  // elements are counted from the storage's first
  XD_TRY(
      common::check_dense(range, dtype, whole ? record_of.n_bytes / elem_bytes() : n_elems(), out));
  if (range.count == 0) return {};
  const uint64_t first = whole ? range.begin : offset + range.begin;
  XD_TRY(file.reader().read(host, record_of, first * elem_bytes(), out));
  if (file.big_endian() && elem_bytes() > 1) swap_bytes(dtype, out);
  return {};
}

}  // namespace crossdock::torch_read
