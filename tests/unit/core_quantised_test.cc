// SPDX-License-Identifier: Apache-2.0

// Which tensors each scheme takes together, and what it makes of them: values that can be worked
// out by hand. Those of whole models are compared with the real libraries
// (tests/interop/test_quantised).
#include "tests/unit/core_quantised_model.h"

#include <cmath>

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using manifest::Value;
using manifest::ValueList;
using Values = std::vector<float>;
using Shape = std::vector<uint64_t>;

namespace {

constexpr int kOne = 0x38, kOneAndHalf = 0x3C, kTwo = 0x40, kThree = 0x44, kFour = 0x48;  // of E4M3
constexpr int kSign = 0x80;
constexpr uint16_t kHalf1 = 0x3C00, kHalf2 = 0x4000;  // of F16

// The only weight of a model.
struct One {
  std::string error, names, note;
  Shape shape;
  Values values;
};
One plain(QuantisedModel model, const std::string& weight) {
  One out;
  out.error = model.become_plain();
  if (!out.error.empty()) return out;
  REQUIRE(model.notes.size() == 1);
  out.names = model.names();
  out.note = model.notes[0];
  out.shape = model.of(weight).shape;
  out.values = model.values(weight);
  return out;
}

Value list(std::initializer_list<int64_t> numbers) {
  ValueList out;
  for (const int64_t n : numbers) out.values.push_back({n});
  return {out};
}

}  // namespace

TEST_CASE("quantised: FP8 in blocks, FP4 in pairs, MXFP8") {
  const auto fp8 = [&] {
    return QuantisedModel().add(
        "a.weight", DType::F8_E4M3, {2, 4},
        bytes({kOne, kTwo, kThree, kFour, kOne | kSign, kOneAndHalf, 0, kTwo}));
  };
  const Values want{0.5f, 1, 6, 8, -0.5f, 0.75f, 0, 4};
  for (const char* scale : {"a.weight_scale_inv", "a.scale", "a.qscale_weight"}) {
    const One one = plain(fp8().add(scale, DType::F32, {1, 2}, floats({0.5f, 2})), "a.weight");
    CHECK(one.error.empty());
    CHECK(one.names == "a.weight");
    CHECK(one.shape == Shape{2, 4});
    CHECK(one.values == want);
    CHECK(one.note == "1 weights were dequantised to F32: 1 of FP8 in blocks of 2x2.");
  }
  // Blocks that do not fill the matrix, by config.json.
  const One told = plain(fp8()
                             .add("a.weight_scale_inv", DType::F32, {1, 2}, floats({0.5f, 2}))
                             .config({{"weight_block_size", list({8, 3})}}),
                         "a.weight");
  CHECK(told.values == Values{0.5f, 1, 1.5f, 8, -0.5f, 0.75f, 0, 4});
  CHECK(told.note == "1 weights were dequantised to F32: 1 of FP8 in blocks of 8x3.");
  const One rows =
      plain(fp8().add("a.scale", DType::F8_E8M0, {2, 1}, bytes({128, 126})), "a.weight");
  CHECK(rows.values == Values{2, 4, 6, 8, -0.5f, 0.75f, 0, 1});
  CHECK(rows.note == "1 weights were dequantised to F32: 1 of FP8, one scale a row.");
  const One pairs = plain(QuantisedModel()
                              .add("a.weight", DType::I8, {1, 2}, bytes({0x21, 0x9F}))
                              .add("a.scale", DType::F8_E8M0, {1, 1}, bytes({128})),
                          "a.weight");
  CHECK(pairs.shape == Shape{1, 4});
  CHECK(pairs.values == Values{1, 2, -12, -1});
}

