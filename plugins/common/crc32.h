// SPDX-License-Identifier: Apache-2.0

// CRC-32 of zip and gzip, of bytes, of bytes known only by the CRCs of their parts, and of zeros
// that nobody wrote.
//
//   uint32_t crc = crc32(head);
//   crc = crc32(more, crc);                                         // continues: the CRC of head +
//   more crc = crc32_join(crc, crc_of_rest, rest.size());                // of head + more + rest,
//   made by another thread crc = crc32_join(crc, crc32_zeros(1ull << 40), 1ull << 40);     // and a
//   hole of 1 TiB
//
// Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace crossdock::common {

uint32_t crc32(std::span<const std::byte> bytes, uint32_t crc = 0);
// The CRC of two pieces put together.
uint32_t crc32_join(uint32_t first, uint32_t second, uint64_t n_bytes_second);
// The CRC of n zero bytes. Its cost grows with log n: under a microsecond.
uint32_t crc32_zeros(uint64_t n_bytes);

}  // namespace crossdock::common
