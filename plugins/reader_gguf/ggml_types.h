// SPDX-License-Identifier: Apache-2.0

// The element types of GGUF files, and how their blocks become float32.
//
// Source: ggml/include/ggml.h (enum ggml_type), ggml/src/ggml-common.h (the blocks), ggml-quants.c
// (dequantize_row_*). The values are ggml's own bit for bit: the same operations in the same order,
// without contraction to fused ones.
#pragma once

#include <crossdock/dtype.hpp>

#include <cstdint>
#include <string>

namespace crossdock::reader_gguf {

struct GgmlType {
  uint32_t id = 0;
  const char* name = nullptr;
  uint32_t block_elems = 1;
  uint32_t block_bytes = 0;
  // What it is when stored plainly; unspecified for blocks of codes.
  manifest::DType plain = manifest::DType::UNSPECIFIED;
  // Of n blocks to n * block_elems values; nullptr for integers and F64, which stay as they are.
  void (*decode)(const uint8_t* blocks, float* out, uint64_t n) = nullptr;
};

inline constexpr uint32_t kMaxBlockElems = 256;

// nullptr for a number that is no type of a stored tensor; why_not() then says what it is.
const GgmlType* find_type(uint32_t id);
std::string why_not(uint32_t id);

}  // namespace crossdock::reader_gguf
