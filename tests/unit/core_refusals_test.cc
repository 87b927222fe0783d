// SPDX-License-Identifier: Apache-2.0
#include "core/model/refusals.h"

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using manifest::Manifest;

namespace {

Manifest of(const std::vector<std::string>& names) {
  Manifest m;
  for (const std::string& name : names) m.tensors.push_back(tensor(name, DType::F32, {2}));
  return m;
}

manifest::Value map_of(std::initializer_list<std::pair<const char*, manifest::Value>> entries) {
  manifest::ValueMap map;
  for (const auto& [key, value] : entries) map.entries.push_back({key, value});
  return {map};
}
manifest::Value text(const char* value) { return {std::string(value)}; }

std::string verdict(const Result<void>& result) {
  return result ? "plain" : result.error().message;
}
std::string quantised(const Manifest& m) {
  const auto result = model::refuse_quantised(m);
  return result ? "plain" : result.error().message;
}

}  // namespace

TEST_CASE("plain weights are not taken for quantised ones") {
  Manifest m = of({"model.layers.0.mlp.gate_proj.weight", "h.scales", "my_blocks",
                   "h.weight_scaled", "absmaximum", "SCBX"});
  m.tensors.push_back(tensor("steps", DType::I64, {1}));
  m.source.config =
      map_of({{"model_type", text("llama")}, {"quantization_config", {manifest::Null{}}}});
  CHECK(quantised(m) == "plain");
}

TEST_CASE("config.json with a quantization_config is refused by its method") {
  Manifest m = of({"w"});
  m.source.config = map_of({{"quantization_config", map_of({{"quant_method", text("gptq")}})}});
  CHECK(quantised(m) ==
        "expected plain weights, found config.json with quantization_config \"gptq\", though every "
        "tensor is plain: if "
        "the model was merged or dequantised since, take quantization_config out of config.json");
  m.source.config = map_of({{"quantization_config", map_of({})}});
  CHECK(contains(quantised(m), "config.json with quantization_config, though"));
  m.source.config = map_of({{"quantization_config", map_of({{"quant_method", text("gptq")}})}});
  m.tensors.push_back(tensor("embeddings.position_ids", DType::I64, {1, 8}));
  CHECK(contains(quantised(m), "though every tensor is plain"));
  for (const auto& codes :
       {tensor("l.qweight", DType::I32, {4, 4}), tensor("l.bitmask", DType::U8, {4, 4}),
        tensor("l.q", DType::I32, {16})}) {
    Manifest coded = m;
    coded.tensors.push_back(codes);
    CHECK(contains(quantised(coded),
                   "expected plain weights, or codes with all that belongs to them, found "
                   "config.json with quantization_config \"gptq\""));
    CHECK(contains(quantised(coded), "convert from the model's bf16 or fp32 release"));
  }
  m.source.config =
      map_of({{"text_config",
               map_of({{"quantization_config", map_of({{"quant_method", text("awq")}})}})}});
  CHECK(contains(quantised(m), "quantization_config \"awq\""));
  m.source.config =
      map_of({{"quantization_config", {manifest::Null{}}},
              {"text_config",
               map_of({{"quantization_config", map_of({{"quant_method", text("fp8")}})}})}});
  CHECK(contains(quantised(m), "quantization_config \"fp8\""));
}

TEST_CASE("element types of quantised codes are refused by name") {
  for (const DType dtype : {DType::F8_E4M3, DType::F8_E5M2, DType::F8_E4M3FNUZ, DType::F8_E5M2FNUZ,
                            DType::F8_E8M0, DType::F4, DType::F6_E2M3, DType::F6_E3M2}) {
    Manifest m = of({"norm"});
    m.tensors.push_back(tensor("w", dtype, {8}));
    CHECK(contains(quantised(m), cat("found tensor w of type ", manifest::name(dtype),
                                     " without a scale beside it (w_scale_inv, _scale)")));
  }
}

TEST_CASE("the parts that quantisation methods leave beside their codes are refused by name") {
  for (const char* name :
       {"l.qweight", "l.qzeros", "l.g_idx",                          // GPTQ, AWQ
        "l.weight_scale_inv", "l.weight_scale",                      // FP8
        "l.weight_packed", "l.weight_zero_point", "l.weight_shape",  // compressed-tensors
        "l.weight.absmax", "l.weight.quant_map", "l.weight.quant_state.bitsandbytes__nf4",
        "l.SCB"}) {  // bitsandbytes
    INFO(name);
    Manifest m = of({"norm"});
    m.tensors.push_back(tensor(name, DType::U8, {8}));
    CHECK(contains(quantised(m), cat("found tensor ", name,
                                     ", which a quantisation method left beside its codes")));
  }
  for (const char* part : {"mlp.experts.down_proj_blocks", "mlp.experts.down_proj_scales"}) {
    Manifest m = of({"norm"});
    m.tensors.push_back(tensor(part, DType::U8, {2, 4, 4}));
    CHECK(contains(quantised(m), "(MXFP4)"));
  }
}

