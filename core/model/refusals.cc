#include "core/model/refusals.h"

#include "core/base/text.h"
#include "core/model/check.h"
#include "core/model/config.h"

#include <algorithm>
#include <unordered_map>

namespace crossdock::model {

using manifest::Kind;
using manifest::Manifest;
using manifest::Tensor;

namespace {

// The part of a name behind its last dot.
std::string_view leaf(std::string_view name) { return name.substr(name.rfind('.') + 1); }

// ---- quantisation

// What the methods leave beside their codes, and what they call the codes themselves, which are
// integers.
struct Part {
  std::string_view leaf, method;
  // A name that others may use too counts only beside this one of the same module: the codes, or
  // what is left with them.
  std::string_view codes = {};
};
constexpr Part kParts[] = {
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
    {"nested_absmax", "bitsandbytes"},
    {"quant_map", "bitsandbytes"},
    {"SCB", "bitsandbytes"},
    {"q_scale", "EXL2", "q_weight"},
    {"codebooks", "AQLM", "codes"},
};
constexpr Part kCodes[] = {{"W_q", "HQQ"},
                           {"q_weight", "EXL2"},
                           {"trellis", "EXL3"},
                           {"Qidxs", "QuIP#"},
                           {"_data", "quanto"},
                           {"dense_weights", "SpQR"},
                           {"codes", "AQLM", "codebooks"},
                           {"indices", "VPTQ", "centroids.weight"},
                           {"B", "Marlin", "s"},
                           {"blocks", "MXFP4", "scales"},
                           {"packed", "a packed format", "scale"}};

// Of a tensor that rules made of others, the one that they gave it.
const std::string& name_of(const Tensor& t) { return t.expression.empty() ? t.name : t.target(); }

bool is_integer(const Tensor& t) { return manifest::info(t.dtype).kind == Kind::kInteger; }

using Tensors = std::unordered_map<std::string_view, const Tensor*>;  // by name

// The method whose part or codes a tensor is by its name; empty for other tensors.
std::string_view method_of(const Tensor& t, const Tensors& tensors) {
  const std::string& whole = name_of(t);
  const std::string_view name = leaf(whole);
  const std::string module = whole.substr(0, whole.size() - name.size());
  const auto is_called = [&](const Part& part) { return part.leaf == name; };
  if (const auto it = std::find_if(std::begin(kParts), std::end(kParts), is_called);
      it != std::end(kParts)) {
    const auto codes = tensors.find(cat(module, it->codes));
    if (it->codes.empty() || (codes != tensors.end() && is_integer(*codes->second)))
      return it->method;
  }
  const auto it = std::find_if(std::begin(kCodes), std::end(kCodes), is_called);
  const bool is_code = it != std::end(kCodes) && is_integer(t) && t.shape.size() >= 2;
  if (is_code && (it->codes.empty() || tensors.contains(cat(module, it->codes)))) return it->method;
  return whole.find(".quant_state.") != std::string::npos ? "bitsandbytes" : std::string_view();
}

// Masks, ids and counters, which are integers by nature.
bool is_index_like(const Tensor& t) {
  constexpr std::string_view kWords[] = {"mask", "ids", "index", "indices", "bias"};
  const std::string_view name = leaf(name_of(t));
  return base::is_one_of(name.substr(name.rfind('_') + 1), kWords);
}

// Integers of two or more dimensions under the name of a matrix.
bool is_integer_matrix(const Tensor& t) {
  constexpr std::string_view kMatrices[] = {"kernel", "embedding", "w1", "w2", "w3"};
  if (!is_integer(t) || t.shape.size() < 2 || is_index_like(t)) return false;
  const std::string_view name = leaf(name_of(t));
  return name.find("weight") != std::string_view::npos || name.ends_with("_proj") ||
         base::is_one_of(name, kMatrices);
}

// What tells by type or name that a tensor holds codes, or belongs to some; empty when nothing
// does.
std::string named_sign(const Tensor& t, const Tensors& tensors) {
  const Kind kind = manifest::info(t.dtype).kind;
  const std::string tensor = cat("tensor ", base::printable(t.name));
  if (kind == Kind::kFloat8 || kind == Kind::kSubByte)
    return cat(tensor, " of type ", manifest::name(t.dtype));
  std::string_view method = method_of(t, tensors);
  constexpr std::string_view kBlocks = "_blocks";
  const std::string& name = name_of(t);
  if (name.ends_with(kBlocks) &&
      tensors.contains(name.substr(0, name.size() - kBlocks.size()) + "_scales"))
    method = "MXFP4";
  return method.empty()
             ? ""
             : cat(tensor, ", which a quantisation method left beside its codes (", method, ')');
}

// The same by integers where a matrix should be.
std::string integer_sign(const Tensor& t, const Tensors& tensors) {
  if (!is_integer_matrix(t)) return {};
  const std::string& name = name_of(t);
  const std::string before = name.substr(0, name.size() - leaf(name).size());
  const bool is_mlx = tensors.contains(before + "scales") && tensors.contains(before + "biases");
  return cat("tensor ", base::printable(t.name), " of type ", manifest::name(t.dtype),
             ", whose integers are codes of a quantisation", is_mlx ? " (MLX)" : "");
}

// The first sign of all tensors: a name that only one method uses says more than integers do.
std::string sign_of_codes(const Manifest& m) {
  Tensors tensors;
  for (const Tensor& t : m.tensors) {
    if (t.left_out.empty()) tensors.emplace(name_of(t), &t);
  }
  for (const auto sign : {named_sign, integer_sign}) {
    for (const Tensor& t : m.tensors) {
      if (!t.left_out.empty()) continue;
      if (std::string found = sign(t, tensors); !found.empty()) return found;
    }
  }
  return {};
}

Error quantised(const std::string& what) {
  return unsupported(
      cat("expected plain weights, found ", what,
          ": this version does not dequantise; convert from the model's bf16 or fp32 release"));
}

// ---- adapters

// Of PEFT, kohya, diffusers, XLabs, mlx, NeMo, ChatGLM, in lower case: LoRA, LoHa, LoKr, (IA)3,
// VeRA, OFT and others. Each is a word of a name, or with '_' or '.' at its end the beginning of
// one.
constexpr std::string_view kAdapters[] = {"lora_a",
                                          "lora_b",
                                          "lora_up",
                                          "lora_down",
                                          "lora_embedding_",
                                          "lora_magnitude_vector",
                                          "lora.up",
                                          "lora.down",
                                          "lora1.",
                                          "lora2.",
                                          "lora_linear_layer",
                                          "lora_kqv_adapter",
                                          "lora_unet_",
                                          "lora_te_",
                                          "lora_te1_",
                                          "lora_te2_",
                                          "hada_w1",
                                          "hada_w2",
                                          "lokr_w1",
                                          "lokr_w2",
                                          "ia3_l",
                                          "vera_lambda_",
                                          "oft_r",
                                          "oft_blocks",
                                          "oft_diag",
                                          "boft_r",
                                          "bone_block",
                                          "miss_block",
                                          "hra_u",
                                          "fourierft_",
                                          "vblora_",
                                          "randlora_",
                                          "shira_weight",
                                          "road_theta",
                                          "c3a_kernel",
                                          "waveft_",
                                          "adaption_",
                                          "trainable_tokens_",
                                          "prefix_encoder.",
                                          "prompt_embeddings",
                                          "base_layer.weight",
                                          "base_layer.bias",
                                          "modules_to_save."};

bool is_of_adapter(const std::string& target) {
  const std::string name = base::fold_case(target);
  const auto ends_word = [&](size_t at) {
    return at == name.size() || name[at] == '.' || name[at] == '_';
  };
  for (const std::string_view part : kAdapters) {
    for (size_t at = name.find(part); at != std::string::npos; at = name.find(part, at + 1)) {
      const bool begins = at == 0 || name[at - 1] == '.' || name[at - 1] == '_';
      const bool is_beginning = part.back() == '_' || part.back() == '.';
      if (begins && (is_beginning || ends_word(at + part.size()))) return true;
    }
  }
  return false;
}

// The file that PEFT's adapters come in.
bool is_adapter_file(const manifest::File& file) { return file.name.starts_with("adapter_model."); }

// ---- ungathered parameters

Error flattened(const Tensor& t) {
  return unsupported(
      cat("tensor ", base::printable(t.name),
          ": expected parameters under their own names, found one that "
          "FSDP made of many: save with a full state dict (StateDictType.FULL_STATE_DICT)"));
}

// What models have matrices under, beside names that end with "_proj": no class of transformers has
// vectors there.
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

// ZeRO-3 leaves a vector without elements. A tensor of more dimensions and another name may have
// none by its nature.
bool is_empty(const Tensor& t) {
  const std::string_view name = leaf(t.target());
  return element_count(t) == 0 && (t.shape.size() <= 1 || name == "weight" || name == "bias");
}

bool is_placeholder(const Tensor& t) {
  const std::string& name = t.target();
  if (element_count(t) != 1 || t.shape.size() > 1 || leaf(name) != "weight") return false;
  const std::string module(
      leaf(std::string_view(name).substr(0, name.size() - std::string_view(".weight").size())));
  return module.ends_with("_proj") || base::is_one_of(module, kMatrixNames);
}

}  // namespace

bool has_integer_values(const Manifest& m) {
  return std::any_of(m.tensors.begin(), m.tensors.end(), [](const Tensor& t) {
    return t.left_out.empty() && is_integer(t) && !t.shape.empty() && !is_index_like(t);
  });
}

Result<void> refuse_quantised(const Manifest& m) {
  const std::string sign = sign_of_codes(m);
  const bool has_integers = has_integer_values(m);
  const manifest::Value* value = config_value(m, "quantization_config");
  if (!value) return sign.empty() ? Result<void>() : quantised(sign);
  const auto* map = value->get<manifest::ValueMap>();
  const std::string* name = text_of(map ? map->find("quant_method") : nullptr);
  const std::string config = cat("config.json with quantization_config",
                                 name ? " \"" + base::printable(*name) + '"' : std::string());
  if (!sign.empty() || has_integers) return quantised(config);
  return unsupported(
      cat("expected plain weights, found ", config,
          ", though every tensor is plain: if the model was "
          "merged or dequantised since, take quantization_config out of config.json"));
}

Result<void> refuse_adapters(const Manifest& m) {
  size_t n = 0;
  const Tensor* first = nullptr;
  for (const Tensor& t : m.tensors) {
    if (!is_of_adapter(t.target())) continue;
    if (n++ == 0) first = &t;
  }
  const bool of_file = std::any_of(m.source.files.begin(), m.source.files.end(), is_adapter_file);
  if (of_file && !first && !m.tensors.empty()) first = &m.tensors[0];
  if (!first) return {};
  const bool alone = of_file || n == m.tensors.size();
  return unsupported(cat("expected a model's own weights, found ",
                         alone ? "an adapter (LoRA and its kin) alone"
                               : "a model with an adapter (LoRA) that is not merged",
                         ", as in ", base::printable(first->name),
                         ": merge it (PEFT's merge_and_unload, then save_pretrained) and convert "
                         "that, or describe a job "
                         "that has the adapter with --target"));
}

Result<void> refuse_moments(const Manifest& m) {
  constexpr std::string_view kMoments[] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq",
                                           "momentum_buffer"};
  for (const Tensor& t : m.tensors) {
    if (t.role == manifest::Role::kOptimizerState || !base::is_one_of(leaf(t.target()), kMoments))
      continue;
    return unsupported(
        cat("tensor ", base::printable(t.name),
            ": expected parameters, found an optimizer's state among "
            "them: save the model's own state dict, or choose it with --state-dict-path"));
  }
  return {};
}

