# SPDX-License-Identifier: Apache-2.0
"""GGUF files of real models, written by PyPI's gguf as llama.cpp's convert_hf_to_gguf.py would: its names, and the changes
that it makes to each architecture's tensors. What transformers' own loader reads from them is the answer that the tests
compare with; where it cannot (experts) the original weights are."""
import re

import gguf
import numpy as np
import torch
import transformers as t
from gguf import GGMLQuantizationType as Type

SMALL = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=96, max_position_embeddings=64)
KV = dict(num_key_value_heads=2)
SMALL_KV = SMALL | KV
GPT = dict(n_embd=64, n_layer=2, n_head=4, vocab_size=96, n_positions=64)


class Model:
    """arch: as GGUF spells it. fields: of its config. extra: further metadata, added to what every architecture has; tensors:
    further tensors."""

    def __init__(self, arch, cls, config, fields, name="tiny", extra=None, quantise=Type.F32, tensors=None):
        self.arch, self.cls, self.config, self.fields, self.name = arch, cls, config, fields, name
        self.extra, self.quantise, self.tensors = extra or {}, quantise, tensors or {}

    def __str__(self):
        odd = [f"{k}={v}" for k, v in self.fields.items() if k not in SMALL_KV | GPT and not isinstance(v, list)]
        return "-".join([self.cls.__name__.removesuffix("ForCausalLM"), *odd, self.quantise.name])

    def make(self, seed=1):
        torch.manual_seed(seed)
        model = self.cls(self.config(**self.fields))
        with torch.no_grad():
            for name, p in model.named_parameters():  # norms begin as ones, biases as zeros: give them values
                if p.dim() == 1:
                    p.add_(torch.randn_like(p) * 0.1)
        return model


