// SPDX-License-Identifier: Apache-2.0

// The opcodes are those that torch's weights_only reader and libtorch's C++ reader both accept (the
// latter takes LONG1 only with eight bytes). Unlike Python's pickler this one keeps no memo:
// nothing that we emit is shared or cyclic.
//
// A tensor is _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks) over
// a typed storage class. Types younger than those classes have none: torch saves them as bytes,
// with _rebuild_tensor_v3(..., dtype).
#include "plugins/torch/write/pickle_writer.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace crossdock::torch_write {

using manifest::DType;

namespace {

struct TorchType {
  std::string_view dtype;    // in module torch
  std::string_view storage;  // the class in module torch; empty: none, so v3
};

// torch.storage._dtype_to_storage_type_map() and _new_dtypes() of torch 2.13.
TorchType torch_type(DType dtype) {
  switch (dtype) {
    case DType::BOOL:
      return {"bool", "BoolStorage"};
    case DType::U8:
      return {"uint8", "ByteStorage"};
    case DType::I8:
      return {"int8", "CharStorage"};
    case DType::I16:
      return {"int16", "ShortStorage"};
    case DType::I32:
      return {"int32", "IntStorage"};
    case DType::I64:
      return {"int64", "LongStorage"};
    case DType::F16:
      return {"float16", "HalfStorage"};
    case DType::BF16:
      return {"bfloat16", "BFloat16Storage"};
    case DType::F32:
      return {"float32", "FloatStorage"};
    case DType::F64:
      return {"float64", "DoubleStorage"};
    case DType::C64:
      return {"complex64", "ComplexFloatStorage"};
    case DType::C128:
      return {"complex128", "ComplexDoubleStorage"};
    case DType::U16:
      return {"uint16", ""};
    case DType::U32:
      return {"uint32", ""};
    case DType::U64:
      return {"uint64", ""};
    case DType::F8_E4M3:
      return {"float8_e4m3fn", ""};
    case DType::F8_E5M2:
      return {"float8_e5m2", ""};
    case DType::F8_E4M3FNUZ:
      return {"float8_e4m3fnuz", ""};
    case DType::F8_E5M2FNUZ:
      return {"float8_e5m2fnuz", ""};
    case DType::F8_E8M0:
      return {"float8_e8m0fnu", ""};
    case DType::C32:
      return {"complex32", ""};
    default:
      return {};
  }
}

uint64_t product(std::span<const uint64_t> shape) {
  uint64_t n = 1;
  for (const uint64_t dim : shape) n *= dim;
  return n;
}

}  // namespace

bool torch_has(DType dtype) { return !torch_name(dtype).empty(); }

std::string_view torch_name(DType dtype) { return torch_type(dtype).dtype; }

PickledTensor PickledTensor::dense(DType dtype, std::vector<uint64_t> shape, uint64_t storage) {
  std::vector<int64_t> strides(shape.size());
  uint64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = static_cast<int64_t>(stride);
    stride *= std::max<uint64_t>(shape[i], 1);  // as torch does for empty tensors
  }
  const uint64_t n_elems = product(shape);
  return {dtype, std::move(shape), std::move(strides), storage, n_elems, 0};
}

PickledTensor PickledTensor::repeated(DType dtype, std::vector<uint64_t> shape, uint64_t storage) {
  std::vector<int64_t> strides(shape.size(), 0);
  return {dtype, std::move(shape), std::move(strides), storage, 1, 0};
}

void PickleWriter::integer(int64_t value) {
  if (value >= 0 && value <= 0xff) {
    out_ += 'K';
    put_le(out_, static_cast<uint8_t>(value));
  } else if (value >= 0 && value <= 0xffff) {
    out_ += 'M';
    put_le(out_, static_cast<uint16_t>(value));
  } else if (value >= std::numeric_limits<int32_t>::min() &&
             value <= std::numeric_limits<int32_t>::max()) {
    out_ += 'J';
    put_le(out_, static_cast<int32_t>(value));
  } else {
    out_ += "\x8a\x08";
    put_le(out_, value);
  }
}

void PickleWriter::put(double value) {
  out_ += 'G';
  put_le(out_, __builtin_bswap64(std::bit_cast<uint64_t>(value)));
}

void PickleWriter::remember(size_t begin) {
  if (!has_memo_) return;
  const auto [it, is_new] =
      memo_.try_emplace(out_.substr(begin), static_cast<uint32_t>(memo_.size()));
  if (!is_new) out_.resize(begin);
  const bool is_short = it->second <= 0xff;
  out_ += is_new ? is_short ? 'q' : 'r' : is_short ? 'h' : 'j';
  if (is_short) {
    put_le(out_, static_cast<uint8_t>(it->second));
  } else {
    put_le(out_, it->second);
  }
}

void PickleWriter::put(std::string_view text) {
  const size_t begin = out_.size();
  out_ += 'X';
  put_le(out_, static_cast<uint32_t>(text.size()));
  out_ += text;
  remember(begin);
}

void PickleWriter::global(std::string_view module, std::string_view name) {
  const size_t begin = out_.size();
  out_ += 'c';
  out_ += module;
  out_ += '\n';
  out_ += name;
  out_ += '\n';
  remember(begin);
}

template <class Number>
void PickleWriter::integers(const std::vector<Number>& values) {
  tuple([&] {
    for (const Number value : values) put(value);
  });
}

void PickleWriter::torch_size(std::span<const uint64_t> shape) {
  call("torch", "Size", [&] {
    tuple([&] {
      for (const uint64_t dim : shape) put(dim);
    });
  });
}

void PickleWriter::put(const PickledTensor& tensor) {
  const TorchType type = torch_type(tensor.dtype);
  const bool typed = !type.storage.empty();
  global("torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  tuple([&] {
    tuple([&] {
      put("storage");
      global(typed ? "torch" : "torch.storage", typed ? type.storage : "UntypedStorage");
      put(std::to_string(tensor.storage));
      put("cpu");
      put(typed ? tensor.n_elems : tensor.n_elems * (info(tensor.dtype).bits / 8));
    });
    out_ += 'Q';
    put(tensor.offset);
    integers(tensor.shape);
    integers(tensor.strides);
    put(false);  // requires_grad
    ordered_dict([] {});
    if (!typed) global("torch", type.dtype);
  });
  out_ += 'R';
}

}  // namespace crossdock::torch_write