TEST_CASE("quantised: one byte a code with zeros, and ModelOpt's") {
  const One int8 = plain(QuantisedModel()
                             .add("w_zero_point", DType::I8, {2, 1}, bytes({1, 2}))
                             .add("w_scale", DType::F32, {2, 1}, floats({2, 0.5f}))
                             .add("w", DType::I8, {2, 2}, bytes({1, -2, 3, 4}))
                             .add("bias", DType::F32, {2}),
                         "w");
  CHECK(int8.names == "w bias");
  CHECK(int8.values == Values{0, -6, 0.5f, 1});
  CHECK(int8.note == "1 weights were dequantised to F32: 1 of int8, one scale a row.");
  const One fp8 = plain(QuantisedModel()
                            .add("w", DType::F8_E4M3, {1, 2}, bytes({kOne, kThree}))
                            .add("w_scale", DType::F32, {}, floats({0.25f})),
                        "w");
  CHECK(fp8.values == Values{0.25f, 0.75f});
  CHECK(fp8.note == "1 weights were dequantised to F32: 1 of FP8, one scale a tensor.");
  const One nvfp4 = plain(QuantisedModel()
                              .add("w", DType::U8, {1, 4}, bytes({0x98, 0x21, 0, 0x0A}))
                              .add("w_scale", DType::F8_E4M3, {1, 2}, bytes({kOne, kFour}))
                              .add("w_scale_2", DType::F32, {}, floats({0.5f})),
                          "w");
  CHECK(nvfp4.names == "w");
  CHECK(nvfp4.shape == Shape{1, 8});
  CHECK(nvfp4.values == Values{0, -0.25f, 0.25f, 0.5f, 0, 0, -2, 0});
  CHECK_FALSE(std::signbit(nvfp4.values[0]));  // which has no zero with a sign
  CHECK(nvfp4.note == "1 weights were dequantised to F32: 1 of NVFP4 of ModelOpt.");
}

namespace {

// Rows of the codes 0 to 7, and of 15s.
QuantisedModel packed() {
  return QuantisedModel()
      .config({{"bits", {int64_t{4}}}})
      .add("w_packed", DType::I32, {2, 1}, raw<uint32_t>({0x76543210, 0xFFFFFFFF}))
      .add("w_shape", DType::I64, {2}, raw<int64_t>({2, 8}))
      .add("w_scale", DType::F32, {2, 2}, floats({1, 2, 3, 0.5f}));
}

}  // namespace

TEST_CASE("quantised: integers in words") {
  const One one = plain(packed(), "w");
  CHECK(one.error.empty());
  CHECK(one.names == "w");
  CHECK(one.shape == Shape{2, 8});
  CHECK(one.values ==
        Values{-8, -7, -6, -5, -8, -6, -4, -2, 21, 21, 21, 21, 3.5f, 3.5f, 3.5f, 3.5f});
  CHECK(one.note == "1 weights were dequantised to F32: 1 of int4 in blocks of 1x4.");
  // Zeros are packed down the rows: 1 and 2 of the first column of groups, 3 and 15 of the second.
  const One zeros =
      plain(packed().add("w_zero_point", DType::I32, {1, 2}, raw<uint32_t>({0x21, 0xF3})), "w");
  CHECK(zeros.values == Values{-1, 0, 1, 2, 2, 4, 6, 8, 39, 39, 39, 39, 0, 0, 0, 0});
  const One of_bytes =
      plain(packed().add("w_zero_point", DType::I8, {2, 2}, bytes({1, -1, 0, 7})), "w");
  CHECK(of_bytes.values == Values{-9, -8, -7, -6, -6, -4, -2, 0, 21, 21, 21, 21, 0, 0, 0, 0});
  const One groups =
      plain(packed().add("w_g_idx", DType::I32, {8}, raw<int32_t>({1, 0, 1, 0, 1, 0, 1, 0})), "w");
  CHECK(groups.names == "w");
  CHECK(groups.values ==
        Values{-16, -7, -12, -5, -8, -3, -4, -1, 3.5f, 21, 3.5f, 21, 3.5f, 21, 3.5f, 21});
  const One unused = plain(packed().add("w_g_idx", DType::I32, {8}, raw<int32_t>({-1})), "w");
  CHECK(unused.names == "w");
  CHECK(unused.values == one.values);
}

