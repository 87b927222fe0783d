// SPDX-License-Identifier: Apache-2.0

// Reads elements of a stored tensor as dense values: whole blocks are read, decoded, and cut to
// what was asked for.
#pragma once

#include <crossdock/plugin.hpp>

#include "plugins/reader_gguf/checkpoint.h"

namespace crossdock::reader_gguf {

// F32, BF16 or F16 for what decodes to floats; integers and F64 stay as they are.
manifest::DType value_type(const GgmlType& type, manifest::DType floats);
// Whether the stored bytes are the values.
bool is_stored_plainly(const GgmlType& type, manifest::DType floats, bool big_endian);
// Of a type that decodes to floats: n values that begin `skip` elements into the first block, as
// F32, BF16 or F16.
void decode(const GgmlType& type, manifest::DType dtype, const uint8_t* blocks, uint64_t skip,
            uint64_t n, std::byte* out);
// Whether the order of bytes inside this type's blocks is known for big-endian files.
bool can_swap(const GgmlType& type);

// The most bytes of buffers that read_values() takes.
inline constexpr uint64_t kStoredBytes = 1 << 20;
// Fills `out` with elements [begin, begin + count), which lie inside the tensor. `floats`: as
// value_type.
Result<void> read_values(const Host& host, const Source& source, const TensorInfo& t,
                         bool big_endian, manifest::DType floats, uint64_t begin, uint64_t count,
                         std::span<std::byte> out);

}  // namespace crossdock::reader_gguf