def permute(w, n_heads):
    """LlamaModel.permute of convert_hf_to_gguf.py."""
    return w.reshape(n_heads, 2, w.shape[0] // n_heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def to_gguf(model, config, arch, name, w):
    """The tensors that the file gets for one of the checkpoint: [(name, values)]."""
    heads = getattr(config, "num_attention_heads", None)
    if arch == "llama" and re.search(r"attn_[qk]\.", name):
        w = permute(w, heads if "attn_q" in name else config.num_key_value_heads)
    if arch in ("gemma2", "gemma3", "nemotron") and name.endswith("norm.weight"):
        w = w + 1
    if arch == "gpt2" and re.search(r"(attn_qkv|attn_output|ffn_up|ffn_down)\.weight", name):
        w = w.T
    if arch == "bloom" and "attn_qkv" in name:
        h = config.n_head
        w = np.concatenate([w.reshape(h, 3, -1, *w.shape[1:])[:, i].reshape(-1, *w.shape[1:]) for i in range(3)])
    if arch == "falcon" and "attn_qkv" in name:
        kv = config.num_kv_heads if config.new_decoder_architecture else 1
        d = config.hidden_size // heads
        qkv = w.reshape(kv, heads // kv + 2, d, -1)
        w = np.concatenate([part.reshape(-1, w.shape[1]) for part in (qkv[:, :-2], qkv[:, -2], qkv[:, -1])])
    if arch == "mamba" and name.endswith("ssm_a"):
        w = -np.exp(w)
    if name.endswith(("ssm_conv1d.weight", "shortconv.conv.weight")):
        w = w.squeeze(1)
    return [(name, w)]


def names_of(model, config, arch):
    """{name in the checkpoint: name in the file}, by gguf's own map."""
    key = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch)
    tensor_map = gguf.get_tensor_name_map(key, getattr(config, "num_hidden_layers", None) or config.num_layers)
    out = {}
    for name in model.state_dict():
        base, suffix = (name.rsplit(".", 1)[0], "." + name.rsplit(".", 1)[1]) if name.endswith((".weight", ".bias")) else (name, "")
        for prefix in ("", *(f"{child}." for child, _ in model.named_children())):
            if base.startswith(prefix) and (found := tensor_map.get_name(base[len(prefix):])):
                out[name] = found + suffix
                break
    return out


def write(model, recipe, path):
    config, arch = model.config, recipe.arch
    g = gguf.GGUFWriter(path, arch)
    g.add_name(recipe.name)
    heads, hidden = config.num_attention_heads if arch != "mamba" else 0, config.hidden_size
    g.add_block_count(getattr(config, "num_hidden_layers", 0) or config.num_layers)
    g.add_context_length(64)
    g.add_embedding_length(hidden)
    if arch != "mamba":
        g.add_head_count(heads)
    if kv := getattr(config, "num_key_value_heads", None) or (1 if arch == "falcon" and not config.new_decoder_architecture else getattr(config, "num_kv_heads", None)):
        g.add_head_count_kv(kv) if "lfm2.heads_kv" not in recipe.extra else g.add_head_count_kv(recipe.extra["lfm2.heads_kv"])
    if ff := getattr(config, "intermediate_size", None) or getattr(config, "d_ff", None) or getattr(config, "ffn_hidden_size", None) or 4 * hidden:
        g.add_feed_forward_length(ff)
    if getattr(config, "head_dim", None) and arch not in ("falcon",):
        g.add_key_length(config.head_dim)
    g.add_layer_norm_rms_eps(1e-5)
    g.add_layer_norm_eps(1e-5)
    g.add_rope_freq_base((getattr(config, "rope_parameters", None) or {}).get("rope_theta", 10000.0))
    g.add_vocab_size(config.vocab_size)
    g.add_pad_token_id(0)
    g.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    for key, value in recipe.extra.items():
        if key == "lfm2.heads_kv":
            continue
        {int: g.add_uint32, float: g.add_float32, str: g.add_string}[type(value)](f"{arch}.{key}", value)
    names, seen = names_of(model, config, arch), set()
    for name, tensor in model.state_dict().items():
        if name not in names or (tensor.data_ptr(), tensor.shape) in seen:
            continue  # tied: the file has it once
        seen.add((tensor.data_ptr(), tensor.shape))
        for stored, w in to_gguf(model, config, arch, names[name], tensor.detach().float().numpy()):
            w = np.ascontiguousarray(w)
            block = gguf.GGML_QUANT_SIZES[recipe.quantise][0]
            if w.ndim < 2 or w.shape[-1] % block or stored.endswith(("ssm_a", "conv1d.weight", "conv.weight")):
                g.add_tensor(stored, w)
            else:
                g.add_tensor(stored, gguf.quants.quantize(w, recipe.quantise), raw_dtype=recipe.quantise)
    if getattr(config, "qk_layernorm", False):
        for i, layer in enumerate(model.model.layers):
            for part, norm in (("q", layer.self_attn.q_layernorm), ("k", layer.self_attn.k_layernorm)):
                g.add_tensor(f"blk.{i}.attn_{part}_norm.weight", np.stack([n.weight.detach().numpy() for n in norm.norms]))
    for name, values in recipe.tensors.items():
        g.add_tensor(name, np.array(values, np.float32))
    if arch in ("falcon", "bloom"):  # whose files have the tied matrix twice
        g.add_tensor("output.weight", model.get_output_embeddings().weight.detach().numpy())
    finish(g)


MAMBA = dict(vocab_size=96, hidden_size=64, num_hidden_layers=2, state_size=8, time_step_rank=4, intermediate_size=128)
MODELS = [
    Model("llama", t.LlamaForCausalLM, t.LlamaConfig, SMALL_KV),
    Model("llama", t.LlamaForCausalLM, t.LlamaConfig, SMALL_KV | dict(attention_bias=True, mlp_bias=True)),
    Model("llama", t.LlamaForCausalLM, t.LlamaConfig, SMALL_KV | dict(tie_word_embeddings=True), quantise=Type.Q8_0),
    Model("llama", t.MistralForCausalLM, t.MistralConfig, SMALL_KV, name="mistral"),
    Model("qwen2", t.Qwen2ForCausalLM, t.Qwen2Config, SMALL_KV, quantise=Type.Q4_0),
    Model("qwen3", t.Qwen3ForCausalLM, t.Qwen3Config, SMALL_KV | dict(head_dim=16)),
    Model("gemma2", t.Gemma2ForCausalLM, t.Gemma2Config, SMALL_KV | dict(head_dim=16), extra={"attention.sliding_window": 4096}),
    Model("gemma3", t.Gemma3ForCausalLM, t.Gemma3TextConfig, SMALL_KV | dict(head_dim=16), extra={"attention.sliding_window": 4096}),
    Model("phi3", t.Phi3ForCausalLM, t.Phi3Config, SMALL_KV | dict(pad_token_id=0)),
    Model("falcon", t.FalconForCausalLM, t.FalconConfig, dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=96)),
    Model("bloom", t.BloomForCausalLM, t.BloomConfig, dict(hidden_size=64, n_layer=2, n_head=4, vocab_size=96)),
    Model("gpt2", t.GPT2LMHeadModel, t.GPT2Config, GPT),
    Model("gpt2", t.GPT2LMHeadModel, t.GPT2Config, GPT, quantise=Type.Q8_0),
    Model("starcoder2", t.Starcoder2ForCausalLM, t.Starcoder2Config, SMALL_KV),
    Model("stablelm", t.StableLmForCausalLM, t.StableLmConfig, SMALL_KV, extra={"rope.dimension_count": 4}),
    Model("stablelm", t.StableLmForCausalLM, t.StableLmConfig, SMALL_KV | dict(use_qkv_bias=True, use_parallel_residual=True), extra={"rope.dimension_count": 4}),
    Model("nemotron", t.NemotronForCausalLM, t.NemotronConfig, SMALL_KV | dict(head_dim=16), extra={"rope.dimension_count": 8}),
    Model("mamba", t.MambaForCausalLM, t.MambaConfig, MAMBA,
          extra={"ssm.conv_kernel": 4, "ssm.state_size": 8, "ssm.time_step_rank": 4, "ssm.inner_size": 128}),
    Model("t5", t.T5ForConditionalGeneration, t.T5Config, dict(vocab_size=96, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu", decoder_start_token_id=0),
          extra={"attention.relative_buckets_count": 32}),
    Model("t5", t.T5ForConditionalGeneration, t.T5Config, dict(vocab_size=96, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=0),
          extra={"attention.relative_buckets_count": 32}),
    Model("lfm2", t.Lfm2ForCausalLM, t.Lfm2Config, SMALL_KV | dict(layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
          extra={"shortconv.l_cache": 3, "lfm2.heads_kv": [0, 2]}),
]

# Written by write_experts.
EXPERTS = [
    Model("qwen2moe", t.Qwen2MoeForCausalLM, t.Qwen2MoeConfig, SMALL_KV | dict(num_experts=4, moe_intermediate_size=32, shared_expert_intermediate_size=48),
          extra={"expert_count": 4, "expert_used_count": 4, "expert_feed_forward_length": 32, "expert_shared_feed_forward_length": 48}),
    Model("qwen2moe", t.Qwen2MoeForCausalLM, t.Qwen2MoeConfig, SMALL_KV | dict(num_experts=4, moe_intermediate_size=32, shared_expert_intermediate_size=48, qkv_bias=False),
          extra={"expert_count": 4, "expert_used_count": 4, "expert_feed_forward_length": 32, "expert_shared_feed_forward_length": 48}),
    Model("qwen3moe", t.Qwen3MoeForCausalLM, t.Qwen3MoeConfig, SMALL_KV | dict(head_dim=16, num_experts=4, moe_intermediate_size=32),
          extra={"expert_count": 4, "expert_used_count": 8, "expert_feed_forward_length": 32}),
    Model("llama", t.MixtralForCausalLM, t.MixtralConfig, SMALL_KV | dict(num_local_experts=4), extra={"expert_count": 4, "expert_used_count": 2}),
]


def gguf_name(name):
    """Of llama.cpp, for a tensor that is not an expert's."""
    for ours, theirs in {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers.": "blk.",
                         "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
                         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "input_layernorm": "attn_norm",
                         "post_attention_layernorm": "ffn_norm", "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "mlp.gate.": "ffn_gate_inp.",
                         "block_sparse_moe.gate.": "ffn_gate_inp.", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
                         "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp"}.items():
        name = name.replace(ours, theirs)
    return name


def write_experts(saved, recipe, path, alone=False):
    """Of the tensors that transformers saves. alone: each expert in a tensor of its own, as before April 2024."""
    arch, fields = recipe.arch, recipe.fields
    g = gguf.GGUFWriter(path, arch)
    g.add_name(recipe.name)
    for add, value in ((g.add_block_count, 2), (g.add_context_length, 64), (g.add_embedding_length, 64), (g.add_feed_forward_length, 96),
                       (g.add_head_count, 4), (g.add_head_count_kv, 2), (g.add_layer_norm_rms_eps, 1e-5), (g.add_rope_freq_base, 1e4)):
        add(value)
    if "head_dim" in fields:
        g.add_key_length(fields["head_dim"])
    for key, value in recipe.extra.items():
        g.add_uint32(f"{arch}.{key}", value)
    stacks = {}
    for name, tensor in saved.items():
        w = tensor.float().numpy()
        if ".experts." in name:
            layer, expert, part = name.split(".")[2], int(name.split(".")[5]), name.split(".")[6]
            part = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down", "w1": "gate", "w3": "up", "w2": "down"}[part]
            stacks.setdefault((layer, part), {})[expert] = w
            continue
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            w = permute(w, 4 if "q_proj" in name else 2)
        g.add_tensor(gguf_name(name), np.ascontiguousarray(w[0] if "shared_expert_gate" in name else w))
    assert len(stacks) == 6
    for (layer, part), experts in stacks.items():
        if not alone:
            g.add_tensor(f"blk.{layer}.ffn_{part}_exps.weight", np.stack([experts[i] for i in range(len(experts))]))
        for expert, w in experts.items() if alone else ():
            g.add_tensor(f"blk.{layer}.ffn_{part}.{expert}.weight", np.ascontiguousarray(w))
    finish(g)


def finish(g):
    g.write_header_to_file()
    g.write_kv_data_to_file()
    g.write_tensors_to_file()
    g.close()


def tensor_names(path):
    return [x.name for x in gguf.GGUFReader(path).tensors]


def copy(source, target, keep=lambda name: True, values=None, without=(), **kwargs):
    """The file with those of its tensors that are kept, with these values in its metadata, and without those."""
    reader = gguf.GGUFReader(source)
    g = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents(), **kwargs)
    values = dict(values or {})
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture" or field.name in without or field.name in values:
            continue
        kind = field.types[0]
        g.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for key, value in values.items():
        {int: g.add_uint32, float: g.add_float32, str: g.add_string, list: g.add_array}[type(value)](key, value)
    for tensor in reader.tensors:
        if keep(tensor.name):
            g.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    finish(g)
