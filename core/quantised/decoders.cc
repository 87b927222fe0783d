// SPDX-License-Identifier: Apache-2.0
#include "core/quantised/schemes.h"

#include <array>

namespace crossdock::quantised {

using manifest::DType;
using transform::Decoder;

namespace {

DecoderPtr make(std::string name, uint32_t bits, std::vector<float> values) {
  return std::make_shared<const Decoder>(std::move(name), bits, std::move(values));
}

}  // namespace

DecoderPtr decoder_of(DType dtype) {
  static const DecoderPtr e4m3 = make("e4m3", 8, transform::e4m3_values());
  static const DecoderPtr e5m2 = make("e5m2", 8, transform::e5m2_values());
  static const DecoderPtr e4m3fnuz = make("e4m3fnuz", 8, transform::e4m3fnuz_values());
  static const DecoderPtr e5m2fnuz = make("e5m2fnuz", 8, transform::e5m2fnuz_values());
  static const DecoderPtr e8m0 = make("e8m0", 8, transform::exponents(true));
  static const DecoderPtr int8 = make("int8", 8, transform::signed_values());
  switch (dtype) {
    case DType::F8_E4M3:
      return e4m3;
    case DType::F8_E5M2:
      return e5m2;
    case DType::F8_E4M3FNUZ:
      return e4m3fnuz;
    case DType::F8_E5M2FNUZ:
      return e5m2fnuz;
    case DType::F8_E8M0:
      return e8m0;
    case DType::I8:
      return int8;
    default:
      return nullptr;
  }
}

DecoderPtr e2m1_pairs() {
  static const DecoderPtr out = make("e2m1", 4, transform::e2m1_values());
  return out;
}

DecoderPtr e2m1_pairs_without_negative_zero() {
  static const DecoderPtr out = [] {
    auto values = transform::e2m1_values();
    values[8] = 0;
    return make("e2m1", 4, std::move(values));
  }();
  return out;
}

DecoderPtr exponent_bytes() {
  static const DecoderPtr out = make("exponent", 8, transform::exponents(false));
  return out;
}

DecoderPtr packed_integers(uint32_t bits, bool is_signed) {
  static const auto all = [] {
    std::array<std::array<DecoderPtr, 9>, 2> made;
    for (uint32_t b = 1; b <= 8; ++b) {
      auto values = transform::unsigned_values(b);
      made[0][b] = make(cat("uint", b), b, values);
      for (float& value : values) value -= static_cast<float>(1u << (b - 1));
      made[1][b] = make(cat("int", b), b, std::move(values));
    }
    return made;
  }();
  return all[is_signed ? 1 : 0][bits];
}

}  // namespace crossdock::quantised