TEST_CASE("what counts is what layout rules leave of the codes") {
  Manifest m = of({"l.norm.weight"});
  manifest::Tensor made = tensor("l.qweight+l.scales", DType::F32, {4, 4});
  made.target_name = "l.weight";
  m.tensors.push_back(made);
  m.tensors.push_back(tensor("l.qweight", DType::F32, {4, 4}));
  CHECK(contains(quantised(m), "tensor l.qweight, which"));
  m.tensors[2].target_name =
      "l.weight";  // a rule's name for a stored tensor does not make it plain
  CHECK(contains(quantised(m), "tensor l.qweight, which"));
  m.tensors[2].expression = "transpose(l.qweight)";
  CHECK(quantised(m) == "plain");
  m.tensors[2].target_name = "l.W_q";
  m.tensors[2].dtype = DType::I32;
  CHECK(contains(quantised(m), "left beside its codes (HQQ)"));
  m.tensors[2].excluded = "a rule says so";
  CHECK(quantised(m) == "plain");
  CHECK_FALSE(model::has_integer_values(m));
}

TEST_CASE("integer matrices without a config.json are codes; masks, ids and counters are buffers") {
  const auto with = [](const char* name, DType dtype, std::vector<uint64_t> shape,
                       std::vector<std::string> beside = {}) {
    Manifest m = of(beside);
    m.tensors.push_back(tensor(name, dtype, std::move(shape)));
    return quantised(m);
  };
  CHECK(contains(with("l.weight", DType::U32, {4, 2}, {"l.scales", "l.biases"}),
                 "are codes of a quantisation (MLX)"));
  CHECK(contains(with("l.weight", DType::I8, {4, 4}),
                 "tensor l.weight of type I8, whose integers are codes"));
  CHECK(contains(with("experts.w1.weight", DType::I8, {4, 4}), "are codes"));
  CHECK(contains(with("experts.gate_up_proj", DType::U8, {2, 4, 4}), "are codes"));
  CHECK(contains(with("l.weight", DType::I64, {4, 4}), "are codes"));
  CHECK(contains(with("l.W_q", DType::U8, {4, 4}), "left beside its codes (HQQ)"));
  CHECK(contains(with("l.q_weight", DType::I32, {4, 4}), "(EXL2)"));
  CHECK(contains(with("l.trellis", DType::I16, {4, 4, 4}), "(EXL3)"));
  CHECK(contains(with("l.weight._data", DType::I8, {4, 4}), "(quanto)"));
  CHECK(contains(with("l.codes", DType::I16, {4, 4, 1}, {"l.codebooks", "l.scales"}), "(AQLM)"));
  CHECK(contains(with("l.indices", DType::U16, {4, 4, 1}, {"l.centroids.weight"}), "(VPTQ)"));
  CHECK(contains(with("l.B", DType::I32, {4, 4}, {"l.s"}), "(Marlin)"));
  CHECK(contains(with("l.mlp1_weight.blocks", DType::U8, {4, 4}, {"l.mlp1_weight.scales"}),
                 "(MXFP4)"));
  CHECK(contains(with("l.Qidxs", DType::I64, {4, 4}), "(QuIP#)"));
  CHECK(contains(with("l.weight", DType::I8, {4, 4}, {"l.weight_scales"}),
                 "whose integers are codes"));
  for (const char* name :
       {"position_ids", "attn.bias", "attn.masked_bias", "relative_position_index", "weight_mask",
        "bn.num_batches_tracked", "l.weight_indices", "token_type_ids"}) {
    INFO(name);
    CHECK(with(name, DType::I64, {4, 4}) == "plain");
    CHECK(with(name, DType::U8, {1, 1, 4, 4}) == "plain");
  }
  CHECK(with("l.weight", DType::BOOL, {4, 4}) == "plain");
  for (const char* name : {"attn.q_scale", "vq.codebooks", "W_q", "trellis", "l._data",
                           "weight_scales", "l.codes", "B"}) {
    INFO(name);
    CHECK(with(name, DType::F32, {4, 4}) ==
          "plain");  // words that methods use too, without their codes
  }
  CHECK(with("l.weight", DType::I32, {4}) == "plain");
}

