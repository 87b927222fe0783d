#include "plugins/reader_gguf/values.h"

#include <crossdock/bytes.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

namespace crossdock::reader_gguf {

namespace {

using manifest::DType;

constexpr uint64_t kStoredBytes = 1 << 20;  // read at once
constexpr uint64_t kDecoded = 4096;  // values that stay in cache on their way to 16 bits; whole blocks of any type
static_assert(kDecoded % kMaxBlockElems == 0);

uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 64);  // quiet
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// To nearest, ties to even: the hardware's float addition rounds subnormals, integer addition the rest.
uint16_t to_f16(float value) {
  constexpr uint32_t kInfinity = 0x7f800000, kOverflow = (127 + 16) << 23, kLeastNormal = (127 - 14) << 23;
  const auto all = std::bit_cast<uint32_t>(value);
  const uint32_t sign = all >> 16 & 0x8000, bits = all & 0x7fffffff;
  if (bits >= kOverflow) {
    const uint32_t nan = bits > kInfinity ? 0x200 | (bits >> 13 & 0x3ff) : 0;
    return static_cast<uint16_t>(sign | 0x7c00 | nan);
  }
  if (bits < kLeastNormal) {
    const float rounded = std::bit_cast<float>(bits) + 0.5f;  // whose last bit is worth 2^-24
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - 0x3f000000));
  }
  const uint32_t rounded = bits + 0xfff + (bits >> 13 & 1);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - ((127 - 15) << 10)));
}

void put_rounded(const float* values, uint64_t n, DType dtype, std::byte* out) {
  for (uint64_t i = 0; i < n; ++i) {
    const uint16_t rounded = dtype == DType::BF16 ? to_bf16(values[i]) : to_f16(values[i]);
    std::memcpy(out + 2 * i, &rounded, 2);
  }
}

void swap_at(std::byte* at, size_t n) { std::reverse(at, at + n); }

// The fields of more than one byte, in the types for which gguf-py's gguf_convert_endian.py knows them.
struct Swapped {
  std::string_view type;
  uint32_t bytes;                // of each field
  std::vector<uint32_t> fields;  // offsets in a block
};
const Swapped* find_swapped(const GgmlType& type) {
  static const Swapped kKnown[] = {{"F32", 4, {0}},  {"F16", 2, {0}},  {"BF16", 2, {0}},    {"F64", 8, {0}},
                                   {"I8", 1, {}},    {"I16", 2, {0}},  {"I32", 4, {0}},     {"I64", 8, {0}},
                                   {"Q4_0", 2, {0}}, {"Q8_0", 2, {0}}, {"Q4_K", 2, {0, 2}}, {"Q6_K", 2, {208}},
                                   {"MXFP4", 1, {}}, {"NVFP4", 1, {}}};
  const auto* it =
      std::find_if(std::begin(kKnown), std::end(kKnown), [&](const Swapped& s) { return s.type == type.name; });
  return it == std::end(kKnown) ? nullptr : it;
}
void swap_blocks(const GgmlType& type, std::span<std::byte> stored) {
  const Swapped* known = find_swapped(type);
  if (!known) return;
  for (uint64_t at = 0; at < stored.size(); at += type.block_bytes) {
    for (const uint32_t field : known->fields) swap_at(&stored[at + field], known->bytes);
  }
}

class Decoder {
 public:
  Decoder(const GgmlType& type, DType dtype) : type_(type), dtype_(dtype) {}

  // Of n values that begin `skip` elements into the first block.
  void decode(const uint8_t* blocks, uint64_t skip, uint64_t n, std::byte* out) const {
    const uint64_t elems = type_.block_elems;
    const bool straight = dtype_ == DType::F32 && reinterpret_cast<uintptr_t>(out) % alignof(float) == 0;
    while (n > 0) {
      if (straight && skip == 0 && n >= elems) {
        type_.decode(blocks, reinterpret_cast<float*>(out), n / elems);
        blocks += n / elems * type_.block_bytes;
        out += n / elems * elems * sizeof(float);
        n %= elems;
        continue;
      }
      alignas(64) float values[kDecoded];
      const uint64_t n_blocks = straight ? 1 : std::min(kDecoded / elems, (skip + n + elems - 1) / elems);
      type_.decode(blocks, values, n_blocks);
      const uint64_t usable = std::min(n, n_blocks * elems - skip);
      if (dtype_ == DType::F32) {
        std::memcpy(out, values + skip, usable * sizeof(float));
      } else {
        put_rounded(values + skip, usable, dtype_, out);
      }
      blocks += n_blocks * type_.block_bytes;
      out += usable * (dtype_ == DType::F32 ? 4 : 2);
      n -= usable;
      skip = 0;
    }
  }

 private:
  const GgmlType& type_;
  const DType dtype_;
};

}  // namespace

DType value_type(const GgmlType& type, DType floats) { return type.decode ? floats : type.plain; }

bool is_stored_plainly(const GgmlType& type, DType floats, bool big_endian) {
  return type.plain == value_type(type, floats) && (!big_endian || type.block_bytes == 1);
}

bool can_swap(const GgmlType& type) { return find_swapped(type) != nullptr; }

Result<void> read_values(const Host& host, const Source& source, const TensorInfo& t, bool big_endian, DType floats,
                         uint64_t begin, uint64_t count, std::span<std::byte> out) {
  const GgmlType& type = *t.type;
  const DType dtype = value_type(type, floats);
  if (dtype == type.plain) {
    XD_TRY(source.read(host, t.offset + begin * type.block_bytes, out));
    if (big_endian) swap_blocks(type, out);
    return {};
  }
  const uint64_t elems = type.block_elems, first = begin / elems, end = (begin + count + elems - 1) / elems;
  const uint64_t at_once = std::max<uint64_t>(std::min(kStoredBytes, host.piece_bytes()) / type.block_bytes, 1);
  XD_TRY_SET(const Buffer buffer, Buffer::make(host, std::min(at_once, end - first) * type.block_bytes));
  const Decoder decoder(type, dtype);
  const uint64_t out_bytes = manifest::info(dtype).bits / 8;
  uint64_t done = 0;
  for (uint64_t block = first; block < end; block += at_once) {
    const uint64_t n_blocks = std::min(at_once, end - block);
    const auto stored = buffer.span().first(n_blocks * type.block_bytes);
    XD_TRY(source.read(host, t.offset + block * type.block_bytes, stored));
    if (big_endian) swap_blocks(type, stored);
    const uint64_t skip = begin + done - block * elems;
    const uint64_t n = std::min(count - done, n_blocks * elems - skip);
    decoder.decode(reinterpret_cast<const uint8_t*>(stored.data()), skip, n, out.data() + done * out_bytes);
    done += n;
  }
  return {};
}

}  // namespace crossdock::reader_gguf