TEST_CASE("quantised: how many bits codes in words have") {
  const auto of = [](uint64_t columns, uint64_t words, std::vector<int64_t> told) {
    QuantisedModel model;
    model.add("w_packed", DType::I32, {1, words});
    model.add("w_shape", DType::I32, {2}, raw<int32_t>({1, static_cast<int32_t>(columns)}));
    model.add("w_scale", DType::F32, {1, 1}, floats({1}));
    if (!told.empty()) model.config({{"bits", {told[0]}}, {"w_bit", {told.back()}}});
    const One one = plain(model, "w");
    return one.error.empty() ? one.note.substr(one.note.find(" of ") + 4) : one.error;
  };
  CHECK(of(32, 1, {}) == "int1, one scale a tensor.");
  CHECK(of(32, 7, {}) == "int7, one scale a tensor.");
  CHECK(of(100, 10, {}) == "int3, one scale a tensor.");
  CHECK(of(100, 10, {4, 3}) == "int3, one scale a tensor.");
  CHECK(of(5, 1, {4}) == "int4, one scale a tensor.");
  CHECK(contains(of(5, 1, {}),
                 "tensor w_packed: expected codes of a number of bits in w_packed, "
                 "of which 5 make a row, found 1 words a row"));
  CHECK(contains(of(32, 3, {4, 8}), "expected codes of 4 or 8 bits in w_packed"));
}

TEST_CASE("quantised: small floats in bytes") {
  const One nvfp4 = plain(QuantisedModel()
                              .add("w_packed", DType::U8, {1, 2}, bytes({0x21, 0xF7}))
                              .add("w_scale", DType::F8_E4M3, {1, 1}, bytes({kThree}))
                              .add("w_global_scale", DType::F32, {1}, floats({2})),
                          "w");
  CHECK(nvfp4.names == "w");
  CHECK(nvfp4.shape == Shape{1, 4});
  CHECK(nvfp4.values == Values{0.75f, 1.5f, 9, -9});
  CHECK(nvfp4.note == "1 weights were dequantised to F32: 1 of NVFP4 of compressed-tensors.");
  const One mxfp4 = plain(QuantisedModel()
                              .add("w_packed", DType::U8, {2, 16}, bytes({0x21}))
                              .add("w_scale", DType::U8, {2, 1}, bytes({126, 127})),
                          "w");
  CHECK(mxfp4.shape == Shape{2, 32});
  CHECK(Values(mxfp4.values.begin(), mxfp4.values.begin() + 3) == Values{0.25f, 0.5f, 0});
  CHECK(mxfp4.note == "1 weights were dequantised to F32: 1 of MXFP4, one scale a row.");
  const One mxfp6 = plain(QuantisedModel()
                              .add("w_packed", DType::U8, {1, 24}, bytes({0x48, 0x10, 0xFC}))
                              .add("w_scale", DType::U8, {1, 1}, bytes({128})),
                          "w");
  CHECK(mxfp6.shape == Shape{1, 32});
  // 001000, 000001, 000001, 111111, from the lowest bit on, by two
  CHECK(Values(mxfp6.values.begin(), mxfp6.values.begin() + 5) == Values{2, 0.25f, 0.25f, -15, 0});
}

TEST_CASE("quantised: MXFP4 of gpt-oss is turned") {
  std::string blocks(2 * 16, '\0');
  blocks[0] = 0x21;
  blocks[16] = 0x76;
  const One one = plain(QuantisedModel()
                            .add("w_scales", DType::U8, {1, 2, 1}, bytes({127, 128}))
                            .add("w_blocks", DType::U8, {1, 2, 1, 16}, blocks),
                        "w");
  CHECK(one.names == "w");
  CHECK(one.shape == Shape{1, 32, 2});
  CHECK(Values(one.values.begin(), one.values.begin() + 6) == Values{0.5f, 8, 1, 12, 0, 0});
}

