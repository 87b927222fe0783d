# SPDX-License-Identifier: Apache-2.0
"""Tiny configs of any class: the sizes of the default config are replaced by small ones that differ from each other.

A profile is one choice of sizes. Rules are made from the profiles A and B and judged on H, so a number that merely
happens to equal a key of config.json in one of them is no such key in the others.
"""
import copy
import inspect
import json
import re

import torch
import transformers

from rules_maker.repairs import REPAIRS

Config = transformers.PretrainedConfig
LARGEST = 150_000_000

# What a size means, and the keys that transformers' configs have for it.
KEYS = {
    "layers": "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers "
              "num_encoder_layers depth",
    "experts": "num_local_experts num_experts n_routed_experts moe_num_experts",
    "hidden": "hidden_size d_model n_embd dim embed_dim embedding_size hidden_dim mm_hidden_size mm_embed_dim emb_dim "
              "encoder_hidden_size decoder_hidden_size text_hidden_size attention_hidden_size word_embed_proj_dim",
    "projection": "projection_dim out_hidden_size",
    "inner": "intermediate_size ffn_dim d_ff n_inner encoder_ffn_dim decoder_ffn_dim mlp_dim n_mlp d_inner",
    "heads": "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
             "mamba_n_heads linear_num_value_heads",
    "kv_heads": "num_key_value_heads n_kv_heads num_kv_heads linear_num_key_heads index_n_heads",
    "head_dim": "head_dim d_kv v_head_dim linear_key_head_dim",
    "value_dim": "linear_value_head_dim qk_nope_head_dim",
    "rope_dim": "qk_rope_head_dim index_head_dim",
    "expert_inner": "moe_intermediate_size",
    "shared_inner": "shared_expert_intermediate_size moe_shared_expert_intermediate_size shared_intermediate_size",
    "vocab": "vocab_size",
    "layer_vocab": "vocab_size_per_layer_input",
    "positions": "max_position_embeddings n_positions n_ctx",
    "lora": "kv_lora_rank",
    "query_lora": "q_lora_rank",
    "state": "state_size mamba_d_state ssm_state_size",
    "types": "type_vocab_size",
    "kernel": "conv_kernel d_conv mamba_d_conv linear_conv_kernel_dim conv_L_cache",
    "head_width": "d_head",
    "mamba_width": "mamba_d_head",
    "period": "attn_layer_period",
}
# Sizes that are the same in every profile: counts that others must not outgrow, and images of few patches.
FIXED = dict(
    n_shared_experts=1, num_experts_per_tok=2, moe_k=2, moe_topk=2, top_k_experts=2, num_experts_per_token=2,
    n_group=1, topk_group=1, first_k_dense_replace=1, mamba_n_groups=1, n_groups=1, mamba_expand=2, image_size=32,
    patch_size=8, decoder_sparse_step=1, moe_layer_interval=1, expert_layer_period=2, expert_layer_offset=1,
    attn_layer_offset=0, encoder_layerdrop=0.0, num_nextn_predict_layers=0, pad_token_id=0,
    bos_token_id=1, eos_token_id=2, num_mel_bins=16, max_source_positions=32, max_target_positions=32,
    mamba_dt_rank=4, time_step_rank=4, moe_layer_start_index=1, interleave_moe_layer_step=2,
    hidden_size_per_layer_input=8, laurel_rank=8, index_topk=8, relation_key_size=8, encoder_hash_byte_group_vocab=50)


