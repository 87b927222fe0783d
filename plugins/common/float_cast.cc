// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/float_cast.h"

#include <crossdock/config_text.hpp>

#include <algorithm>

#include "plugins/common/infinities.h"
#include "plugins/common/quote.h"

namespace crossdock::common {
namespace {

using manifest::DType;

constexpr uint64_t kLargestElement = 16;

// As --dtype spells it.
std::string_view flag_name(DType dtype) {
  return dtype == DType::BF16 ? "bf16" : dtype == DType::F16 ? "fp16" : "fp32";
}

// As config.json spells it.
std::string_view torch_name(DType dtype) {
  return dtype == DType::BF16 ? "bfloat16" : dtype == DType::F16 ? "float16" : "float32";
}

// By the largest finite value.
int range_rank(DType dtype) {
  return dtype == DType::F16 ? 0 : dtype == DType::BF16 ? 1 : dtype == DType::F32 ? 2 : 3;
}

}  // namespace

FloatCast FloatCast::from(const Options& options) {
  const std::string dtype = options.text("dtype");
  return {dtype == "bf16"   ? DType::BF16
          : dtype == "fp16" ? DType::F16
          : dtype == "fp32" ? DType::F32
                            : DType::UNSPECIFIED,
          options.flag("allow-overflow")};
}

Result<CastTensor> cast_tensor(const manifest::Tensor& tensor, uint64_t index, FloatCast cast) {
  CastTensor out;
  out.tensor = index;
  const bool is_float = manifest::info(tensor.dtype).kind == manifest::Kind::kFloat;
  out.dtype = is_float && cast.dtype != DType::UNSPECIFIED ? cast.dtype : tensor.dtype;
  out.is_cast = out.dtype != tensor.dtype;
  out.may_overflow = out.is_cast && range_rank(out.dtype) < range_rank(tensor.dtype);
  const auto n_elems = checked_product(tensor.shape);
  const auto n_bytes = n_elems ? manifest::dense_bytes(out.dtype, *n_elems) : std::nullopt;
  if (!n_bytes)
    return unsupported(cat("expected a size in whole bytes below 2^64, found ",
                           manifest::name(out.dtype), " elements that have none"));
  out.n_elems = *n_elems;
  out.n_bytes = *n_bytes;
  return out;
}

xd_range range_of(const CastTensor& tensor, uint64_t begin, uint64_t count) {
  return dense_range(tensor.tensor, begin, count,
                     tensor.is_cast ? tensor.dtype : manifest::DType::UNSPECIFIED);
}

const manifest::AuxFile* find_config(const manifest::Manifest& model) {
  const auto it = std::ranges::find(model.aux_files, "config.json", &manifest::AuxFile::name);
  return it == model.aux_files.end() ? nullptr : &*it;
}

std::string changed_config(const manifest::Manifest& model, FloatCast cast) {
  const manifest::AuxFile* config = find_config(model);
  const auto* text = config ? std::get_if<manifest::Bytes>(&config->content) : nullptr;
  if (!text || cast.dtype == DType::UNSPECIFIED) return {};
  std::string changed = with_dtype(text->data, torch_name(cast.dtype));
  return changed == text->data ? std::string() : changed;
}

void Overflow::add(const Overflow& later) {
  if (n_values == 0) first = later.first;
  n_values += later.n_values;
}

Result<Overflow> count_overflow(const Host& host, const manifest::Manifest& model,
                                const CastTensor& tensor, uint64_t begin,
                                std::span<const std::byte> written, uint64_t memory) {
  Overflow out{count_infinities(written, tensor.dtype), tensor.tensor};
  if (out.n_values == 0) return out;
  const DType stored = model.tensors[tensor.tensor].dtype;
  const uint64_t elem_bytes = manifest::info(stored).bits / 8;
  const uint64_t count = written.size() / (manifest::info(tensor.dtype).bits / 8);
  XD_TRY_SET(const Buffer buffer,
             Buffer::make(host, std::min(memory, std::max(host.piece_bytes(), kLargestElement))));
  const uint64_t room = buffer.span().size() / elem_bytes;
  for (uint64_t done = 0; done < count;) {
    const uint64_t some = std::min(count - done, room);
    const auto values = buffer.span().first(some * elem_bytes);
    XD_TRY(read_tensor(host, dense_range(tensor.tensor, begin + done, some), values));
    out.n_values -= std::min(out.n_values, count_infinities(values, stored));
    done += some;
  }
  return out;
}

Result<void> report_overflow(const Host& host, const manifest::Manifest& model, FloatCast cast,
                             std::string_view file, const Overflow& overflow) {
  if (overflow.n_values == 0) return {};
  const std::string first =
      cat("the first in tensor ", in_quotes(model.tensors[overflow.first].target()));
  const std::string_view dtype = flag_name(cast.dtype);
  if (cast.allow_overflow) {
    host.log(XD_LOG_WARN, cat(file, ": ", overflow.n_values, " values beyond ", dtype,
                              " became infinite, ", first, " (--allow-overflow)."));
    return {};
  }
  const std::string_view wider = cast.dtype == DType::F16    ? "--dtype bf16 or fp32"
                                 : cast.dtype == DType::BF16 ? "--dtype fp32"
                                                             : "--dtype source";
  return unsupported(cat("--dtype ", dtype, ": expected values that ", dtype, " can hold, found ",
                         overflow.n_values, " beyond, ", first, ": use ", wider,
                         ", or --allow-overflow, with which they become infinite"));
}

}  // namespace crossdock::common