TEST_CASE("quantised: bitsandbytes") {
  std::string table, map;
  for (int i = 0; i < 256; ++i) (i < 16 ? table : map) += floats({static_cast<float>(i)});
  map = table + map;
  const std::string state =
      R"({"blocksize": 3, "dtype": "float32", "shape": [2, 3], "nested_blocksize": 1, "nested_offset": 0.5})";
  const auto four = [&](const char* kind) {
    return QuantisedModel()
        .add("a.weight", DType::U8, {3, 1}, bytes({0x12, 0x34, 0x56}))
        .add("a.weight.quant_map", DType::F32, {16}, table)
        .add(cat("a.weight.quant_state.bitsandbytes__", kind), DType::U8, {state.size()}, state);
  };
  for (const char* kind : {"nf4", "fp4"}) {
    const One one =
        plain(four(kind).add("a.weight.absmax", DType::F32, {2}, floats({10, -1})), "a.weight");
    CHECK(one.error.empty());
    CHECK(one.names == "a.weight");
    CHECK(one.shape == Shape{2, 3});
    CHECK(one.values == Values{10, 20, 30, -4, -5, -6});
    CHECK(one.note ==
          "1 weights were dequantised to F32: 1 of bitsandbytes 4 bits in blocks of 3.");
  }
  const One nested = plain(four("nf4")
                               .add("a.weight.absmax", DType::U8, {2}, bytes({200, 2}))
                               .add("a.weight.nested_absmax", DType::F32, {2}, floats({1, 2}))
                               .add("a.weight.nested_quant_map", DType::F32, {256}, map),
                           "a.weight");
  CHECK(nested.names == "a.weight");
  CHECK(nested.values == Values{200.5f, 401, 601.5f, 18, 22.5f, 27});
  CHECK(contains(nested.note, "blocks of 3, nested."));
  const One eight = plain(QuantisedModel()
                              .add("a.weight", DType::I8, {2, 2}, bytes({127, -127, 1, 0}))
                              .add("a.SCB", DType::F32, {2}, floats({2, 127}))
                              .add("a.weight_format", DType::U8, {}),
                          "a.weight");
  CHECK(eight.names == "a.weight");
  CHECK(eight.values == Values{254 * 0.0078740157f, -254 * 0.0078740157f, 127 * 0.0078740157f, 0});
}

TEST_CASE("quantised: GPTQ's words hold inputs, AWQ's outputs in an order of their own") {
  const std::string halves =
      raw<uint16_t>({kHalf1, kHalf2, kHalf1, kHalf1, kHalf1, kHalf1, kHalf1, kHalf1, kHalf2, kHalf1,
                     kHalf1, kHalf1, kHalf1, kHalf1, kHalf1, kHalf1});
  const auto model = [&](Shape codes) {
    return QuantisedModel()
        .add("a.qzeros", DType::I32, {2, 1}, raw<uint32_t>({0x76543210, 0x1}))
        .add("a.scales", DType::F16, {2, 8}, halves)
        .add("a.qweight", DType::I32, codes, raw<uint32_t>({0x76543210, 0xFEDCBA98}));
  };
  // Output 0 has its zeros at 0 and 1, less one, and scales of 1 and 2; output 1 at 1 and 0.
  const One gptq =
      plain(model({1, 8}).config({{"quant_method", {std::string("gptq")}}}), "a.weight");
  CHECK(gptq.error.empty());
  CHECK(gptq.names == "a.weight");
  CHECK(gptq.shape == Shape{8, 8});
  CHECK(Values(gptq.values.begin(), gptq.values.begin() + 16) ==
        Values{-1, 0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 11, 12, 13, 14});
  CHECK(contains(gptq.note, "1 of GPTQ 4 bits in groups of 4."));
  const One second =
      plain(model({1, 8}).config({{"checkpoint_format", {std::string("gptq_v2")}}}), "a.weight");
  CHECK(Values(second.values.begin(), second.values.begin() + 8) ==
        Values{0, 1, 2, 3, 6, 8, 10, 12});
  const std::string order = raw<int32_t>({0, 1, 0, 1, 0, 1, 0, 1});
  const One grouped = plain(model({1, 8})
                                .add("a.g_idx", DType::I32, {8}, order)
                                .config({{"quant_method", {std::string("gptq")}}}),
                            "a.weight");
  CHECK(grouped.names == "a.weight");
  CHECK(Values(grouped.values.begin(), grouped.values.begin() + 8) ==
        Values{-1, -2, 1, 2, 3, 6, 5, 10});
  // Codes and zeros 0, 4, 1, 5, 2, 6, 3, 7 of the lowest word.
  const One awq = plain(model({2, 1}).config({{"quant_method", {std::string("awq")}}}), "a.weight");
  CHECK(awq.names == "a.weight");
  CHECK(awq.shape == Shape{8, 2});
  CHECK(awq.values == Values{0, 14, 0, 12, 0, 9, 0, 13, 0, 10, 0, 14, 0, 11, 0, 15});
  CHECK(contains(awq.note, "1 of AWQ in groups of 1."));
}

