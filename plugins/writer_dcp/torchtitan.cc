// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_dcp/torchtitan.h"

#include <algorithm>
#include <optional>

#include "plugins/common/quote.h"

namespace crossdock::writer_dcp {
namespace {

using common::in_quotes;

enum class Heads { kNone, kQuery, kKey };
struct Row {
  std::string_view ours, theirs;  // '#' is the layer
  Heads heads = Heads::kNone;
  bool only_qwen3 = false;
};
constexpr Row kRows[] = {
    {"model.embed_tokens.weight", "tok_embeddings.weight"},
    {"model.layers.#.self_attn.q_proj.weight", "layers.#.attention.qkv_linear.wq.weight",
     Heads::kQuery},
    {"model.layers.#.self_attn.k_proj.weight", "layers.#.attention.qkv_linear.wk.weight",
     Heads::kKey},
    {"model.layers.#.self_attn.v_proj.weight", "layers.#.attention.qkv_linear.wv.weight"},
    {"model.layers.#.self_attn.o_proj.weight", "layers.#.attention.wo.weight"},
    {"model.layers.#.self_attn.q_norm.weight", "layers.#.attention.q_norm.weight", Heads::kNone,
     true},
    {"model.layers.#.self_attn.k_norm.weight", "layers.#.attention.k_norm.weight", Heads::kNone,
     true},
    {"model.layers.#.mlp.gate_proj.weight", "layers.#.feed_forward.w1.weight"},
    {"model.layers.#.mlp.up_proj.weight", "layers.#.feed_forward.w3.weight"},
    {"model.layers.#.mlp.down_proj.weight", "layers.#.feed_forward.w2.weight"},
    {"model.layers.#.input_layernorm.weight", "layers.#.attention_norm.weight"},
    {"model.layers.#.post_attention_layernorm.weight", "layers.#.ffn_norm.weight"},
    {"model.norm.weight", "norm.weight"},
    {"lm_head.weight", "lm_head.weight"},
};

constexpr std::string_view kDigits = "0123456789";

// The layer where the name is of the pattern; empty text where it has none.
std::optional<std::string_view> layer_of(std::string_view pattern, std::string_view name) {
  const size_t at = pattern.find('#');
  if (at == pattern.npos)
    return name == pattern ? std::optional<std::string_view>("") : std::nullopt;
  const std::string_view behind = pattern.substr(at + 1);
  if (name.size() <= at + behind.size() || !name.starts_with(pattern.substr(0, at)) ||
      !name.ends_with(behind))
    return std::nullopt;
  const std::string_view layer = name.substr(at, name.size() - at - behind.size());
  return layer.find_first_not_of(kDigits) == layer.npos ? std::optional(layer) : std::nullopt;
}

Result<uint64_t> number(const manifest::ValueMap& config, std::string_view key) {
  const manifest::Value* value = config.find(key);
  const auto* n = value ? value->get<int64_t>() : nullptr;
  if (n && *n > 0) return static_cast<uint64_t>(*n);
  return invalid(cat("--dcp-profile torchtitan: expected ", key,
                     " in config.json, found none, or no number above 0"));
}

}  // namespace

Result<Torchtitan> Torchtitan::of(const manifest::Value& config) {
  const auto* map = config.get<manifest::ValueMap>();
  const manifest::Value* type = map ? map->find("model_type") : nullptr;
  const auto* name = type ? type->get<std::string>() : nullptr;
  if (!name || (*name != "llama" && *name != "qwen3"))
    return unsupported(
        cat("--dcp-profile torchtitan: expected a config.json of model_type llama or "
            "qwen3, found ",
            name ? in_quotes(*name) : std::string("none"), ": its names are not known here"));
  Torchtitan out;
  out.interleaves_ = *name == "llama";
  out.model_ = *name == "llama" ? "llama3" : "qwen3";
  if (!out.interleaves_) return out;
  XD_TRY_SET(out.n_heads_, number(*map, "num_attention_heads"));
  out.n_kv_heads_ = out.n_heads_;
  if (map->find("num_key_value_heads")) {
    XD_TRY_SET(out.n_kv_heads_, number(*map, "num_key_value_heads"));
  }
  return out;
}

Result<TitanTensor> Torchtitan::find(std::string_view name,
                                     const std::vector<uint64_t>& shape) const {
  for (const Row& row : kRows) {
    const auto layer = layer_of(row.ours, name);
    if (!layer || (row.only_qwen3 && interleaves_)) continue;
    TitanTensor out;
    const size_t at = std::min(row.theirs.find('#'), row.theirs.size());
    out.name = cat(row.theirs.substr(0, at), *layer,
                   row.theirs.substr(std::min(at + 1, row.theirs.size())));
    if (row.heads == Heads::kNone || !interleaves_) return out;
    const uint64_t n_heads = row.heads == Heads::kQuery ? n_heads_ : n_kv_heads_;
    if (shape.size() != 2 || shape[0] % (2 * n_heads) != 0)
      return invalid(cat("expected a matrix of ", n_heads,
                         " heads with an even number of rows each, as config.json says, found ",
                         shape.empty() ? 0 : shape[0], " rows"));
    out.head_rows = shape[0] / n_heads;
    return out;
  }
  return unsupported(cat("expected a parameter that torchtitan's ", model_,
                         " has, found another: use --dcp-profile plain for a job of transformers"));
}

}  // namespace crossdock::writer_dcp
