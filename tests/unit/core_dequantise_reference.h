// SPDX-License-Identifier: Apache-2.0

// Expressions with codes by their definition, in simple loops: each node whole, one element after
// the other, codes bit by bit, and roundings as IEEE 754 tells them.
#pragma once

#include "core/transform/expression.h"
#include "tests/catch.h"

#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <vector>

namespace crossdock::test {

using transform::CodeOrder;
using transform::Expression;
using transform::Node;
using Raw = std::vector<std::byte>;

// ---- numbers

struct FloatFormat {
  int mantissa, smallest_exponent;
  double largest;
};
inline FloatFormat format_of(manifest::DType dtype) {
  if (dtype == manifest::DType::F16) return {10, -14, 65504};
  return {7, -126, 0x1.FEp127};  // BF16
}

// To the nearest value, of two as near to the even one.
inline float rounded(float value, manifest::DType dtype) {
  if (dtype == manifest::DType::F32 || value == 0 || std::isinf(value)) return value;
  const FloatFormat format = format_of(dtype);
  const int exponent = std::max(std::ilogb(value), format.smallest_exponent);
  const double step = std::ldexp(1.0, exponent - format.mantissa);
  const double near = std::nearbyint(double{value} / step) * step;
  if (std::abs(near) > format.largest) return std::copysign(INFINITY, value);
  return std::copysign(static_cast<float>(near), value);
}

// The bytes of a value that the type has.
inline void put_float(float value, manifest::DType dtype, std::byte* out) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (dtype == manifest::DType::F32) {
    std::memcpy(out, &bits, 4);
    return;
  }
  uint32_t half = bits >> 16;
  if (dtype == manifest::DType::F16) {
    const float magnitude = std::abs(value);
    if (std::isinf(value)) {
      half = 0x7C00;
    } else if (magnitude < 0x1p-14f) {
      half = static_cast<uint32_t>(magnitude * 0x1p24f);
    } else {
      const int exponent = std::ilogb(magnitude);
      half = static_cast<uint32_t>(exponent + 14) * 1024 +
             static_cast<uint32_t>(std::ldexp(magnitude, 10 - exponent));
    }
    half |= std::signbit(value) ? 0x8000 : 0;
  }
  const auto both = static_cast<uint16_t>(half);
  std::memcpy(out, &both, 2);
}

