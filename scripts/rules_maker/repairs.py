# SPDX-License-Identifier: Apache-2.0
"""Constraints between sizes that only some model types have: each function sets them in config.json (values), by the
profile's sizes."""


def dbrx(values, sizes):
    experts, inner = sizes["num_experts"], sizes["intermediate_size"]
    values["ffn_config"].update(moe_num_experts=experts, ffn_hidden_size=inner, moe_top_k=2)
    values["attn_config"].update(rope_theta=1e4, kv_n_heads=sizes["num_key_value_heads"])
    values.update(n_heads=sizes["n_heads"], n_layers=sizes["n_layers"])


def zamba(values, sizes):
    values.update(num_hidden_layers=5, attn_layer_period=2, attn_layer_offset=0,
                  layers_block_type=["linear_attention", "linear_attention", "hybrid", "linear_attention", "hybrid"],
                  attention_head_dim=2 * sizes["hidden_size"] // sizes["num_attention_heads"],
                  attention_hidden_size=2 * sizes["hidden_size"], num_key_value_heads=sizes["num_attention_heads"])


def lfm2_moe(values, sizes):
    kinds = ["conv", "full_attention", "conv", "full_attention", "conv"]
    values.update(layer_types=kinds[:sizes["n_layer"]], num_dense_layers=1)


def reformer(values, sizes):
    kinds = (["local", "lsh"] * sizes["n_layer"])[: sizes["n_layer"]]
    values.update(is_decoder=True, axial_pos_embds_dim=[8, sizes["hidden_size"] - 8], attn_layers=kinds)
    values["num_hidden_layers"] = len(kinds)


def longcat_flash(values, sizes):
    values.update(ffn_hidden_size=sizes["intermediate_size"], expert_ffn_hidden_size=sizes["moe_intermediate_size"],
                  n_routed_experts=sizes["num_experts"], zero_expert_num=2)


def glm5_next(values, sizes):
    values["text_config"].update(num_key_value_heads=sizes["num_attention_heads"], index_topk=16, qk_rope_head_dim=0)


def cosmos3_edge(values, sizes):
    values["text_config"]["rope_parameters"].update(mrope_section=[sizes["head_dim"] // 2 - 4, 2, 2])


def gemma4_text(values, sizes):
    values.update(per_layer_config={}, num_experts=sizes["num_experts"], top_k_experts=2,
                  moe_intermediate_size=sizes["moe_intermediate_size"])


def rope_of_kinds(values, sizes):
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}
    values["rope_parameters"] = {kind: rope for kind in values["layer_types"]}


def dense_then_sparse(values, sizes):
    values["mlp_layer_types"] = ["dense"] + ["sparse"] * (values["num_hidden_layers"] - 1)


def ernie_rope(values, sizes):
    half = (values.get("head_dim") or sizes["hidden_size"] // sizes["num_attention_heads"]) // 2
    values["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [half - 2, 1, 1]}


def florence_vision(values, sizes):
    widths = [4 * sizes["num_attention_heads"] * n for n in (1, 2, 3, 4)]
    heads = [sizes["num_attention_heads"]] * 4
    values.update(embed_dim=widths, num_heads=heads, num_groups=heads, depths=[1, 1, 2, 1])


def florence(values, sizes):
    values["vision_config"].update(projection_dim=values["text_config"]["d_model"])


def without_layer_inputs(values, sizes):
    values["text_config"].update(hidden_size_per_layer_input=0, enable_moe_block=False)


def indexer(values, sizes):
    values.update(indexer_n_heads=2, indexer_kv_heads=1, indexer_head_dim=sizes["head_dim"])
    values.update(indexer_budget=8, indexer_compress_ratio=4)


def other_ratio_of_heads(values, sizes):
    """Where queries, keys and values are one tensor: not the same parts of it in all sizes."""
    if sizes["num_attention_heads"] == 2 * sizes["num_key_value_heads"] > 4:
        values.update(num_attention_heads=4 * sizes["num_key_value_heads"])


def of_the_text_model(values, sizes):
    """Nothing: config.json alone lets the text model in it be repaired."""


OF_THE_TEXT_MODEL = (
    "cohere_compass deepseek_ocr2 blt gemma4 gemma4_unified gemma3n diffusion_gemma ernie4_5_vl_moe qwen4_exp"
)
REPAIRS = {
    "mamba2": lambda values, sizes: values.update(head_dim=2 * sizes["hidden_size"] // sizes["num_heads"]),
    "falcon_h1": lambda values, sizes: values.update(mamba_d_ssm=2 * sizes["hidden_size"]),
    "zaya": lambda values, sizes: values.update(num_experts_per_tok=1),
    "dots1": lambda values, sizes: values.update(n_routed_experts=sizes["num_experts"], n_shared_experts=1),
    "xlnet": lambda values, sizes: values.update(d_head=sizes["d_model"] // sizes["n_head"]),
    "gemma3n_text": lambda values, sizes: values.update(num_kv_shared_layers=0),
    "dbrx": dbrx,
    "zamba": zamba,
    "lfm2_moe": lfm2_moe,
    "reformer": reformer,
    "longcat_flash": longcat_flash,
    "glm5_next": glm5_next,
    "cosmos3_edge": cosmos3_edge,
    "gemma4_text": gemma4_text,
    "gemma4_unified_text": gemma4_text,
    "cohere_compass_text": rope_of_kinds,
    "deepseek_ocr2_text": dense_then_sparse,
    "qwen4_exp_text": indexer,
    "molmo2_text": other_ratio_of_heads,
    "diffusion_gemma_text": gemma4_text,
    "ernie4_5_vl_moe_text": ernie_rope,
    "florence_vision": florence_vision,
    "florence2": florence,
    "gemma4_assistant": without_layer_inputs,
    "emu3": lambda values, sizes: values.update(vocabulary_map={"<image>": 3, "<|extra_200|>": 4}),
    "chameleon": lambda values, sizes: values.update(vocabulary_map={"<image>": 3, "IMGIMGAZ": 4}),
    **dict.fromkeys(OF_THE_TEXT_MODEL.split(), of_the_text_model),
}
