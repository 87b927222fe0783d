// SPDX-License-Identifier: Apache-2.0

// What each scheme refuses, with the message; the model is then as it was (QuantisedModel).
#include "core/base/text.h"
#include "tests/unit/core_quantised_model.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using Shape = std::vector<uint64_t>;

namespace {

QuantisedModel with_bits(int64_t bits) { return QuantisedModel().config({{"bits", {bits}}}); }

bool fails(QuantisedModel m, const std::string& part) {
  const std::string message = m.become_plain();
  INFO(message);
  CHECK(contains(message, part));
  return !message.empty();
}

}  // namespace

TEST_CASE("quantised: what belongs to codes is missing") {
  const char* incomplete = ", found none: the model is incomplete, or its shards are not all there";
  CHECK(fails(QuantisedModel().add("w_packed", DType::I32, {2, 1}),
              cat("tensor w_packed: expected w_scale beside its codes of type I32", incomplete)));
  CHECK(
      fails(QuantisedModel().add("w_packed", DType::I32, {2, 1}).add("w_scale", DType::F32, {2, 1}),
            cat("tensor w_packed: expected w_shape beside its codes of type I32", incomplete)));
  CHECK(fails(
      QuantisedModel().add("w_packed", DType::U8, {2, 8}).add("w_scale", DType::F8_E4M3, {2, 1}),
      "tensor w_packed: expected w_global_scale beside its codes of type U8"));
  CHECK(fails(QuantisedModel().add("w", DType::U8, {2, 8}).add("w_scale", DType::F8_E4M3, {2, 1}),
              "tensor w: expected w_scale_2 beside its codes"));
  CHECK(fails(QuantisedModel().add("w_blocks", DType::U8, {2, 1, 16}),
              "tensor w_blocks: expected w_scales beside its codes"));
  CHECK(fails(QuantisedModel().add("a.qweight", DType::I32, {1, 8}),
              "tensor a.qweight: expected a.scales beside its codes"));
  CHECK(fails(
      QuantisedModel().add("a.qweight", DType::I32, {1, 8}).add("a.scales", DType::F16, {1, 8}),
      "tensor a.qweight: expected a.qzeros beside its codes"));
}

TEST_CASE("quantised: scales that fit no blocks, or are none") {
  const auto fp8 = [](Shape codes, DType type, Shape scales) {
    return QuantisedModel()
        .add("a.weight", DType::F8_E4M3, codes)
        .add("a.weight_scale", type, scales);
  };
  CHECK(fails(fp8({6, 6}, DType::F32, {4, 6}),
              "tensor a.weight: expected scales for blocks of 6 x 6 codes, found [4, 6]"));
  CHECK(fails(fp8({6, 6}, DType::F32, {4}), "blocks of 6 x 6 codes, found [4]"));
  CHECK(fails(fp8({2, 6, 6}, DType::F32, {3, 6, 6}), "blocks of 2 x 6 x 6 codes, found [3, 6, 6]"));
  CHECK(fails(fp8({6, 6}, DType::F32, {6, 0}), "blocks of 6 x 6 codes, found [6, 0]"));
  CHECK(fails(fp8({6, 6}, DType::F32, {0}), "blocks of 6 x 6 codes, found [0]"));
  CHECK(fails(fp8({}, DType::F32, {3}), "blocks of 1 x 1 codes, found [3]"));
  CHECK(fails(fp8({6, 6}, DType::I64, {1}),
              "tensor a.weight: expected scales of a floating type or of bytes, found "
              "a.weight_scale of type I64"));
  CHECK(fails(fp8({6, 6}, DType::F64, {1}), "found a.weight_scale of type F64"));
  CHECK(fails(fp8({6, 6}, DType::F4, {6, 2}), "found a.weight_scale of type F4"));
  CHECK(fails(fp8({6, 6}, DType::F32, {1}).add("a.weight_zero_point", DType::I8, {6, 1}),
              "expected a.weight_zero_point of type I8 and [1], found I8 and [6, 1]"));
  CHECK(fails(fp8({6, 6}, DType::F32, {1}).add("a.weight_zero_point", DType::I32, {1}),
              "found I32 and [1]"));
  const auto second = [](DType type, Shape shape) {
    return QuantisedModel()
        .add("w", DType::U8, {2, 8})
        .add("w_scale", DType::F8_E4M3, {2, 1})
        .add("w_scale_2", type, shape);
  };
  CHECK(fails(second(DType::I32, {}), "tensor w: expected scales or zeros of F32, BF16 or F16"));
  CHECK(fails(second(DType::F64, {}), "expected scales or zeros of F32, BF16 or F16, found F64"));
  CHECK(fails(second(DType::F32, {3}), "expected scales for blocks of 2 x 1 codes, found [3]"));
}

