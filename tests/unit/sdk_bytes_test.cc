// SPDX-License-Identifier: Apache-2.0
#include <crossdock/bytes.hpp>

#include <vector>

#include "tests/catch.h"

using crossdock::as_bytes;
using crossdock::as_text;
using crossdock::checked_add;
using crossdock::checked_mul;
using crossdock::checked_product;
using crossdock::Cursor;
using crossdock::put_le;
using crossdock::round_up;

namespace {
constexpr uint64_t kMax = UINT64_MAX;

std::optional<uint64_t> product(std::vector<uint64_t> shape) { return checked_product(shape); }
}  // namespace

TEST_CASE("checked arithmetic gives nothing on overflow") {
  CHECK(checked_add(kMax - 1, 1) == kMax);
  CHECK_FALSE(checked_add(kMax, 1));
  CHECK(checked_mul(kMax / 2, 2) == kMax - 1);
  CHECK_FALSE(checked_mul(uint64_t{1} << 32, uint64_t{1} << 32));
  CHECK(checked_mul(kMax, 0) == 0u);
}

TEST_CASE("the elements of a shape are multiplied from the left, as safetensors does") {
  CHECK(product({}) == 1u);  // a scalar
  CHECK(product({2, 3, 4}) == 24u);
  CHECK(product({0, kMax, kMax}) == 0u);
  CHECK_FALSE(product({kMax, 2, 0}));
}

TEST_CASE("round_up goes to the next multiple") {
  CHECK(round_up(0, 64) == 0);
  CHECK(round_up(1, 64) == 64);
  CHECK(round_up(64, 64) == 64);
}

TEST_CASE("integers are little-endian both ways") {
  std::string bytes;
  put_le<uint32_t>(bytes, 0x01020304);
  put_le<int64_t>(bytes, -2);
  CHECK(bytes.substr(0, 4) == "\x04\x03\x02\x01");
  Cursor in(as_bytes(bytes));
  CHECK(in.le<uint32_t>() == 0x01020304);
  CHECK(in.le<int64_t>() == -2);
  CHECK(in.done());
  CHECK_FALSE(in.failed());
}

TEST_CASE("a cursor never reads past its end, and stays failed") {
  Cursor in(as_bytes("abc"));
  CHECK(as_text(in.take(2)) == "ab");
  CHECK(in.left() == 1);
  CHECK(in.le<uint16_t>() == 0);
  CHECK(in.failed());
  CHECK(in.done());
  CHECK(in.take(1).empty());  // although a byte is left
  CHECK(in.offset() == 2);

  Cursor huge(as_bytes("abc"));
  CHECK(huge.take(kMax).empty());
  CHECK(huge.failed());

  Cursor none({});
  CHECK(none.take(0).empty());
  CHECK_FALSE(none.failed());
  CHECK(none.u8() == 0);
  CHECK(none.failed());
}

TEST_CASE("varints: every length, the largest value, and nothing beyond 64 bits") {
  const auto varint = [](std::string_view bytes) -> std::optional<uint64_t> {
    Cursor in(as_bytes(bytes));
    const uint64_t value = in.varint();
    if (in.failed() || in.left() != 0) return std::nullopt;
    return value;
  };
  const std::string nines(9, '\xff');
  CHECK(varint(std::string_view("\0", 1)) == 0u);
  CHECK(varint("\x7f") == 127u);
  CHECK(varint("\x80\x01") == 128u);
  CHECK(varint("\x80\x80\x01") == 1u << 14);
  CHECK(varint(std::string_view("\x81\x80\0", 3)) == 1u);  // longer than it need be
  CHECK(varint(nines + '\x01') == kMax);
  CHECK_FALSE(varint(nines + '\x02'));                  // a 65th bit
  CHECK_FALSE(varint(nines + '\xff' + '\x01'));         // an eleventh byte
  CHECK_FALSE(varint(std::string(10, '\x80') + '\0'));  // the same, of zeros
  CHECK_FALSE(varint("\x80"));                          // cut off
  CHECK_FALSE(varint(""));
}