def sizes(layers, experts, hidden, heads, kv_heads, head_dim, inner, expert_inner, shared_inner, vocab, lora, kernel,
          projection=None):
    """{key of a config: size} of one profile."""
    meaning = dict(
        layers=layers, experts=experts, hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, inner=inner,
        expert_inner=expert_inner, shared_inner=shared_inner, vocab=vocab, lora=lora, kernel=kernel,
        projection=projection or hidden, value_dim=head_dim - 4, rope_dim=head_dim - 6, layer_vocab=vocab - 3,
        positions=64, query_lora=lora + 4, state=lora // 2, types=kernel - 1, head_width=hidden // heads,
        mamba_width=2 * hidden // heads, period=2 if layers < 4 else 3)
    return FIXED | {key: size for what, size in meaning.items() for key in KEYS[what].split()}


def attempts(text, part, projections, friendly):
    """The attempts of a profile, from sizes that all differ to sizes that fit classes with many constraints. Of each
    the first is for the top level and the text model, the second for all other parts (vision, audio)."""
    distinct = ((*text, projections[0]), (*part, projections[1]))
    pairs = [distinct, (text, part), (text, text), *((x, x) for x in friendly)]
    return [(sizes(*first), sizes(*second)) for first, second in pairs]


PROFILES = {
    "A": attempts((3, 4, 40, 4, 2, 12, 56, 24, 28, 99, 18, 4), (2, 4, 36, 3, 3, 12, 44, 24, 28, 79, 18, 4), (52, 60),
                  [(3, 4, 32, 4, 2, 8, 48, 12, 24, 96, 16, 4), (3, 4, 32, 4, 4, 8, 48, 12, 24, 96, 16, 4)]),
    "B": attempts((5, 11, 72, 6, 3, 14, 88, 34, 46, 131, 22, 3), (3, 11, 48, 2, 2, 24, 76, 34, 46, 91, 22, 3), (68, 56),
                  [(5, 11, 64, 2, 1, 32, 80, 40, 56, 128, 24, 4), (4, 11, 64, 8, 8, 8, 80, 40, 56, 128, 24, 4)]),
    "H": attempts((4, 6, 64, 8, 2, 20, 104, 22, 30, 113, 26, 5), (3, 6, 60, 5, 5, 12, 52, 22, 30, 83, 26, 5), (76, 84),
                  [(4, 6, 96, 4, 1, 24, 112, 24, 40, 112, 32, 4), (4, 6, 96, 4, 4, 24, 112, 24, 40, 112, 32, 4)]),
}
# What a config may leave to the class.
OPEN = ("head_dim", "num_key_value_heads")
LAYER_KEYS = "num_hidden_layers n_layer n_layers num_layers depth".split()
# Lists with a word for each layer.
KIND_LISTS = ("layer_types", "layers_block_type", "attention_layers", "mlp_layer_types", "layers_type", "block_types")
# Parts of a config that get the sizes of the text model.
TEXT_PART = re.compile("text|decoder|llm|language|attn|ffn")


class SetInJson(ValueError):
    """A config whose sizes are set in another way."""


def count(value):
    return isinstance(value, int) and not isinstance(value, bool)


def layers_needed(values, profile):
    """The profile's number of layers, or more where a list names more kinds of layers."""
    lists = [values[k] for k in KIND_LISTS if isinstance(values.get(k), list) and values[k]]
    return max([profile["n_layer"], *(len({str(kind) for kind in kinds}) for kinds in lists)])


def cut(key, kinds, layers):
    """A list of layers' kinds for fewer layers, each kind in it: in turn, but those of MLPs as the real models have
    them, so that the kinds of attention and of MLPs do not go together by chance."""
    distinct = [json.loads(x) for x in dict.fromkeys(json.dumps(kind) for kind in kinds)]
    return (distinct + distinct[-1:] * layers if "mlp" in key else distinct * layers)[:layers]


def attempt_set(config, key, value):
    """Some keys refuse some values: then they keep their own."""
    try:
        setattr(config, key, value)
    except Exception:
        pass


def size_for(key, values, sizes_):
    """The profile's size; where there is a list of heads for stages, whole heads of the first."""
    heads = values.get("num_heads")
    return heads[0] * sizes_["head_dim"] if key == "embed_dim" and isinstance(heads, (list, tuple)) else sizes_[key]


def shrink(config, profile, fill_none, part=False, depth=0):
    """Sets a config's sizes, and those of the configs in it. fill_none: also where head_dim and the like are None."""
    sizes_ = profile[1 if part else 0]
    values = config.__dict__
    layers = layers_needed(values, sizes_)
    for key, value in list(values.items()):
        if isinstance(value, Config) and depth < 4:
            shrink(value, profile, fill_none, part or not TEXT_PART.search(key), depth + 1)
        elif key in sizes_ and (count(value) or value is None and (key == "vocab_size" or fill_none and key in OPEN)):
            attempt_set(config, key, layers if key in LAYER_KEYS else size_for(key, values, sizes_))
    lists = {
        "mlp_only_layers": lambda old: [x for x in old if x == 0],
        "moe_layers": lambda old: [x for x in range(layers) if x % 2],
        "kv_source_layers": lambda old: old[:layers],
        "num_attention_heads_per_layer": lambda old: [sizes_["num_attention_heads"]] * layers,
        "no_rope_layers": lambda old: old[:layers],
        "per_layer_config": lambda old: {},
    }
    for key in KIND_LISTS:
        lists[key] = lambda old, key=key: cut(key, old, layers)
    for key, shorten in lists.items():
        if isinstance(values.get(key), (list, dict)) and values[key]:
            attempt_set(config, key, shorten(values[key]))


def shrink_json(values, profile, part=False):
    """The same on config.json, before the class checks it; lists with an element for each layer are cut."""
    sizes_ = profile[1 if part else 0]
    old_layers = next((values[k] for k in LAYER_KEYS if count(values.get(k))), None)
    layers = layers_needed(values, sizes_)
    for key, value in list(values.items()):
        if isinstance(value, dict) and ("model_type" in value or key.endswith("_config") and key != "per_layer_config"):
            shrink_json(value, profile, part or not TEXT_PART.search(key))
        elif key == "per_layer_config" and isinstance(value, dict):
            values[key] = {i: x for i, x in value.items() if int(i) < layers}
        elif isinstance(value, list) and old_layers and len(value) == old_layers:
            values[key] = cut(key, value, layers) if key in KIND_LISTS else value[:layers]
        elif key in sizes_ and count(value):
            values[key] = layers if key in LAYER_KEYS else size_for(key, values, sizes_)
    repair = REPAIRS.get(values.get("model_type"))
    if repair:
        repair(values, sizes_)


def configs(cls, profile_name):
    """Functions that make a tiny config, the wished one first."""
    config_class = cls.config_class

    def from_arguments(profile):
        default = config_class()
        known = {*inspect.signature(config_class.__init__).parameters, *getattr(config_class, "__annotations__", {}),
                 *(k for k in vars(default) if not k.startswith("_"))}
        return config_class(**{k: v for k, v in profile[0].items() if k in known and count(getattr(default, k, 0))})

    def make_shrunk(profile, make, fill_none):
        config = make(profile)
        shrink(config, profile, fill_none)
        if config.model_type in REPAIRS:
            raise SetInJson("its sizes are set in config.json")
        return config

    def make_from_json(profile):
        values = config_class().to_dict()
        shrink_json(values, profile)
        return config_class.from_dict(values)

    for profile in PROFILES[profile_name]:
        for make in (lambda profile: config_class(), from_arguments):
            for fill_none in (False, True):
                yield lambda profile=profile, make=make, fill_none=fill_none: make_shrunk(profile, make, fill_none)
        yield lambda profile=profile: make_from_json(profile)


def skeleton(cls, config):
    """The class without memory for its tensors. What fills them at first would only take time."""
    fillers = [name for name in vars(torch.nn.init) if name.endswith("_") and not name.startswith("_")]
    originals = {name: getattr(torch.nn.init, name) for name in fillers}
    try:
        for name in fillers:
            setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
        with torch.device("meta"):
            return cls(fresh(config))
    finally:
        for name, original in originals.items():
            setattr(torch.nn.init, name, original)


def fresh(config):
    """A copy to make a model from: save_pretrained leaves a text as the type of the original's elements, which some
    classes cannot take."""
    config = copy.deepcopy(config)
    if isinstance(getattr(config, "dtype", None), str):
        config.dtype = torch.float32
    return config


def build(cls, config):
    """A model with random fp32 weights. Noise makes every two tensors differ unless they are one parameter."""
    try:
        numbers = sum(x.numel() for x in skeleton(cls, config).parameters())
    except Exception:
        numbers = 0
    if numbers > LARGEST:
        raise ValueError(f"its smallest model has {numbers / 1e6:.0f} million parameters")
    torch.manual_seed(7)
    model = cls(fresh(config)).float()
    if sum(x.numel() for x in model.parameters()) > LARGEST:
        raise ValueError("its smallest model is too large")
    kept = model.state_dict().keys()
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for name, b in model.named_buffers() if name in kept)]:
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.05)
    return model


def first_working(cls, profile_name, use):
    """use(model) of the first tiny config with which the class can be built and used."""
    error, seen = None, set()
    for make in configs(cls, profile_name):
        try:
            config = make()
            text = json.dumps(config.to_dict(), sort_keys=True, default=str)
            if text not in seen:
                seen.add(text)
                return use(build(cls, config))
        except SetInJson:
            continue
        except Exception as e:
            error = e
    raise error