TEST_CASE("quantised: codes without elements, and sizes beyond counting") {
  for (const Shape& codes : {Shape{0, 4}, {4, 0}, {0}, {0, 4, 4}, {4, 0, 0}}) {
    for (const Shape& scales : {Shape{}, {0}, {1}, {0, 1}, {0, 0}, {4, 1}, {0, 1, 1}}) {
      INFO(codes.size() << " " << scales.size());
      for (const DType type : {DType::F8_E4M3, DType::I8, DType::U8}) {
        CHECK_FALSE(QuantisedModel()
                        .add("a.weight", type, codes)
                        .add("a.weight_scale", type == DType::U8 ? DType::U8 : DType::F32, scales)
                        .become_plain()
                        .empty());
        CHECK_FALSE(QuantisedModel()
                        .add("a.weight", type == DType::U8 ? DType::I8 : type, codes)
                        .add("a.scale", DType::F32, scales)
                        .become_plain()
                        .empty());
      }
    }
  }
  constexpr uint64_t kHuge = uint64_t{1} << 62;
  CHECK(fails(
      QuantisedModel().add("a.weight", DType::I8, {0, 2 * kHuge}).add("a.scale", DType::F32, {0}),
      "tensor a.weight: expected codes of a weight, found [0, 0] without elements"));
  CHECK(fails(QuantisedModel()
                  .add("w_blocks", DType::U8, {0, kHuge, 16})
                  .add("w_scales", DType::U8, {0, kHuge}),
              "tensor w_blocks: expected scales for blocks of 0 x "));
}

TEST_CASE("quantised: a tensor that two weights would be") {
  const auto add = [](QuantisedModel m) {
    return m.add("a.weight_packed", DType::I32, {1, 1})
        .add("a.weight_shape", DType::I64, {2}, raw<int64_t>({1, 8}))
        .add("a.weight_scale", DType::F32, {1});
  };
  CHECK(fails(add(with_bits(4).add("a.weight", DType::F32, {2})),
              "expected one tensor for a.weight, found a.weight and a.weight_packed"));
  CHECK(fails(add(with_bits(4)
                      .add("a.qweight", DType::I32, {1, 8})
                      .add("a.qzeros", DType::I32, {1, 1})
                      .add("a.scales", DType::F16, {1, 8})),
              "expected one tensor for a.weight, found a.qweight and a.weight_packed"));
}

TEST_CASE("quantised: integers in words that do not fit") {
  const auto packed = [](Shape codes, std::vector<int64_t> shape, Shape scales = {1},
                         DType type = DType::F32) {
    std::string text;
    for (const int64_t n : shape) text += raw<int64_t>({n});
    return with_bits(4)
        .add("w_packed", DType::I32, codes)
        .add("w_shape", DType::I64, {shape.size()}, text)
        .add("w_scale", type, scales);
  };
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{2, -8},
                                            {-2, 8},
                                            {2, INT64_MIN},
                                            {2, INT64_MAX},
                                            {3, 8},
                                            {2, 33},
                                            {2, 0},
                                            {0, 8}})
    CHECK(fails(packed({2, 1}, shape),
                cat("tensor w_packed: expected w_shape to tell the shape of the weight packed as "
                    "[2, 1], found ",
                    base::list_text(shape))));
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{8}, {}, {2, 8, 1}})
    CHECK(fails(packed({2, 1}, shape), cat("packed as [2, 1], found ", shape.size(), " numbers")));
  CHECK(fails(packed({2, 3}, {2, 8}),
              "expected codes of 4 bits in w_packed, of which 8 make a row, "
              "found 3 words a row"));
  // As many words as a count of bits that overflowed would say.
  constexpr uint64_t kWords = uint64_t{1} << 54;
  CHECK(fails(packed({1, kWords}, {1, 32 * static_cast<int64_t>(kWords)}), "expected codes of 4"));
  CHECK(fails(packed({2, 1}, {2, 8}, {1}, DType::U8), "expected to compute in F32, BF16 or F16"));
  CHECK(fails(QuantisedModel()
                  .add("w_packed", DType::I32, {2, 1})
                  .add("w_shape", DType::F32, {2})
                  .add("w_scale", DType::F32, {1}),
              "expected w_shape of type I32 or I64, found F32"));
  // Not a list of them all.
  CHECK(fails(QuantisedModel()
                  .add("w_packed", DType::I32, {2, 1})
                  .add("w_shape", DType::I64, {1 << 24})
                  .add("w_scale", DType::F32, {1}),
              "found 16777216 numbers"));
  CHECK(fails(with_bits(4)
                  .add("a.qweight", DType::I32, {1, 8})
                  .add("a.qzeros", DType::I32, {2, 1})
                  .add("a.scales", DType::F16, {2, 8})
                  .add("a.g_idx", DType::I32, {1 << 24}),
              "expected a small dense tensor, found a.g_idx of 67 MB"));
  QuantisedModel strided = packed({2, 1}, {2, 8});
  strided.m.tensors[1].strides = {2};
  strided.m.tensors[1].storage_elements = 3;
  CHECK(fails(strided, "expected a small dense tensor, found w_shape of 16 B"));
}

