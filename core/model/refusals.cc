// SPDX-License-Identifier: Apache-2.0
#include "core/model/refusals.h"

#include "core/base/text.h"
#include "core/model/check.h"

#include <algorithm>

namespace crossdock::model {

using base::leaf;
using manifest::Manifest;
using manifest::Tensor;

namespace {

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
  const std::string name = fold_case(target);
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
    if (t.role != manifest::Role::kParameter || !t.excluded.empty()) continue;
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
      " parameters), as a model that is saved under ZeRO-3 without gathering leaves it: convert the "
      "job's DeepSpeed checkpoint (the folder that holds `latest`), or save with "
      "stage3_gather_16bit_weights_on_model_save"));
}

}  // namespace crossdock::model
