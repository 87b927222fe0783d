// SPDX-License-Identifier: Apache-2.0

// One decoder per block type: block(in, out) makes kElems floats of kBytes bytes. They are inlined
// into loops that are compiled once for every x86-64 and once for AVX2 (ggml_types.cc), so they use
// no library function.
//
// Names in comments are those of ggml-common.h: d and dmin are float16, qs the low bits of the
// codes, qh their high bits.
#pragma once

#include "plugins/reader_gguf/iq_grids.h"

#include <bit>
#include <cstdint>
#include <cstring>

namespace crossdock::reader_gguf::blocks {

#define XD_INLINE static inline __attribute__((always_inline))

template <class T>
XD_INLINE T load(const uint8_t* p) {
  T out;
  std::memcpy(&out, p, sizeof(T));
  return out;
}

// Exact, subnormals, infinities and NaN with their bits too.
XD_INLINE float from_f16(uint16_t h) {
  const uint32_t magnitude = (h & 0x7fffu) << 13;
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t finite = std::bit_cast<uint32_t>(scaled), special = magnitude | 0x7f800000u;
  const uint32_t bits = magnitude >= 0x0f800000u ? special : finite;
  return std::bit_cast<float>(bits | (h & 0x8000u) << 16);
}
XD_INLINE float f16_at(const uint8_t* p) { return from_f16(load<uint16_t>(p)); }

// To multiply by, as ggml does: to flip a bit instead would change NaN.
XD_INLINE float minus_if(uint32_t bit) { return std::bit_cast<float>(0x3f800000u | bit << 31); }

// ---- plain types
struct F32 {
  static constexpr int kElems = 1, kBytes = 4;
  XD_INLINE void block(const uint8_t* in, float* out) { *out = load<float>(in); }
};
struct Bf16 {
  static constexpr int kElems = 1, kBytes = 2;
  XD_INLINE void block(const uint8_t* in, float* out) {
    *out = std::bit_cast<float>(uint32_t{load<uint16_t>(in)} << 16);
  }
};

// ---- 32 elements: a scale, and maybe a minimum. The low nibbles are the first half.
struct Q4_0 {
  static constexpr int kElems = 32, kBytes = 18;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    for (int i = 0; i < 16; ++i) out[i] = d * static_cast<float>((in[2 + i] & 15) - 8);
    for (int i = 0; i < 16; ++i) out[i + 16] = d * static_cast<float>((in[2 + i] >> 4) - 8);
  }
};
struct Q4_1 {
  static constexpr int kElems = 32, kBytes = 20;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in), m = f16_at(in + 2);
    for (int i = 0; i < 16; ++i) out[i] = d * static_cast<float>(in[4 + i] & 15) + m;
    for (int i = 0; i < 16; ++i) out[i + 16] = d * static_cast<float>(in[4 + i] >> 4) + m;
  }
};
struct Q5_0 {
  static constexpr int kElems = 32, kBytes = 22;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    const uint32_t qh = load<uint32_t>(in + 2);
    for (uint32_t i = 0; i < 16; ++i) {
      const uint32_t low = (in[6 + i] & 15u) | (qh >> i & 1) << 4,
                     high = in[6 + i] >> 4 | (qh >> (i + 16) & 1) << 4;
      out[i] = d * static_cast<float>(static_cast<int32_t>(low) - 16);
      out[i + 16] = d * static_cast<float>(static_cast<int32_t>(high) - 16);
    }
  }
};
struct Q5_1 {
  static constexpr int kElems = 32, kBytes = 24;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in), m = f16_at(in + 2);
    const uint32_t qh = load<uint32_t>(in + 4);
    for (uint32_t i = 0; i < 16; ++i) {
      const uint32_t low = (in[8 + i] & 15u) | (qh >> i & 1) << 4,
                     high = in[8 + i] >> 4 | (qh >> (i + 16) & 1) << 4;
      out[i] = d * static_cast<float>(static_cast<int32_t>(low)) + m;
      out[i + 16] = d * static_cast<float>(static_cast<int32_t>(high)) + m;
    }
  }
};
struct Q8_0 {
  static constexpr int kElems = 32, kBytes = 34;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(in[2 + i])) * d;
  }
};

