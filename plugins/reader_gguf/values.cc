// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_gguf/values.h"

#include <crossdock/bytes.hpp>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "plugins/reader_gguf/halves.h"

namespace crossdock::reader_gguf {

namespace {

using manifest::DType;

constexpr uint64_t kDecoded =
    4096;  // values that stay in cache on their way to 16 bits; whole blocks of any type
static_assert(kDecoded % kMaxBlockElems == 0);

void swap_at(std::byte* at, size_t n) { std::reverse(at, at + n); }

// The fields of more than one byte, in the types for which gguf-py's gguf_convert_endian.py knows
// them.
struct Swapped {
  std::string_view type;
  uint32_t bytes;                // of each field
  std::vector<uint32_t> fields;  // offsets in a block
};
const Swapped* find_swapped(const GgmlType& type) {
  static const Swapped kKnown[] = {
      {"F32", 4, {0}},     {"F16", 2, {0}},    {"BF16", 2, {0}}, {"F64", 8, {0}},  {"I8", 1, {}},
      {"I16", 2, {0}},     {"I32", 4, {0}},    {"I64", 8, {0}},  {"Q4_0", 2, {0}}, {"Q8_0", 2, {0}},
      {"Q4_K", 2, {0, 2}}, {"Q6_K", 2, {208}}, {"MXFP4", 1, {}}, {"NVFP4", 1, {}}};
  const auto* it = std::find_if(std::begin(kKnown), std::end(kKnown),
                                [&](const Swapped& s) { return s.type == type.name; });
  return it == std::end(kKnown) ? nullptr : it;
}
void swap_blocks(const GgmlType& type, std::span<std::byte> stored) {
  const Swapped* known = find_swapped(type);
  if (!known) return;
  for (uint64_t at = 0; at < stored.size(); at += type.block_bytes) {
    for (const uint32_t field : known->fields) swap_at(&stored[at + field], known->bytes);
  }
}

}  // namespace

DType value_type(const GgmlType& type, DType floats) { return type.decode ? floats : type.plain; }

bool is_stored_plainly(const GgmlType& type, DType floats, bool big_endian) {
  return type.plain == value_type(type, floats) && (!big_endian || type.block_bytes == 1);
}

void decode(const GgmlType& type, DType dtype, const uint8_t* blocks, uint64_t skip, uint64_t n,
            std::byte* out) {
  const uint64_t elems = type.block_elems;
  if (type.plain == DType::F16 && dtype == DType::BF16)
    return f16_to_bf16(blocks + 2 * skip, n, out);
  const bool straight =
      dtype == DType::F32 && reinterpret_cast<uintptr_t>(out) % alignof(float) == 0;
  while (n > 0) {
    if (straight && skip == 0 && n >= elems) {
      type.decode(blocks, reinterpret_cast<float*>(out), n / elems);
      blocks += n / elems * type.block_bytes;
      out += n / elems * elems * sizeof(float);
      n %= elems;
      continue;
    }
    alignas(64) float values[kDecoded];
    const uint64_t n_blocks =
        straight ? 1 : std::min(kDecoded / elems, (skip + n + elems - 1) / elems);
    type.decode(blocks, values, n_blocks);
    const uint64_t usable = std::min(n, n_blocks * elems - skip);
    if (dtype == DType::F32) {
      std::memcpy(out, values + skip, usable * sizeof(float));
    } else if (dtype == DType::BF16) {
      round_to_bf16(values + skip, usable, out);
    } else {
      round_to_f16(values + skip, usable, out);
    }
    blocks += n_blocks * type.block_bytes;
    out += usable * (dtype == DType::F32 ? 4 : 2);
    n -= usable;
    skip = 0;
  }
}

bool can_swap(const GgmlType& type) { return find_swapped(type) != nullptr; }

Result<void> read_values(const Host& host, const Source& source, const TensorInfo& t,
                         bool big_endian, DType floats, uint64_t begin, uint64_t count,
                         std::span<std::byte> out) {
  const GgmlType& type = *t.type;
  const DType dtype = value_type(type, floats);
  if (dtype == type.plain) {
    XD_TRY(source.read(host, t.offset + begin * type.block_bytes, out));
    if (big_endian) swap_blocks(type, out);
    return {};
  }
  const uint64_t elems = type.block_elems, first = begin / elems,
                 end = (begin + count + elems - 1) / elems;
  const uint64_t at_once =
      std::max<uint64_t>(std::min(kStoredBytes, host.piece_bytes()) / type.block_bytes, 1);
  XD_TRY_SET(const Buffer buffer,
             Buffer::make(host, std::min(at_once, end - first) * type.block_bytes));
  const uint64_t out_bytes = manifest::info(dtype).bits / 8;
  uint64_t done = 0;
  for (uint64_t block = first; block < end; block += at_once) {
    const uint64_t n_blocks = std::min(at_once, end - block);
    const auto stored = buffer.span().first(n_blocks * type.block_bytes);
    XD_TRY(source.read(host, t.offset + block * type.block_bytes, stored));
    if (big_endian) swap_blocks(type, stored);
    const uint64_t skip = begin + done - block * elems;
    const uint64_t n = std::min(count - done, n_blocks * elems - skip);
    decode(type, dtype, reinterpret_cast<const uint8_t*>(stored.data()), skip, n,
           out.data() + done * out_bytes);
    done += n;
  }
  return {};
}

}  // namespace crossdock::reader_gguf