Result<void> refuse_ungathered(const Manifest& m) {
  size_t n = 0, n_parameters = 0, n_weights = 0, n_of_one = 0;
  const Tensor *first = nullptr, *first_of_one = nullptr;
  for (const Tensor& t : m.tensors) {
    if (t.role != manifest::Role::kParameter || !t.left_out.empty()) continue;
    ++n_parameters;
    if (leaf(t.target()).find("flat_param") != std::string_view::npos) return flattened(t);
    if (leaf(t.target()) == "weight") {
      ++n_weights;
      if (element_count(t) == 1 && n_of_one++ == 0) first_of_one = &t;
    }
    if (!is_empty(t) && !is_placeholder(t)) continue;
    if (n++ == 0) first = &t;
  }
  // A network of a few layers may have activations with a weight of one element, but not more of
  // them than of others.
  constexpr size_t kFew = 3;
  if (!first && n_of_one >= kFew && 3 * n_of_one > 2 * n_weights) {
    first = first_of_one;
    n = n_of_one;
  }
  if (!first) return {};
  return unsupported(cat(
      "tensor ", base::printable(first->name), ": expected a parameter's values, found ",
      element_count(*first) == 0 ? "none" : "a placeholder of one element", " (so are ", n, " of ",
      n_parameters,
      " parameters), as a model that is saved under ZeRO-3 without gathering leaves it: get the "
      "weights with DeepSpeed's "
      "zero_to_fp32.py, or save with stage3_gather_16bit_weights_on_model_save"));
}

}  // namespace crossdock::model
