// SPDX-License-Identifier: Apache-2.0

// bitsandbytes: 4 bits with a table of values and blocks over the whole tensor, or 8 with a scale a
// row.
#include "core/base/text.h"
#include "core/quantised/schemes.h"

#include <simdjson.h>

#include <cmath>

namespace crossdock::quantised {

using manifest::DType;
using manifest::Tensor;
using transform::CodeOrder;
using transform::Decoder;
using transform::Dequantisation;
using transform::Expression;

namespace {

constexpr std::string_view kState = ".quant_state.bitsandbytes__";  // then nf4 or fp4

// What the file keeps of a weight of 4 bits, as JSON in a tensor of bytes.
struct State {
  DType dtype = DType::F32;  // that values are rounded to
  std::vector<uint64_t> shape;
  uint64_t block = 0;
  uint64_t nested_block = 0;
  double nested_offset = 0;
};

Result<State> state_of(const Parts& parts, uint64_t tensor) {
  const Tensor& t = parts.tensor(tensor);
  const auto wrong = [&](std::string_view what) {
    return invalid(cat("expected ", base::printable(t.name),
                       " to hold bitsandbytes' state as JSON with ", what, ", found none"));
  };
  if (t.dtype != DType::U8) return wrong("bytes");
  XD_TRY_SET(const std::string text, parts.bytes(tensor));
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (parser.parse(text).get(root)) return wrong("an object");
  State out;
  std::string_view dtype;
  if (root["dtype"].get(dtype)) return wrong("dtype");
  if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16") return wrong("dtype");
  out.dtype = dtype == "float32" ? DType::F32 : dtype == "bfloat16" ? DType::BF16 : DType::F16;
  simdjson::dom::array shape;
  if (root["shape"].get(shape)) return wrong("shape");
  for (const auto side : shape) {
    uint64_t n;
    if (side.get(n)) return wrong("shape");
    out.shape.push_back(n);
  }
  if (out.shape.empty() || !checked_product(out.shape) || *checked_product(out.shape) == 0)
    return wrong("a shape of elements");
  if (root["blocksize"].get(out.block) || out.block == 0) return wrong("blocksize");
  if (root["nested_blocksize"].get(out.nested_block)) out.nested_block = 0;
  if (root["nested_offset"].get(out.nested_offset)) out.nested_offset = 0;
  return out;
}

Result<DecoderPtr> table(const Parts& parts, uint64_t tensor, uint32_t bits, CodeOrder order) {
  XD_TRY_SET(auto values, parts.floats(tensor));
  if (values.size() != size_t{1} << bits)
    return invalid(cat("expected ", size_t{1} << bits, " values in ",
                       base::printable(parts.tensor(tensor).name), ", found ", values.size()));
  return std::make_shared<const Decoder>("table", bits, std::move(values), order);
}

// The scales of blocks, which may be codes themselves.
Result<Expression> block_scales(const Parts& parts, const std::string& name, const State& state,
                                uint64_t absmax, std::vector<uint64_t>& of) {
  if (parts.tensor(absmax).dtype != DType::U8) return parts.expression(absmax);
  XD_TRY_SET(const uint64_t nested, parts.need(name + ".nested_absmax", absmax));
  XD_TRY_SET(const uint64_t map, parts.need(name + ".nested_quant_map", absmax));
  of.insert(of.end(), {nested, map});
  Dequantisation how;
  XD_TRY_SET(how.decoder, table(parts, map, 8, CodeOrder::kLowFirst));
  how.columns = *checked_product(parts.tensor(absmax).shape);
  how.block_columns = state.nested_block;
  if (state.nested_block == 0)
    return invalid(
        cat("expected nested_blocksize in the state of ", base::printable(name), ", found none"));
  XD_TRY_SET(Expression scales,
             Expression::dequantise({parts.expression(absmax), {}, parts.expression(nested), {}},
                                    how, DType::F32, {how.columns}));
  return Expression::map(std::move(scales), transform::Mapping::kAdd,
                         static_cast<float>(state.nested_offset));
}

Found find_4_bits(const Parts& parts, uint64_t codes, uint64_t absmax, uint64_t state) {
  const std::string& name = parts.tensor(codes).target();
  XD_TRY_SET(const State kept, state_of(parts, state));
  XD_TRY_SET(const uint64_t map, parts.need(name + ".quant_map", codes));
  Weight out{name, "", {codes, absmax, state, map}, parts.expression(codes)};
  Dequantisation how;
  XD_TRY_SET(how.decoder, table(parts, map, 4, CodeOrder::kHighFirst));
  how.columns = *checked_product(kept.shape);  // in one row: blocks run over the ends of rows
  how.block_columns = kept.block;
  how.product = kept.dtype;
  XD_TRY_SET(Expression scales, block_scales(parts, name, kept, absmax, out.of));
  XD_TRY_SET(out.values, Expression::dequantise({std::move(out.values), {}, std::move(scales), {}},
                                                how, parts.result(), kept.shape));
  out.scheme = cat("bitsandbytes 4 bits in blocks of ", kept.block,
                   parts.tensor(absmax).dtype == DType::U8 ? ", nested" : "");
  return Maybe(std::move(out));
}

Found find_8_bits(const Parts& parts, uint64_t codes, uint64_t row_scales) {
  const Tensor& t = parts.tensor(codes);
  XD_TRY_SET(Dequantisation how, by_blocks(decoder_of(DType::I8), matrices_of(t.shape),
                                           parts.tensor(row_scales).shape));
  std::vector<uint64_t> of{codes, row_scales};
  const auto module = *without_suffix(t.target(), ".weight");
  if (const auto format = parts.find(module + ".weight_format")) {
    XD_TRY_SET(const std::string layout, parts.bytes(*format));
    if (layout.find_first_not_of('\0') != std::string::npos)
      return unsupported(cat("expected codes of bitsandbytes in rows, found another layout by ",
                             base::printable(parts.tensor(*format).name),
                             ": save the model with a newer bitsandbytes"));
    of.push_back(*format);
  }
  how.factor = static_cast<float>(7.874015718698502e-3);  // 1 / 127, as bitsandbytes rounds it
  XD_TRY_SET(Expression scales, scale_values(parts, row_scales));
  XD_TRY_SET(Expression values,
             Expression::dequantise({parts.expression(codes), {}, std::move(scales), {}}, how,
                                    parts.result(), t.shape));
  return Maybe(Weight{t.target(), "bitsandbytes 8 bits", std::move(of), std::move(values)});
}

}  // namespace

Found find_bitsandbytes(const Parts& parts, uint64_t codes) {
  const Tensor& t = parts.tensor(codes);
  const std::string& name = t.target();
  for (const char* kind : {"nf4", "fp4"}) {
    const auto state = parts.find(cat(name, kState, kind));
    if (!state) continue;
    XD_TRY_SET(const uint64_t absmax, parts.need(name + ".absmax", codes));
    return find_4_bits(parts, codes, absmax, *state);
  }
  if (parts.find(name + ".absmax")) XD_TRY(parts.need(cat(name, kState, "nf4"), codes));
  const auto module = without_suffix(name, ".weight");
  const auto row_scales = module ? parts.find(*module + ".SCB") : std::nullopt;
  if (!row_scales || t.dtype != DType::I8) return Maybe();
  return find_8_bits(parts, codes, *row_scales);
}

}  // namespace crossdock::quantised