TEST_CASE("quantised: zeros and groups of integers in words that do not fit") {
  const auto packed = [](Shape scales) {
    return with_bits(4)
        .add("w_packed", DType::I32, {2, 1})
        .add("w_shape", DType::I64, {2}, raw<int64_t>({2, 8}))
        .add("w_scale", DType::F32, scales);
  };
  for (const Shape& zeros : {Shape{1, 1}, {2, 2}, {1, 2, 1}, {2}, {}, {0, 2}})
    CHECK(fails(packed({2, 2}).add("w_zero_point", DType::I32, zeros),
                cat("tensor w_packed: expected zeros of 4 bits for scales of [2, 2], found "
                    "w_zero_point of ",
                    base::list_text(zeros))));
  // Scales that are no matrix have no zeros packed along its rows.
  CHECK(fails(packed({}).add("w_zero_point", DType::I32, {}), "for scales of [], found"));
  CHECK(fails(packed({1}).add("w_zero_point", DType::I32, {1}), "for scales of [1], found"));
  for (const DType type : {DType::F32, DType::U8, DType::F4, DType::I64})
    CHECK(fails(packed({2, 2}).add("w_zero_point", type, {2, 2}),
                cat("expected w_zero_point of type I8 and [2, 2], found ", manifest::name(type))));
  const auto groups = [&](std::initializer_list<int32_t> numbers) {
    return packed({2, 2}).add("w_g_idx", DType::I32, {numbers.size()}, raw(numbers));
  };
  CHECK(fails(groups({0, 0, 1, 1, 0, 0, 1, 2}), "expected groups below 2 in w_g_idx, found 2"));
  CHECK(fails(groups({0, 0, 1, 1, 0, 0, 1, -2}), "expected groups below 2 in w_g_idx, found -2"));
  CHECK(fails(groups({0, 1}), "expected a group for each of 8 columns in w_g_idx, found 2"));
  CHECK(fails(packed({2, 2}).add("w_g_idx", DType::I64, {8}), "expected a group of type I32"));
  CHECK(fails(packed({2, 2}).add("w_g_idx", DType::F32, {8}), "of type I32 or I64, found F32"));
}

TEST_CASE("quantised: small floats that do not fit") {
  const auto floats = [](Shape codes, DType type, Shape scales) {
    return QuantisedModel().add("w_packed", DType::U8, codes).add("w_scale", type, scales);
  };
  CHECK(fails(floats({2, 16}, DType::U8, {3, 1}), "blocks of 2 x 32 codes, found [3, 1]"));
  CHECK(fails(floats({2, 16}, DType::I32, {2, 1}), "expected scales of a floating type"));
  CHECK(fails(floats({2, 0}, DType::U8, {2, 0}), "tensor w_packed: expected"));
  const auto blocks = [](Shape codes, DType type, Shape scales) {
    return QuantisedModel().add("w_blocks", DType::U8, codes).add("w_scales", type, scales);
  };
  CHECK(fails(
      blocks({2, 3, 16}, DType::U8, {2, 2}),
      "tensor w_blocks: expected blocks of 16 bytes with a byte of scale each, found w_blocks "
      "of [2, 3, 16] and w_scales of type U8 and [2, 2]"));
  CHECK(fails(blocks({2, 3, 8}, DType::U8, {2, 3}), "expected blocks of 16 bytes"));
  CHECK(fails(blocks({2, 3, 16}, DType::F32, {2, 3}), "w_scales of type F32"));
}