// ---- 256 elements: scales of 16 or 32 of them are codes too
struct Q2_K {
  static constexpr int kElems = 256, kBytes = 84;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const uint8_t* scales = in;
    const uint8_t* qs = in + 16;
    const float d = f16_at(in + 80), dmin = f16_at(in + 82);
    for (int half = 0; half < 2; ++half, qs += 32) {
      for (int shift = 0; shift < 8; shift += 2) {
        for (int part = 0; part < 2; ++part, ++scales, out += 16) {
          const float dl = d * static_cast<float>(*scales & 15),
                      ml = dmin * static_cast<float>(*scales >> 4);
          for (int i = 0; i < 16; ++i)
            out[i] = dl * static_cast<float>(qs[16 * part + i] >> shift & 3) - ml;
        }
      }
    }
  }
};
struct Q3_K {
  static constexpr int kElems = 256, kBytes = 110;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const uint8_t* hmask = in;
    const uint8_t* qs = in + 32;
    const uint8_t* packed = in + 96;
    const float d = f16_at(in + 108);
    float dl[16];
    for (int j = 0; j < 16; ++j) {  // 6 bits each: the low four in 8 bytes of nibbles, the high two
                                    // in 4 bytes of pairs
      const int low = packed[j % 8] >> (j / 8 * 4) & 15,
                high = packed[8 + j % 4] >> (j / 4 * 2) & 3;
      dl[j] = d * static_cast<float>((low | high << 4) - 32);
    }
    for (int j = 0; j < 8; ++j) {
      const uint8_t* q = qs + j / 4 * 32;
      uint8_t codes[32];  // the high bit stands for 4, and its absence for -4
      for (int i = 0; i < 32; ++i)
        codes[i] = static_cast<uint8_t>((q[i] >> (j % 4 * 2) & 3) | (hmask[i] >> j & 1) << 2);
      for (int i = 0; i < 16; ++i) out[32 * j + i] = dl[2 * j] * static_cast<float>(codes[i] - 4);
      for (int i = 16; i < 32; ++i)
        out[32 * j + i] = dl[2 * j + 1] * static_cast<float>(codes[i] - 4);
    }
  }
};
// Scale and minimum number j of Q4_K and Q5_K, 6 bits each.
XD_INLINE int scale_k4(const uint8_t* s, int j) {
  return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
}
XD_INLINE int min_k4(const uint8_t* s, int j) {
  return j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
}
struct Q4_K {
  static constexpr int kElems = 256, kBytes = 144;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in), dmin = f16_at(in + 2);
    for (int j = 0; j < 8; ++j) {
      const float dl = d * static_cast<float>(scale_k4(in + 4, j)),
                  ml = dmin * static_cast<float>(min_k4(in + 4, j));
      const uint8_t* qs = in + 16 + j / 2 * 32;
      const int shift = j % 2 * 4;
      for (int i = 0; i < 32; ++i)
        out[32 * j + i] = dl * static_cast<float>(qs[i] >> shift & 15) - ml;
    }
  }
};
struct Q5_K {
  static constexpr int kElems = 256, kBytes = 176;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in), dmin = f16_at(in + 2);
    const uint8_t* qh = in + 16;
    for (int j = 0; j < 8; ++j) {
      const float dl = d * static_cast<float>(scale_k4(in + 4, j)),
                  ml = dmin * static_cast<float>(min_k4(in + 4, j));
      const uint8_t* qs = in + 48 + j / 2 * 32;
      const int shift = j % 2 * 4;
      for (int i = 0; i < 32; ++i)
        out[32 * j + i] =
            dl * static_cast<float>((qs[i] >> shift & 15) | (qh[i] >> j & 1) << 4) - ml;
    }
  }
};
struct Q6_K {
  static constexpr int kElems = 256, kBytes = 210;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in + 208);
    for (int half = 0; half < 2; ++half) {
      const uint8_t* qh = in + 128 + 32 * half;
      for (int j = 0; j < 4; ++j) {
        const uint8_t* ql = in + 64 * half + 32 * (j % 2);
        for (int part = 0; part < 2; ++part) {
          const float dl =
              d * static_cast<float>(static_cast<int8_t>(in[192 + 8 * half + 2 * j + part]));
          for (int i = 16 * part; i < 16 * part + 16; ++i) {
            const int q = (ql[i] >> (j / 2 * 4) & 15) | (qh[i] >> (2 * j) & 3) << 4;
            out[128 * half + 32 * j + i] = dl * static_cast<float>(q - 32);
          }
        }
      }
    }
  }
};