TEST_CASE("adapters are refused, alone and in a model, by the names that the job would have") {
  const auto adapters = [](const std::vector<std::string>& names) {
    return verdict(model::refuse_adapters(of(names)));
  };
  CHECK(adapters({"model.layers.0.q_proj.weight", "lora.weight", "w_lora.lora.0.weight",
                  "soft_router.weight", "soft_reset.weight", "via3_linear.weight",
                  "flora_upper.weight", "base_layer.0.weight", "flora_a.weight"}) == "plain");
  CHECK(contains(
      adapters({"base_model.model.q_proj.lora_A.weight", "base_model.model.q_proj.lora_B.weight"}),
      "found an adapter (LoRA and its kin) alone, as in base_model.model.q_proj.lora_A.weight: "
      "merge it"));
  CHECK(contains(
      adapters({"norm", "q_proj.base_layer.weight", "q_proj.lora_A.default.weight"}),
      "found a model with an adapter (LoRA) that is not merged, as in q_proj.base_layer.weight"));
  for (const char* name :
       {"lora_unet_mid.lora_down.weight", "to_q_lora.up.weight.lora_up", "x.hada_w1_a", "x.lokr_w2",
        "x.lora_magnitude_vector", "x.oft_r", "x.ia3_l", "x.lora.down.weight",
        "x.modules_to_save.default.weight", "e.lora_embedding_A.default", "q_proj.lora_a",
        "l.lora_a.weight", "to_q_lora.down.weight", "proj_lora1.down.weight", "lora_te1_text.alpha",
        "q.vblora_logits_A", "prefix_encoder.embedding.weight", "q_proj.oft_R.weight",
        "prompt_embeddings"}) {
    INFO(name);
    CHECK(contains(adapters({"norm", name}), cat("as in ", name)));
  }
  Manifest file = of({"w"});
  file.source.files = {{"adapter_model.bin", 1, {}}};
  CHECK(contains(verdict(model::refuse_adapters(file)), "found an adapter"));
  Manifest renamed = of({"q_proj.base_layer.weight"});
  renamed.tensors[0].target_name = "q_proj.weight";
  CHECK(verdict(model::refuse_adapters(renamed)) == "plain");
}

TEST_CASE("parameters that ZeRO-3 held in pieces are refused") {
  const auto ungathered = [](std::vector<std::pair<const char*, std::vector<uint64_t>>> tensors) {
    Manifest m;
    for (auto& [name, shape] : tensors) {
      m.tensors.push_back(tensor(name, DType::BF16, std::move(shape)));
      m.tensors.back().role = manifest::Role::kParameter;
    }
    return verdict(model::refuse_ungathered(m));
  };
  CHECK(
      ungathered(
          {{"q_proj.weight", {4, 4}}, {"norm.weight", {4}}, {"scale", {}}, {"act.weight", {1}}}) ==
      "plain");
  const std::string none =
      ungathered({{"norm.weight", {4}}, {"q_proj.weight", {0}}, {"k_proj.weight", {0}}});
  CHECK(contains(none,
                 "tensor q_proj.weight: expected a parameter's values, found none (so are 2 of 3 "
                 "parameters)"));
  CHECK(contains(none, "ZeRO-3"));
  CHECK(contains(none, "DeepSpeed checkpoint (the folder that holds `latest`)"));
  CHECK(contains(ungathered({{"a.weight", {4, 0}}}), "found none"));
  CHECK(contains(ungathered({{"a", {0}}}), "found none"));
  CHECK(ungathered({{"a", {4, 0}}}) == "plain");
  for (const char* name : {"model.layers.0.self_attn.q_proj.weight", "lm_head.weight", "fc1.weight",
                           "h.0.c_attn.weight"})
    CHECK(contains(ungathered({{name, {1}}}), "found a placeholder of one element"));
  CHECK(ungathered({{"lm_head.weight", {1, 1}}}) == "plain");
  CHECK(contains(ungathered({{"a._flat_param", {64}}, {"b", {4}}}),
                 "found one that FSDP made of many"));
  CHECK(contains(ungathered({{"a.to_x.weight", {1}},
                             {"b.conv.weight", {1}},
                             {"c.up.weight", {1}},
                             {"n.weight", {4}}}),
                 "found a placeholder of one element (so are 3 of 4"));
  CHECK(ungathered({{"conv.weight", {4, 4, 3, 3}},
                    {"act.weight", {1}},
                    {"conv2.weight", {4, 4}},
                    {"act2.weight", {1}}}) == "plain");
  Manifest buffers;
  buffers.tensors.push_back(tensor("none", DType::F32, {0}));
  buffers.tensors.back().role = manifest::Role::kBuffer;
  CHECK(verdict(model::refuse_ungathered(buffers)) == "plain");
}

TEST_CASE("moments of an optimizer among the parameters are refused") {
  CHECK(verdict(model::refuse_moments(of({"w", "exp_avg_w", "norm.momentum"}))) == "plain");
  for (const char* name :
       {"optimizer.state.w.exp_avg", "optim.w.exp_avg_sq", "0.momentum_buffer"}) {
    INFO(name);
    CHECK(contains(verdict(model::refuse_moments(of({"w", name}))),
                   "found an optimizer's state among them"));
  }
}