namespace {

QuantisedModel bitsandbytes(const std::string& state, Shape absmax = {2}) {
  return QuantisedModel()
      .add("w", DType::U8, {3, 1})
      .add("w.absmax", DType::F32, absmax)
      .add("w.quant_map", DType::F32, {16})
      .add("w.quant_state.bitsandbytes__nf4", DType::U8, {state.size()}, state);
}
std::string state(const std::string& shape, const std::string& block = "3") {
  return R"({"dtype": "float16", "shape": )" + shape + R"(, "blocksize": )" + block + "}";
}

}  // namespace

TEST_CASE("quantised: states of bitsandbytes that tell nothing, or too much") {
  CHECK(bitsandbytes(state("[2, 3]")).become_plain().empty());
  const auto lacks = [](const std::string& text, const std::string& what) {
    return fails(bitsandbytes(text),
                 cat("tensor w: expected w.quant_state.bitsandbytes__nf4 to hold "
                     "bitsandbytes' state as JSON with ",
                     what, ", found none"));
  };
  for (const char* broken : {"", "{", "{}}", "\xff", "nul", "{\"shape\": [99999999999999999999]}"})
    CHECK(lacks(broken, "an object"));
  for (const char* none : {"[]", "3", "{}", R"({"dtype": 3})", R"({"dtype": "int8"})"})
    CHECK(lacks(none, "dtype"));
  for (const char* none : {"3", "\"\"", "[-1]", "[2.0, 3]", "[\"2\"]", "[[2]]"})
    CHECK(lacks(state(none), "shape"));
  for (const char* none : {"[]", "[0]", "[0, 3]", "[4294967296, 4294967296]",
                           "[4294967296, 4294967296, 0]", "[18446744073709551615, 2]"})
    CHECK(lacks(state(none), "a shape of elements"));
  for (const char* none : {"0", "-1", "\"3\"", "null"})
    CHECK(lacks(state("[2, 3]", none), "blocksize"));
  // Other numbers of elements than there are codes and scales.
  for (const char* shape :
       {"[7]", "[4]", "[2]", "[4611686018427387904]", "[4611686018427387904, 2]",
        "[18446744073709551615]", "[4294967296, 2147483648]"})
    CHECK(fails(bitsandbytes(state(shape)), "tensor w: expected codes of 4 bits for 1 x "));
  CHECK(fails(bitsandbytes(state("[2, 3]", "18446744073709551615")),
              "expected 1 scales or zeros for [2, 3], found [2]"));
  CHECK(
      fails(bitsandbytes(state("[2, 3]"), {}), "expected 2 scales or zeros for [2, 3], found []"));
}