// ---- ternary
struct Tq1_0 {
  static constexpr int kElems = 256, kBytes = 54;
  // The digits number `power` of n numbers in base 3 that are stored as fractions of 256.
  template <int n>
  XD_INLINE void digits(const uint8_t* in, int power, float d, float* out) {
    constexpr uint8_t kPowers[] = {1, 3, 9, 27, 81};
    int8_t codes[n];
    for (int i = 0; i < n; ++i) {
      const auto top = static_cast<uint16_t>(static_cast<uint16_t>(in[i] * kPowers[power]) & 255);
      codes[i] = static_cast<int8_t>(static_cast<uint16_t>(top * 3) >> 8);
    }
    for (int i = 0; i < n; ++i) out[i] = d * static_cast<float>(codes[i] - 1);
  }
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in + 52);
    for (int n = 0; n < 5; ++n) digits<32>(in, n, d, out + 32 * n);
    for (int n = 0; n < 5; ++n) digits<16>(in + 32, n, d, out + 160 + 16 * n);
    for (int n = 0; n < 4; ++n) digits<4>(in + 48, n, d, out + 240 + 4 * n);
  }
};
struct Tq2_0 {
  static constexpr int kElems = 256, kBytes = 66;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in + 64);
    for (int half = 0; half < 2; ++half) {
      for (int j = 0; j < 4; ++j) {
        for (int i = 0; i < 32; ++i)
          out[128 * half + 32 * j + i] =
              d * static_cast<float>((in[32 * half + i] >> (2 * j) & 3) - 1);
      }
    }
  }
};

// ---- codes that name values of a table
inline constexpr int8_t kFp4[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                    0, -1, -2, -3, -4, -6, -8, -12};  // doubled
inline constexpr int8_t kNonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

struct Mxfp4 {
  static constexpr int kElems = 32, kBytes = 17;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const uint32_t e = in[0];  // E8M0, halved since the values are doubled
    const float d = std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(kFp4[in[1 + i] & 15]);
      out[i + 16] = d * static_cast<float>(kFp4[in[1 + i] >> 4]);
    }
  }
};
struct Nvfp4 {
  static constexpr int kElems = 64, kBytes = 36;
  // An unsigned E4M3 scale, halved since the values are doubled.
  XD_INLINE float scale(uint8_t x) {
    const uint32_t exponent = x >> 3 & 15, mantissa = x & 7;
    if (x == 0 || x == 0x7f) return 0;
    if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
    return std::bit_cast<float>((exponent - 7 - 1 + 127) << 23 | mantissa << 20);
  }
  XD_INLINE void block(const uint8_t* in, float* out) {
    for (int part = 0; part < 4; ++part) {
      const float d = scale(in[part]);
      const uint8_t* qs = in + 4 + 8 * part;
      for (int i = 0; i < 8; ++i) {
        out[16 * part + i] = d * static_cast<float>(kFp4[qs[i] & 15]);
        out[16 * part + 8 + i] = d * static_cast<float>(kFp4[qs[i] >> 4]);
      }
    }
  }
};
struct Iq4_Nl {
  static constexpr int kElems = 32, kBytes = 18;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(kNonlinear[in[2 + i] & 15]);
      out[i + 16] = d * static_cast<float>(kNonlinear[in[2 + i] >> 4]);
    }
  }
};
struct Iq4_Xs {
  static constexpr int kElems = 256, kBytes = 136;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    const uint32_t high = load<uint16_t>(in + 2);
    for (int j = 0; j < 8; ++j) {
      const int low = in[4 + j / 2] >> (j % 2 * 4) & 15;
      const float dl =
          d * static_cast<float>((low | static_cast<int>(high >> (2 * j) & 3) << 4) - 32);
      const uint8_t* qs = in + 8 + 16 * j;
      for (int i = 0; i < 16; ++i) {
        out[32 * j + i] = dl * static_cast<float>(kNonlinear[qs[i] & 15]);
        out[32 * j + 16 + i] = dl * static_cast<float>(kNonlinear[qs[i] >> 4]);
      }
    }
  }
};

