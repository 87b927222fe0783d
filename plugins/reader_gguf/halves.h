// SPDX-License-Identifier: Apache-2.0

// Whole arrays of 16-bit floats, by the F16C and AVX2 instructions where there are any: the same
// bits either way.
#pragma once

#include <cstddef>
#include <cstdint>

namespace crossdock::reader_gguf {

// Little-endian F16 to float32: exact, and NaN with all of its bits, which the instruction alone
// would make quiet.
void decode_f16(const uint8_t* in, float* out, uint64_t n);

// To nearest, ties to even; NaN is made quiet, and keeps the top of its payload. Any alignment of
// `out`.
void round_to_f16(const float* values, uint64_t n, std::byte* out);
void round_to_bf16(const float* values, uint64_t n, std::byte* out);
// Both at once.
void f16_to_bf16(const uint8_t* in, uint64_t n, std::byte* out);

}  // namespace crossdock::reader_gguf