TEST_CASE("quantised: what bitsandbytes leaves beside its codes does not fit") {
  const std::string good = state("[2, 3]");
  const auto others = [&](DType absmax, DType map, Shape map_shape) {
    return QuantisedModel()
        .add("w", DType::U8, {3, 1})
        .add("w.absmax", absmax, {2})
        .add("w.quant_map", map, map_shape)
        .add("w.quant_state.bitsandbytes__fp4", DType::U8, {good.size()}, good);
  };
  CHECK(fails(others(DType::F32, DType::F32, {15}), "expected 16 values in w.quant_map, found 15"));
  CHECK(fails(others(DType::F32, DType::F16, {16}), "expected w.quant_map of type F32, found F16"));
  CHECK(
      fails(others(DType::I32, DType::F32, {16}), "expected scales or zeros of F32, BF16 or F16"));
  CHECK(fails(others(DType::U8, DType::F32, {16}),
              "tensor w: expected w.nested_absmax beside its codes of type U8"));
  const auto nested = [&](const std::string& text) {
    return QuantisedModel()
        .add("w", DType::U8, {3, 1})
        .add("w.absmax", DType::U8, {2})
        .add("w.nested_absmax", DType::F32, {1})
        .add("w.nested_quant_map", DType::F32, {256})
        .add("w.quant_map", DType::F32, {16})
        .add("w.quant_state.bitsandbytes__fp4", DType::U8, {text.size()}, text);
  };
  CHECK(fails(nested(good), "expected nested_blocksize in the state of w, found none"));
  const std::string one = good.substr(0, good.size() - 1) + R"(, "nested_blocksize": 1})";
  CHECK(fails(nested(one), "expected 2 scales or zeros for [2], found [1]"));
  CHECK(fails(QuantisedModel().add("w", DType::U8, {3, 1}).add("w.absmax", DType::F32, {2}),
              "tensor w: expected w.quant_state.bitsandbytes__nf4 beside its codes"));
  CHECK(fails(QuantisedModel()
                  .add("w", DType::U8, {3, 1})
                  .add("w.quant_state.bitsandbytes__nf4", DType::U8, {2}, "{}"),
              "tensor w: expected w.absmax beside its codes"));
  // Codes in words of no whole bytes.
  QuantisedModel sub_byte = others(DType::F32, DType::F32, {16});
  sub_byte.m.tensors[0].dtype = DType::F4;
  sub_byte.m.tensors[0].shape = {6};
  CHECK(fails(sub_byte, "expected codes of 4 bits for 1 x 6 values, found [6] of F4"));
  CHECK(fails(QuantisedModel().add("a.weight", DType::I8, {4, 2}).add("a.SCB", DType::F32, {3}),
              "tensor a.weight: expected scales for blocks of 4 x 2 codes, found [3]"));
}

TEST_CASE("quantised: codes, scales and zeros of GPTQ and AWQ that do not fit") {
  const auto all = [](Shape codes, Shape zeros, Shape scales, DType type = DType::F16) {
    return QuantisedModel()
        .add("a.qweight", DType::I32, codes)
        .add("a.qzeros", DType::I32, zeros)
        .add("a.scales", type, scales)
        .config({{"quant_method", {std::string("gptq")}}});
  };
  CHECK(all({1, 8}, {2, 1}, {2, 8}).become_plain().empty());
  const auto unfit = [&](QuantisedModel m) {
    return fails(std::move(m),
                 "tensor a.qweight: expected codes, scales and zeros of GPTQ or AWQ "
                 "that fit each other, found a.qweight [");
  };
  CHECK(unfit(all({1, 8}, {2, 1}, {2, 8}, DType::F64)));
  CHECK(unfit(all({1, 8}, {1, 1}, {2, 8})));
  CHECK(unfit(all({1, 8}, {2, 3}, {2, 8})));   // of 12 bits
  CHECK(unfit(all({1, 8}, {2, 1}, {2, 33})));  // of no bits
  CHECK(unfit(all({1, 9}, {2, 1}, {2, 8})));
  CHECK(unfit(all({1, 8}, {3, 1}, {3, 8})));  // 8 inputs in 3 groups
  CHECK(unfit(all({0, 8}, {2, 1}, {2, 8})));
  CHECK(unfit(all({1, 8}, {0, 1}, {0, 8})));
  CHECK(unfit(all({1, 0}, {2, 0}, {2, 0})));
  CHECK(unfit(all({8}, {2, 1}, {2, 8})));
  CHECK(unfit(all({1, 8}, {2}, {2, 8})));
  CHECK(unfit(all({1, 8}, {2, 1}, {})));
  CHECK(unfit(all({0, (uint64_t{1} << 61) + 1}, {2, 1}, {2, 8})));
  QuantisedModel told = all({1, 8}, {2, 1}, {2, 8});
  CHECK(fails(told.config({{"bits", {int64_t{8}}}}),
              "expected codes of 8 bits, as config.json says, found 4: a.qweight [1, 8]"));
  const auto groups = [&](std::initializer_list<int32_t> numbers) {
    return all({1, 8}, {2, 1}, {2, 8}).add("a.g_idx", DType::I32, {numbers.size()}, raw(numbers));
  };
  CHECK(fails(groups({0, 0, 0, 0, 1, 1, 1, 2}), "expected groups below 2 in a.g_idx, found 2"));
  CHECK(fails(groups({0, 0, 0, 0, 1, 1, 1, -1}), "expected groups below 2 in a.g_idx, found -1"));
  CHECK(fails(groups({0, 0, 0}), "expected a group for each of 8 columns in a.g_idx, found 3"));
}
