// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/crc32.h"

#include <crossdock/bytes.hpp>
#include <string>

#include "tests/catch.h"

using namespace crossdock;
using namespace crossdock::common;

TEST_CASE("crc32 of known texts") {
  CHECK(crc32({}) == 0);
  CHECK(crc32(as_bytes("123456789")) == 0xcbf43926);  // the check value of the CRC catalogues
  CHECK(crc32(as_bytes("The quick brown fox jumps over the lazy dog")) == 0x414fa339);
  CHECK(crc32(as_bytes("56789"), crc32(as_bytes("1234"))) == 0xcbf43926);
}

TEST_CASE("crc32_join equals the CRC of the whole") {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += static_cast<char>(i * 7 + i / 256);
  const uint32_t whole = crc32(as_bytes(text));
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{4095}, size_t{4096}, text.size()}) {
    const auto head = std::string_view(text).substr(0, cut),
               rest = std::string_view(text).substr(cut);
    CHECK(crc32_join(crc32(as_bytes(head)), crc32(as_bytes(rest)), rest.size()) == whole);
  }
}

TEST_CASE("crc32_zeros equals the CRC of real zeros") {
  for (const uint64_t n : {0u, 1u, 4u, 63u, 64u, 65u, 4096u, 1000003u}) {
    CHECK(crc32_zeros(n) == crc32(as_bytes(std::string(n, '\0'))));
  }
  const uint64_t tebi = uint64_t{1} << 40;  // past every 32-bit length
  CHECK(crc32_zeros(2 * tebi + 5) ==
        crc32_join(crc32_zeros(tebi), crc32_join(crc32_zeros(tebi), crc32_zeros(5), 5), tebi + 5));
}