TEST_CASE("quantised: what is plain stays as it is") {
  QuantisedModel model;
  model.add("a.weight", DType::F32, {2, 2}).add("a.scale", DType::F32, {2});
  model.add("a.input_scale", DType::F32, {}).add("ids", DType::I8, {4});
  model.add("b.weight_scale", DType::F32, {2}).add("b.weight", DType::BF16, {2, 2});
  model.add("c.weight", DType::I8, {2, 2}).add("d_blocks", DType::U8, {2, 16});
  model.add("e.weight", DType::F8_E4M3, {2}).add("e_packed", DType::F32, {2, 2});
  model.add("f.qweight", DType::F32, {2, 2}).add("g.SCB", DType::F32, {2});
  model.config({{"quant_method", {std::string("fp8")}}});
  CHECK(model.become_plain().empty());
  CHECK(model.results.empty());
  CHECK(model.notes.empty());
  model.add("h.weight", DType::F8_E4M3, {2, 2}).add("h.weight_scale", DType::F32, {1});
  model.m.tensors.back().excluded = "by the user";
  CHECK(model.become_plain().empty());
  CHECK(model.results.empty());
}

TEST_CASE("quantised: several schemes in one model, and what belongs to activations") {
  QuantisedModel model = packed();
  model.add("a.weight", DType::F8_E4M3, {2, 2}, bytes({kOne, kTwo, kThree, kFour}));
  model.add("a.weight_scale", DType::F32, {1}, floats({2}));
  model.add("a.input_scale", DType::F32, {1}).add("k_scale", DType::F32, {1});
  model.add("b.weight", DType::BF16, {2, 2});
  model.add("c.weight", DType::I8, {1, 2}, bytes({127, 0}));
  model.add("c.SCB", DType::F32, {1}, floats({1}));
  model.add("d.q_scale_of_mine", DType::F32, {1});
  CHECK(model.become_plain().empty());
  CHECK(model.names() == "w a.weight b.weight c.weight d.q_scale_of_mine");
  REQUIRE(model.notes.size() == 1);
  CHECK(
      model.notes[0] ==
      "3 weights were dequantised to F32: 1 of FP8, one scale a tensor, 1 of bitsandbytes 8 bits, "
      "1 of int4 in blocks of 1x4.");
  CHECK(contains(model.of("a.input_scale").excluded, "belongs to quantised activations"));
  CHECK(contains(model.of("k_scale").excluded, "belongs to quantised activations"));
  CHECK(model.values("a.weight") == Values{2, 4, 6, 8});
  CHECK(model.of("w").name == "w_packed");
  CHECK(model.of("w").expression == "dequantise(int4, w_packed, w_scale)");
  CHECK(model.of("w").extents.size() == 3);  // all that it is made of
  CHECK(model.of("b.weight").dtype == DType::BF16);
  CHECK(model.of("b.weight").expression.empty());
}