inline float float_at(const std::byte* at, manifest::DType dtype) {
  uint32_t bits = 0;
  std::memcpy(&bits, at, dtype == manifest::DType::F32 ? 4 : 2);
  if (dtype == manifest::DType::F16) {
    const int exponent = static_cast<int>(bits >> 10 & 31), mantissa = bits & 1023;
    const float magnitude = exponent == 0
                                ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
  }
  if (dtype == manifest::DType::BF16) bits <<= 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

inline uint64_t bytes_of(manifest::DType dtype) { return manifest::info(dtype).bits / 8; }

// ---- what is stored

// Tensors of bytes. Its reader holds each read against their ends.
struct StoredBytes {
  std::vector<Raw> tensors;
  std::vector<uint64_t> elem_bytes;
  uint64_t fails_at = UINT64_MAX;  // the read that gives an error
  uint64_t n_reads = 0, bytes_read = 0;

  Expression add(manifest::DType dtype, std::vector<uint64_t> shape, Raw bytes) {
    REQUIRE(bytes.size() == *checked_product(shape) * bytes_of(dtype));
    tensors.push_back(std::move(bytes));
    elem_bytes.push_back(bytes_of(dtype));
    return Expression::stored(tensors.size() - 1, dtype, std::move(shape));
  }

  transform::ReadStored reader() {
    return [this](uint64_t tensor, uint64_t begin, uint64_t n,
                  std::span<std::byte> out) -> Result<void> {
      const uint64_t size = elem_bytes.at(tensor);
      if (out.size() != n * size) FAIL("expected room for " << n << " elements");
      if ((begin + n) * size > tensors[tensor].size()) FAIL("a read behind the end of a tensor");
      bytes_read += out.size();
      if (n_reads++ == fails_at) return Error{XD_IO, "the disk is gone"};
      if (n > 0) std::memcpy(out.data(), tensors[tensor].data() + begin * size, out.size());
      return {};
    };
  }
};

// ---- codes

// A decoder with the values that it was made of.
struct Codes {
  std::shared_ptr<const transform::Decoder> decoder;
  std::vector<float> values;
  CodeOrder order = CodeOrder::kLowFirst;
};

inline Codes codes_of(uint32_t bits, CodeOrder order = CodeOrder::kLowFirst) {
  Codes out{nullptr, {}, order};
  for (uint32_t code = 0; code < 1u << bits; ++code)  // no two alike
    out.values.push_back(static_cast<float>(code) * 0.75f - static_cast<float>(1u << (bits - 1)));
  out.decoder = std::make_shared<const transform::Decoder>("some", bits, out.values, order);
  return out;
}

// Code number `i` of a row.
inline uint32_t code_at(const std::byte* row, uint64_t i, uint32_t bits, CodeOrder order) {
  constexpr uint64_t kAwq[] = {0, 2, 4, 6, 1, 3, 5, 7};  // the code in each place
  uint64_t place = i;
  if (order == CodeOrder::kHighFirst) place = i % 2 == 0 ? i + 1 : i - 1;
  if (order == CodeOrder::kInterleaved) {
    place = i / 8 * 8;
    while (kAwq[place % 8] != i % 8) ++place;
  }
  uint32_t code = 0;
  for (uint64_t bit = 0; bit < bits; ++bit) {
    const uint64_t at = place * bits + bit;
    const auto byte = static_cast<uint32_t>(row[at / 8]);
    code |= (byte >> at % 8 & 1) << bit;
  }
  return code;
}

// ---- whole nodes

class Reference {
 public:
  Reference(const StoredBytes& stored, const std::map<const transform::Decoder*, Codes>& codes)
      : stored_(stored), codes_(codes) {}

  Raw of(const Expression& e) const { return node(e.nodes(), e.nodes().size() - 1); }

 private:
  Raw node(const std::vector<Node>& nodes, size_t index) const {
    const Node& n = nodes[index];
    if (const auto* s = std::get_if<Node::Stored>(&n.what)) return stored_.tensors[s->tensor];
    if (const auto* d = std::get_if<Node::Dequantised>(&n.what)) return dequantised(nodes, n, *d);
    const uint64_t size = bytes_of(n.dtype), count = *checked_product(n.shape);
    Raw out;
    const auto take = [&](const Raw& from, uint64_t i) {
      if ((i + 1) * size > from.size()) FAIL("an element outside of its tensor");
      const auto at = from.begin() + static_cast<ptrdiff_t>(i * size);
      out.insert(out.end(), at, at + static_cast<ptrdiff_t>(size));
    };
    if (const auto* v = std::get_if<Node::Viewed>(&n.what)) {
      const Raw below = node(nodes, v->of);
      for (uint64_t i = 0; i < count; ++i) {
        uint64_t at = v->offset, rest = i;
        for (size_t k = v->factors.size(); k-- > 0; rest /= v->factors[k].size)
          at += rest % v->factors[k].size * v->factors[k].stride;
        take(below, at);
      }
    } else if (const auto* c = std::get_if<Node::Concat>(&n.what)) {
      std::vector<Raw> children;
      for (const uint32_t child : c->of) children.push_back(node(nodes, child));
      uint64_t behind = 1;
      for (size_t d = c->dim + 1; d < n.shape.size(); ++d) behind *= n.shape[d];
      for (uint64_t i = 0; i < count; ++i) {
        const uint64_t before = i / behind / n.shape[c->dim];
        uint64_t along = i / behind % n.shape[c->dim];
        size_t k = 0;
        for (; along >= nodes[c->of[k]].shape[c->dim]; ++k) along -= nodes[c->of[k]].shape[c->dim];
        take(children[k], (before * nodes[c->of[k]].shape[c->dim] + along) * behind + i % behind);
      }
    } else {
      const auto& map = std::get<Node::Map>(n.what);
      out = node(nodes, map.of);
      for (size_t at = 0; at < out.size(); at += 4)
        put_float(float_at(&out[at], n.dtype) + map.operand, n.dtype, &out[at]);
    }
    return out;
  }

  Raw dequantised(const std::vector<Node>& nodes, const Node& n, const Node::Dequantised& d) const {
    const Codes& codes = codes_.at(d.decoder.get());
    const Raw raw = node(nodes, d.codes);
    const auto child = [&](const std::optional<uint32_t>& which) {
      return which ? node(nodes, *which) : Raw();
    };
    const Raw zeros = child(d.zeros), scales = child(d.scales), groups = child(d.groups);
    const auto float_of = [&](const Raw& from, uint32_t which, uint64_t i) {
      return float_at(&from.at(i * bytes_of(nodes[which].dtype)), nodes[which].dtype);
    };
    const uint64_t count = *checked_product(n.shape), n_rows = count / d.columns;
    const uint64_t row_bytes = raw.size() / n_rows;
    const uint64_t down = (d.rows + d.block_rows - 1) / d.block_rows;
    const uint64_t across = (d.columns + d.block_columns - 1) / d.block_columns;
    Raw out(count * bytes_of(n.dtype));
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t row = i / d.columns, column = i % d.columns;
      uint64_t block = column / d.block_columns;
      if (d.groups) {
        int32_t group;
        std::memcpy(&group, &groups.at(4 * column), 4);
        block = static_cast<uint64_t>(group);
      }
      const uint64_t place = (row / d.rows * down + row % d.rows / d.block_rows) * across + block;
      float value = codes.values.at(
          code_at(&raw.at(row * row_bytes), column, d.decoder->bits(), codes.order));
      if (d.zeros) value = value - float_of(zeros, *d.zeros, place);
      if (d.scales) {
        const float scale = rounded(float_of(scales, *d.scales, place), d.scale);
        value = d.divides ? value / scale : value * scale;
      }
      value = rounded(rounded(value * d.factor, d.product), n.dtype);
      put_float(value, n.dtype, &out[i * bytes_of(n.dtype)]);
    }
    return out;
  }

  const StoredBytes& stored_;
  const std::map<const transform::Decoder*, Codes>& codes_;
};

}  // namespace crossdock::test
