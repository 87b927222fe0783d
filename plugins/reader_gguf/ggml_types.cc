// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_gguf/ggml_types.h"

#include "plugins/reader_gguf/blocks.h"
#include "plugins/reader_gguf/halves.h"

#include <crossdock/result.hpp>

namespace crossdock::reader_gguf {

namespace {

using manifest::DType;

template <class Block>
void loop(const uint8_t* in, float* out, uint64_t n) {
  for (; n > 0; --n, in += Block::kBytes, out += Block::kElems) Block::block(in, out);
}

#if defined(__x86_64__)
template <class Block>
__attribute__((target("avx2"))) void loop_avx2(const uint8_t* in, float* out, uint64_t n) {
  for (; n > 0; --n, in += Block::kBytes, out += Block::kElems) Block::block(in, out);
}
template <class Block>
void decode(const uint8_t* in, float* out, uint64_t n) {
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  has_avx2 ? loop_avx2<Block>(in, out, n) : loop<Block>(in, out, n);
}
#else
template <class Block>
void decode(const uint8_t* in, float* out, uint64_t n) {
  loop<Block>(in, out, n);
}
#endif

template <class Block>
constexpr GgmlType blocks_of(uint32_t id, const char* name, DType plain = DType::UNSPECIFIED) {
  return {id, name, Block::kElems, Block::kBytes, plain, decode<Block>};
}

constexpr GgmlType kTypes[] = {
    blocks_of<blocks::F32>(0, "F32", DType::F32),
    {1, "F16", 1, 2, DType::F16, decode_f16},
    blocks_of<blocks::Q4_0>(2, "Q4_0"),
    blocks_of<blocks::Q4_1>(3, "Q4_1"),
    blocks_of<blocks::Q5_0>(6, "Q5_0"),
    blocks_of<blocks::Q5_1>(7, "Q5_1"),
    blocks_of<blocks::Q8_0>(8, "Q8_0"),
    blocks_of<blocks::Q2_K>(10, "Q2_K"),
    blocks_of<blocks::Q3_K>(11, "Q3_K"),
    blocks_of<blocks::Q4_K>(12, "Q4_K"),
    blocks_of<blocks::Q5_K>(13, "Q5_K"),
    blocks_of<blocks::Q6_K>(14, "Q6_K"),
    blocks_of<blocks::Iq2_Xxs>(16, "IQ2_XXS"),
    blocks_of<blocks::Iq2_Xs>(17, "IQ2_XS"),
    blocks_of<blocks::Iq3_Xxs>(18, "IQ3_XXS"),
    blocks_of<blocks::Iq1_S>(19, "IQ1_S"),
    blocks_of<blocks::Iq4_Nl>(20, "IQ4_NL"),
    blocks_of<blocks::Iq3_S>(21, "IQ3_S"),
    blocks_of<blocks::Iq2_S>(22, "IQ2_S"),
    blocks_of<blocks::Iq4_Xs>(23, "IQ4_XS"),
    {24, "I8", 1, 1, DType::I8, nullptr},
    {25, "I16", 1, 2, DType::I16, nullptr},
    {26, "I32", 1, 4, DType::I32, nullptr},
    {27, "I64", 1, 8, DType::I64, nullptr},
    {28, "F64", 1, 8, DType::F64, nullptr},
    blocks_of<blocks::Iq1_M>(29, "IQ1_M"),
    blocks_of<blocks::Bf16>(30, "BF16", DType::BF16),
    blocks_of<blocks::Tq1_0>(34, "TQ1_0"),
    blocks_of<blocks::Tq2_0>(35, "TQ2_0"),
    blocks_of<blocks::Mxfp4>(39, "MXFP4"),
    blocks_of<blocks::Nvfp4>(40, "NVFP4"),
};

// Numbers that ggml knows and that are no types of stored weights.
struct Refused {
  uint32_t id;
  const char* why;
};
constexpr Refused kRefused[] = {
    {4, "Q4_2, which ggml has removed"},
    {5, "Q4_3, which ggml has removed"},
    {9, "Q8_1, an intermediate of ggml's products, not a type of weights"},
    {15, "Q8_K, an intermediate of ggml's products, not a type of weights"},
    {31, "Q4_0_4_4, which ggml has removed: quantise again, to Q4_0"},
    {32, "Q4_0_4_8, which ggml has removed: quantise again, to Q4_0"},
    {33, "Q4_0_8_8, which ggml has removed: quantise again, to Q4_0"},
    {36, "IQ4_NL_4_4, which ggml has removed: quantise again, to IQ4_NL"},
    {37, "IQ4_NL_4_8, which ggml has removed: quantise again, to IQ4_NL"},
    {38, "IQ4_NL_8_8, which ggml has removed: quantise again, to IQ4_NL"},
    {41, "Q1_0, which is not read yet"},
    {42, "Q2_0, which is not read yet"},
};

}  // namespace

const GgmlType* find_type(uint32_t id) {
  for (const GgmlType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

std::string why_not(uint32_t id) {
  for (const Refused& refused : kRefused) {
    if (refused.id == id) return refused.why;
  }
  return cat("number ", id, ", which is unknown");
}

}  // namespace crossdock::reader_gguf
