#include "core/model/refusals.h"

#include "core/base/text.h"
#include "core/model/check.h"
#include "core/model/config.h"

#include <algorithm>
#include <array>
#include <span>
#include <unordered_set>

namespace crossdock::model {

using manifest::Kind;
using manifest::Manifest;
using manifest::Tensor;

namespace {

// The part of a name behind its last dot.
std::string_view leaf(std::string_view name) { return name.substr(name.rfind('.') + 1); }

bool is_one_of(std::string_view text, std::span<const std::string_view> list) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// ---- quantisation

struct Companion {
  std::string_view leaf, method;
};
// What the methods call their codes, and what they leave beside them.
constexpr Companion kCompanions[] = {
    {"qweight", "GPTQ or AWQ"},
    {"qzeros", "GPTQ or AWQ"},
    {"g_idx", "GPTQ"},
    {"weight_scale", "FP8 or compressed-tensors"},
    {"weight_scale_inv", "FP8"},
    {"weight_scale_2", "ModelOpt"},
    {"weight_packed", "compressed-tensors"},
    {"weight_zero_point", "compressed-tensors"},
    {"weight_shape", "compressed-tensors"},
    {"weight_global_scale", "compressed-tensors"},
    {"absmax", "bitsandbytes"},
    {"quant_map", "bitsandbytes"},
    {"nested_absmax", "bitsandbytes"},
    {"SCB", "bitsandbytes"},
    {"W_q", "HQQ"},
    {"q_weight", "EXL2"},
    {"q_invperm", "EXL2"},
    {"q_scale", "EXL2"},
    {"q_scale_max", "EXL2"},
    {"q_groups", "EXL2"},
    {"trellis", "EXL3"},
    {"Qidxs", "QuIP#"},
    {"codebooks", "AQLM"},
    {"_data", "quanto"},
    {"weight_scales", "EETQ"},
    {"dense_weights", "SpQR"},
    {"res_centroids", "VPTQ"},
};

// How a method's parts are called; empty for other names.
std::string_view method_of(std::string_view name) {
  const auto it = std::find_if(std::begin(kCompanions), std::end(kCompanions),
                               [&](const Companion& c) { return c.leaf == leaf(name); });
  if (it != std::end(kCompanions)) return it->method;
  return name.find(".quant_state.") != std::string_view::npos ? "bitsandbytes" : std::string_view();
}

// Integers of two or more dimensions under the name of a matrix. Masks, ids and counters are called otherwise.
bool is_integer_matrix(const Tensor& t) {
  constexpr std::string_view kMatrices[] = {"codes", "kernel", "embedding", "w1", "w2", "w3"};
  constexpr std::string_view kNone[] = {"mask", "ids", "index", "indices"};
  if (manifest::info(t.dtype).kind != Kind::kInteger || t.shape.size() < 2) return false;
  const std::string_view name = leaf(t.name);
  if (std::any_of(std::begin(kNone), std::end(kNone), [&](std::string_view end) { return name.ends_with(end); }))
    return false;
  return name.find("weight") != std::string_view::npos || name.ends_with("_proj") || is_one_of(name, kMatrices);
}

using Names = std::unordered_set<std::string_view>;

// What tells by type or name that a tensor holds codes, or belongs to some; empty when nothing does.
std::string named_sign(const Tensor& t, const Names& names) {
  const Kind kind = manifest::info(t.dtype).kind;
  const std::string tensor = cat("tensor ", base::printable(t.name));
  if (kind == Kind::kFloat8 || kind == Kind::kSubByte) return cat(tensor, " of type ", manifest::name(t.dtype));
  std::string_view method = method_of(t.name);
  constexpr std::string_view kBlocks = "_blocks";
  if (t.name.ends_with(kBlocks) && names.contains(t.name.substr(0, t.name.size() - kBlocks.size()) + "_scales"))
    method = "MXFP4";
  return method.empty() ? "" : cat(tensor, ", which a quantisation method left beside its codes (", method, ')');
}

// The same by integers where a matrix should be.
std::string integer_sign(const Tensor& t, const Names& names) {
  if (!is_integer_matrix(t)) return {};
  const std::string before = t.name.substr(0, t.name.size() - leaf(t.name).size());
  const bool is_mlx = names.contains(before + "scales") && names.contains(before + "biases");
  return cat("tensor ", base::printable(t.name), " of type ", manifest::name(t.dtype),
             ", whose integers are codes of a quantisation", is_mlx ? " (MLX)" : "");
}

// The first sign of all tensors: a name that only one method uses says more than integers do.
std::string sign_of_codes(const Manifest& m) {
  Names names;
  for (const Tensor& t : m.tensors) names.insert(t.name);
  for (const auto sign : {named_sign, integer_sign}) {
    for (const Tensor& t : m.tensors) {
      if (std::string found = sign(t, names); !found.empty()) return found;
    }
  }
  return {};
}

Error quantised(const std::string& what) {
  return unsupported(cat("expected plain weights, found ", what,
                         ": this version does not dequantise; convert from the model's bf16 or fp32 release"));
}

// ---- adapters

// LoRA of PEFT, of kohya and of diffusers; LoHa, LoKr, (IA)3, VeRA, OFT.
constexpr std::string_view kAdapters[] = {"lora_A",
                                          "lora_B",
                                          "lora_up",
                                          "lora_down",
                                          "lora_embedding_",
                                          "lora_magnitude_vector",
                                          ".lora.up.",
                                          ".lora.down.",
                                          "hada_w1",
                                          "hada_w2",
                                          "lokr_w1",
                                          "lokr_w2",
                                          "ia3_l",
                                          "vera_lambda_",
                                          "oft_r",
                                          "oft_blocks",
                                          "boft_R",
                                          ".base_layer.",
                                          ".modules_to_save."};

// ---- ungathered parameters

// What models have matrices under, beside names that end with "_proj": no class of transformers has vectors there.
constexpr std::string_view kMatrixNames[] = {"query",
                                             "key",
                                             "value",
                                             "dense",
                                             "embed_tokens",
                                             "word_embeddings",
                                             "lm_head",
                                             "wte",
                                             "wpe",
                                             "wi",
                                             "wi_0",
                                             "wi_1",
                                             "wo",
                                             "c_attn",
                                             "c_fc",
                                             "fc1",
                                             "fc2",
                                             "w1",
                                             "w2",
                                             "w3",
                                             "q",
                                             "k",
                                             "v",
                                             "qkv",
                                             "shared",
                                             "embed_in",
                                             "dense_h_to_4h",
                                             "dense_4h_to_h",
                                             "query_key_value"};

// ZeRO-3 leaves a vector without elements. A tensor of more dimensions and another name may have none by its nature.
bool is_empty(const Tensor& t) {
  const std::string_view name = leaf(t.target());
  return element_count(t) == 0 && (t.shape.size() <= 1 || name == "weight" || name == "bias");
}

bool is_placeholder(const Tensor& t) {
  const std::string& name = t.target();
  if (element_count(t) != 1 || t.shape.size() > 1 || leaf(name) != "weight") return false;
  const std::string module(leaf(std::string_view(name).substr(0, name.size() - std::string_view(".weight").size())));
  return module.ends_with("_proj") || is_one_of(module, kMatrixNames);
}

}  // namespace

Result<void> refuse_quantised(const Manifest& m) {
  const std::string sign = sign_of_codes(m);
  const bool has_integers = std::any_of(m.tensors.begin(), m.tensors.end(), [](const Tensor& t) {
    return manifest::info(t.dtype).kind == Kind::kInteger && t.shape.size() >= 2;
  });
  const manifest::Value* value = config_value(m, "quantization_config");
  if (!value) return sign.empty() ? Result<void>() : quantised(sign);
  const auto* map = value->get<manifest::ValueMap>();
  const std::string* name = text_of(map ? map->find("quant_method") : nullptr);
  const std::string config =
      cat("config.json with quantization_config", name ? " \"" + base::printable(*name) + '"' : std::string());
  if (!sign.empty() || has_integers) return quantised(config);
  return unsupported(cat("expected plain weights, found ", config,
                         ", though every tensor is plain: if the model was "
                         "merged or dequantised since, take quantization_config out of config.json"));
}

Result<void> refuse_adapters(const Manifest& m) {
  size_t n = 0;
  const Tensor* first = nullptr;
  for (const Tensor& t : m.tensors) {
    const std::string name = t.target();
    if (std::none_of(std::begin(kAdapters), std::end(kAdapters),
                     [&](std::string_view part) { return name.find(part) != std::string::npos; }))
      continue;
    if (n++ == 0) first = &t;
  }
  if (!first) return {};
  return unsupported(
      cat("expected a model's own weights, found ",
          n == m.tensors.size() ? "an adapter (LoRA) alone" : "a model with an adapter (LoRA) that is not merged",
          ", as in ", base::printable(first->name),
          ": merge it (PEFT's merge_and_unload, then save_pretrained) and convert that, or describe a job "
          "that has the adapter with --target"));
}

Result<void> refuse_ungathered(const Manifest& m) {
  size_t n = 0, n_parameters = 0;
  const Tensor* first = nullptr;
  for (const Tensor& t : m.tensors) {
    if (t.role != manifest::Role::kParameter || !t.left_out.empty()) continue;
    ++n_parameters;
    if (!is_empty(t) && !is_placeholder(t)) continue;
    if (n++ == 0) first = &t;
  }
  if (!first) return {};
  return unsupported(cat("tensor ", base::printable(first->name), ": expected a parameter's values, found ",
                         element_count(*first) == 0 ? "none" : "a placeholder of one element", " (so are ", n, " of ",
                         n_parameters,
                         " parameters), as a model that is saved under ZeRO-3 without gathering leaves it: "
                         "get the weights with DeepSpeed's zero_to_fp32.py, or save with "
                         "stage3_gather_16bit_weights_on_model_save"));
}

}  // namespace crossdock::model