// ---- codes that name entries of a codebook: 8 or 4 values at once
template <int kElems, int kBits, size_t kEntries, class Value, size_t kValues>
constexpr auto expand(const std::array<uint16_t, kEntries>& codes, const Value (&values)[kValues]) {
  std::array<std::array<Value, kElems>, kEntries> out{};
  for (size_t i = 0; i < kEntries; ++i) {
    for (int k = 0; k < kElems; ++k)
      out[i][static_cast<size_t>(k)] = values[(codes[i] >> (kBits * k)) & ((1 << kBits) - 1)];
  }
  return out;
}
inline constexpr uint8_t kValues2[] = {8, 25, 43};
inline constexpr uint8_t kValues3Xxs[] = {4, 12, 20, 28, 36, 44, 52, 62};
inline constexpr uint8_t kValues3S[] = {1, 3, 5, 7, 9, 11, 13, 15};
inline constexpr int8_t kValues1[] = {-1, 0, 1};
inline constexpr auto kGrid2Xxs = expand<8, 2>(grids::kIq2Xxs, kValues2);
inline constexpr auto kGrid2Xs = expand<8, 2>(grids::kIq2Xs, kValues2);
inline constexpr auto kGrid2S = expand<8, 2>(grids::kIq2S, kValues2);
inline constexpr auto kGrid3Xxs = expand<4, 3>(grids::kIq3Xxs, kValues3Xxs);
inline constexpr auto kGrid3S = expand<4, 3>(grids::kIq3S, kValues3S);
inline constexpr auto kGrid1 = expand<8, 2>(grids::kIq1S, kValues1);

// Seven signs are stored; the eighth makes their number even.
XD_INLINE uint32_t eight_signs(uint32_t seven) {
  uint32_t parity = seven ^ seven >> 4;
  parity ^= parity >> 2;
  return seven | ((parity ^ parity >> 1) & 1) << 7;
}
template <int n>
XD_INLINE void put_signed(const uint8_t* grid, float db, uint32_t signs, float* out) {
  for (uint32_t i = 0; i < n; ++i)
    out[i] = db * static_cast<float>(grid[i]) * minus_if(signs >> i & 1);
}