TEST_CASE("quantised: the type of values is the user's, config.json's, or the plain weights'") {
  const auto type_of = [](std::optional<DType> wanted, const char* told, DType beside) {
    QuantisedModel model;
    model.add("n", DType::F32, {2, 2}).add("b", beside, {2, 2});
    model.add("a.weight", DType::F8_E4M3, {2, 2}).add("a.weight_scale", DType::F32, {1});
    manifest::ValueMap config;
    config.entries = {{"dtype", {std::string(told)}}};
    model.m.source.config.kind = std::move(config);
    CHECK(model.become_plain(wanted).empty());
    return model.of("a.weight").dtype;
  };
  CHECK(type_of(DType::F16, "bfloat16", DType::BF16) == DType::F16);
  CHECK(type_of({}, "float16", DType::BF16) == DType::F16);
  CHECK(type_of({}, "float32", DType::BF16) == DType::F32);
  CHECK(type_of({}, "bfloat16", DType::F16) == DType::BF16);
  CHECK(type_of({}, "auto", DType::F16) == DType::F16);
  CHECK(type_of({}, "auto", DType::F32) == DType::BF16);
}

TEST_CASE("quantised: what refers to tensors follows them") {
  QuantisedModel model;
  model.add("a.weight_scale", DType::F32, {1}).add("a.weight", DType::F8_E4M3, {2, 2});
  model.add("n", DType::F32, {2}).add("m", DType::F32, {2}).add("k", DType::F32, {2});
  model.m.alias_groups = {{{2, 4}}, {{1, 3}}};
  CHECK(model.become_plain().empty());
  CHECK(model.names() == "a.weight n m k");
  CHECK(model.m.alias_groups == std::vector<manifest::AliasGroup>{{{1, 3}}});
  QuantisedModel trained;
  trained.add("a.weight_scale", DType::F32, {1}).add("a.weight", DType::F8_E4M3, {2, 2});
  trained.m.training.groups = {{{1}, {}}};
  CHECK(contains(trained.become_plain(), "of a training state"));
}

TEST_CASE("quantised: codes and scales whose elements lie apart, as a torch file may have them") {
  QuantisedModel model;
  model.add("w", DType::I8, {2, 3}, bytes({9, 1, 4, 2, 5, 3, 6}));
  model.m.tensors[0].strides = {1, 2};  // turned, behind another element
  model.m.tensors[0].storage_offset = 1;
  model.m.tensors[0].storage_elements = 7;
  model.add("w_scale", DType::F32, {2, 1}, floats({2}));
  model.m.tensors[1].strides = {0, 1};  // one element for both rows
  model.m.tensors[1].storage_elements = 1;
  CHECK(model.become_plain().empty());
  CHECK(model.values("w") == Values{2, 4, 6, 8, 10, 12});
  CHECK(model.of("w").strides.empty());
  CHECK(model.of("w").expression ==
        "dequantise(int8, strided([1, 2], 1, w), strided([0, 1], w_scale))");
}

TEST_CASE("quantised: tensors that are expressions already") {
  // Stored the other way round, as a layout may have them.
  QuantisedModel model;
  model.add("s", DType::F32, {2, 1}, floats({2, 0.5f}));
  model.add("w", DType::F8_E4M3, {2, 2}, bytes({kOne, kTwo, kThree, kFour}));
  transform::View view = transform::View::of(Shape{2, 2});
  REQUIRE(view.permute(Shape{1, 0}));
  model.made = {
      transform::Expression::stored(0, DType::F32, {2, 1}),
      transform::Expression::view(transform::Expression::stored(1, DType::F8_E4M3, {2, 2}), view,
                                  {{"transpose", ""}})};
  model.m.tensors[0].target_name = "a.weight_scale";
  model.m.tensors[1].target_name = "a.weight";
  CHECK(model.become_plain().empty());
  CHECK(model.names() == "a.weight");
  CHECK(model.values("a.weight") == Values{2, 6, 1, 2});
  CHECK(model.of("a.weight").expression == "dequantise(e4m3, transpose(w), s)");
}
