// SPDX-License-Identifier: Apache-2.0

// Bounded reading and checked arithmetic: the only way that file bytes become numbers.
//
// A Cursor borrows its bytes and never reads past them: the first read that would fail marks it
// `failed()`, and from then on every read gives zero or nothing. So a parser may read a group of
// fields and test once. All integers in files that we meet are little-endian; the host is too
// (checked below), so loads are plain copies.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace crossdock {

static_assert(std::endian::native == std::endian::little,
              "crossdock is written for little-endian hosts");

inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// Elements of a shape, multiplied from the left as the safetensors reference does: {0, huge} is 0,
// {huge, 2, 0} overflows.
inline std::optional<uint64_t> checked_product(std::span<const uint64_t> shape) {
  uint64_t product = 1;
  for (uint64_t dim : shape) {
    if (__builtin_mul_overflow(product, dim, &product)) return std::nullopt;
  }
  return product;
}

constexpr uint64_t round_up(uint64_t n, uint64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Appends an integer in little-endian order.
template <class T>
void put_le(std::string& out, T value) {
  static_assert(std::is_integral_v<T>);
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  out.append(raw, sizeof(T));
}

class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t offset() const { return at_; }
  uint64_t left() const { return bytes_.size() - at_; }
  bool done() const { return failed_ || left() == 0; }
  bool failed() const { return failed_; }

  template <class T>
  T le() {
    T value{};
    if (const auto raw = take(sizeof(T)); raw.size() == sizeof(T))
      std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }
  uint8_t u8() { return le<uint8_t>(); }

  // The next n bytes, borrowed; empty, and the cursor failed, when fewer are left.
  std::span<const std::byte> take(uint64_t n) {
    if (failed_ || n > left()) {
      failed_ = true;
      return {};
    }
    const auto out = bytes_.subspan(at_, n);
    at_ += n;
    return out;
  }

  // A protobuf varint: at most ten bytes, and no more than 64 bits.
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      const uint8_t byte = u8();
      if (failed_ || (shift == 63 && byte > 1)) break;
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    failed_ = true;
    return 0;
  }

  void fail() { failed_ = true; }

 private:
  std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
  bool failed_ = false;
};

}  // namespace crossdock