struct Iq2_Xxs {
  static constexpr int kElems = 256, kBytes = 66;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    for (int j = 0; j < 8; ++j, out += 32) {
      const uint8_t* qs = in + 2 + 8 * j;
      const uint32_t rest = load<uint32_t>(qs + 4);
      const float db = d * (0.5f + static_cast<float>(rest >> 28)) * 0.25f;
      for (int k = 0; k < 4; ++k)
        put_signed<8>(kGrid2Xxs[qs[k]].data(), db, eight_signs(rest >> (7 * k) & 127), out + 8 * k);
    }
  }
};
struct Iq2_Xs {
  static constexpr int kElems = 256, kBytes = 74;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    for (int j = 0; j < 32; ++j, out += 8) {
      const uint32_t q = load<uint16_t>(in + 2 + 2 * j);
      const float db =
          d * (0.5f + static_cast<float>(in[66 + j / 4] >> (j / 2 % 2 * 4) & 15)) * 0.25f;
      put_signed<8>(kGrid2Xs[q & 511].data(), db, eight_signs(q >> 9), out);
    }
  }
};
struct Iq2_S {
  static constexpr int kElems = 256, kBytes = 82;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    const uint8_t *qs = in + 2, *signs = in + 34, *qh = in + 66, *scales = in + 74;
    for (int j = 0; j < 32; ++j, out += 8) {
      const float db =
          d * (0.5f + static_cast<float>(scales[j / 4] >> (j / 2 % 2 * 4) & 15)) * 0.25f;
      const uint32_t entry = qs[j] | (qh[j / 4] >> (j % 4 * 2) & 3u) << 8;
      put_signed<8>(kGrid2S[entry].data(), db, signs[j], out);
    }
  }
};
struct Iq3_Xxs {
  static constexpr int kElems = 256, kBytes = 98;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    for (int j = 0; j < 8; ++j, out += 32) {
      const uint8_t* qs = in + 2 + 8 * j;
      const uint32_t rest = load<uint32_t>(in + 66 + 4 * j);
      const float db = d * (0.5f + static_cast<float>(rest >> 28)) * 0.5f;
      for (int k = 0; k < 4; ++k) {
        const uint32_t signs = eight_signs(rest >> (7 * k) & 127);
        put_signed<4>(kGrid3Xxs[qs[2 * k]].data(), db, signs, out + 8 * k);
        put_signed<4>(kGrid3Xxs[qs[2 * k + 1]].data(), db, signs >> 4, out + 8 * k + 4);
      }
    }
  }
};
struct Iq3_S {
  static constexpr int kElems = 256, kBytes = 110;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    const uint8_t *qs = in + 2, *qh = in + 66, *signs = in + 74, *scales = in + 106;
    for (int j = 0; j < 32; ++j, out += 8) {
      const float db = d * static_cast<float>(1 + 2 * (scales[j / 8] >> (j / 4 % 2 * 4) & 15));
      for (int k = 0; k < 2; ++k) {
        const int at = 2 * j + k;
        const uint32_t entry = qs[at] | (qh[at / 8] >> (at % 8) & 1u) << 8;
        put_signed<4>(kGrid3S[entry].data(), db, uint32_t{signs[j]} >> (4 * k), out + 4 * k);
      }
    }
  }
};
XD_INLINE void put_shifted(const int8_t* grid, float dl, float delta, float* out) {
  for (int i = 0; i < 8; ++i) out[i] = dl * (static_cast<float>(grid[i]) + delta);
}
struct Iq1_S {
  static constexpr int kElems = 256, kBytes = 50;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const float d = f16_at(in);
    for (int j = 0; j < 8; ++j, out += 32) {
      const uint32_t qh = load<uint16_t>(in + 34 + 2 * j);
      const float dl = d * static_cast<float>(2 * (qh >> 12 & 7) + 1);
      const float delta = 0.125f * minus_if(qh >> 15);
      for (int k = 0; k < 4; ++k)
        put_shifted(kGrid1[in[2 + 4 * j + k] | (qh >> (3 * k) & 7) << 8].data(), dl, delta,
                    out + 8 * k);
    }
  }
};
struct Iq1_M {
  static constexpr int kElems = 256, kBytes = 56;
  XD_INLINE void block(const uint8_t* in, float* out) {
    const uint8_t *qs = in, *qh = in + 32, *scales = in + 48;
    uint32_t bits = 0;  // d, a nibble of it on top of each four scales
    for (int j = 0; j < 4; ++j) bits |= uint32_t{load<uint16_t>(scales + 2 * j)} >> 12 << (4 * j);
    const float d = from_f16(static_cast<uint16_t>(bits));
    for (int j = 0; j < 32; ++j, out += 8) {
      const uint32_t high = qh[j / 2] >> (j % 2 * 4);
      const int scale = j / 2;
      const float dl =
          d * static_cast<float>(
                  2 * (load<uint16_t>(scales + scale / 4 * 2) >> (scale % 4 * 3) & 7) + 1);
      put_shifted(kGrid1[qs[j] | (high & 7) << 8].data(), dl, 0.125f * minus_if(high >> 3 & 1),
                  out);
    }
  }
};

#undef XD_INLINE

}  // namespace crossdock::reader_gguf::blocks
