# SPDX-License-Identifier: Apache-2.0
"""The files of rules/ against the installed transformers: they are of its version, scripts/make_rules.py makes them
again, and what their text says of a checkpoint is what from_pretrained makes of it."""
import importlib.metadata
import json
import pathlib
import sys

import numpy as np
import pytest
import torch
import transformers as t
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from rules_maker import evaluate, textproto  # noqa: E402
from rules_maker.family import expand  # noqa: E402
from rules_maker.faults import faults  # noqa: E402
from rules_maker.inherit import INHERITED  # noqa: E402
from rules_maker.study import study  # noqa: E402

# Sizes that scripts/rules_maker/tiny.py does not have.
SIZES = {"vocab_size": 70, "hidden_size": 48, "intermediate_size": 52, "num_hidden_layers": 4, "num_attention_heads": 6,
         "num_key_value_heads": 3, "head_dim": 10}
EXPERTS = {**SIZES, "num_experts_per_tok": 2, "moe_intermediate_size": 18}
TEXT = {**SIZES, "head_dim": 8}
VISION = {"hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 3, "num_attention_heads": 2,
          "image_size": 24, "patch_size": 8}
# (class, config)
MODELS = [
    (t.LlamaForCausalLM, lambda: t.LlamaConfig(**SIZES, tie_word_embeddings=True)),
    (t.LlamaForCausalLM, lambda: t.LlamaConfig(**SIZES, attention_bias=True)),
    (t.MixtralForCausalLM, lambda: t.MixtralConfig(**EXPERTS, num_local_experts=7)),
    (t.Qwen2MoeForCausalLM, lambda: t.Qwen2MoeConfig(
        **EXPERTS, num_experts=5, shared_expert_intermediate_size=22, mlp_only_layers=[1])),
    (t.DeepseekV3ForCausalLM, lambda: t.DeepseekV3Config(
        **EXPERTS, n_routed_experts=6, n_group=1, topk_group=1, q_lora_rank=14, kv_lora_rank=10, qk_rope_head_dim=4,
        qk_nope_head_dim=6, v_head_dim=6, first_k_dense_replace=2)),
    (t.Qwen3NextForCausalLM, lambda: t.Qwen3NextConfig(
        **EXPERTS, num_experts=5, shared_expert_intermediate_size=22, linear_num_value_heads=4, linear_num_key_heads=2,
        linear_key_head_dim=6, linear_value_head_dim=8)),
    (t.Lfm2ForCausalLM, lambda: t.Lfm2Config(
        **SIZES, block_ff_dim=52, layer_types=["conv", "full_attention", "full_attention", "conv"], conv_bias=True)),
    (t.GPTNeoXForCausalLM, lambda: t.GPTNeoXConfig(**SIZES, max_position_embeddings=20)),
    (t.BertForMaskedLM, lambda: t.BertConfig(**SIZES, max_position_embeddings=20, type_vocab_size=3)),
    (t.T5ForConditionalGeneration, lambda: t.T5Config(
        vocab_size=70, d_model=48, d_kv=10, d_ff=52, num_layers=4, num_decoder_layers=3, num_heads=6,
        feed_forward_proj="gated-gelu")),
    (t.BartForConditionalGeneration, lambda: t.BartConfig(
        vocab_size=70, d_model=48, encoder_layers=4, decoder_layers=3, encoder_ffn_dim=52, decoder_ffn_dim=56,
        encoder_attention_heads=6, decoder_attention_heads=4, max_position_embeddings=20)),
    (t.LlavaForConditionalGeneration, lambda: t.LlavaConfig(
        text_config=t.LlamaConfig(**TEXT), vision_config=t.CLIPVisionConfig(**VISION), image_token_index=3)),
    (t.Qwen2VLForConditionalGeneration, lambda: t.Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}},
        vision_config={"depth": 3, "embed_dim": 24, "hidden_size": 48, "num_heads": 2, "patch_size": 8})),
]


def committed(architecture):
    """The parsed rule of a class, with what it inherits."""
    def find(name):
        file, = (ROOT / "rules").glob(f"*/{name}.textproto")
        return textproto.parse(file.read_text(encoding="utf-8"))
    return expand(find(architecture), find)


def test_the_rules_are_of_the_installed_transformers():
    made = (ROOT / "rules" / "VERSION.txt").read_text(encoding="utf-8").strip()
    installed = importlib.metadata.version("transformers")
    assert made == installed, (f"rules/ was made with transformers {made}, and {installed} is installed: run "
                               "scripts/make_rules.py and look at what changes")


@pytest.mark.parametrize("name", ["LlamaModel", "GPT2LMHeadModel", "MixtralForCausalLM", "BertForMaskedLM",
                                  "Qwen3NextModel", "LlavaForConditionalGeneration", "T5ForConditionalGeneration",
                                  "ViTForImageClassification"])
def test_the_maker_makes_the_same_rule_again(name, tmp_path):
    made = textproto.parse(textproto.lines(study(getattr(t, name), str(tmp_path))["rule"]))
    rule = committed(name)
    assert made["architecture"] == rule["architecture"] and made["model_type"] == rule["model_type"]
    assert made["parameter"] == rule["parameter"]
    for field in set(INHERITED) - {"parameter"}:
        text = lambda entries: sorted(json.dumps(entry, sort_keys=True) for entry in entries)
        assert text(made.get(field, [])) == text(rule.get(field, [])), field


@pytest.mark.parametrize("cls, config", MODELS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_rule_makes_the_module_of_a_file(cls, config, tmp_path):
    """Its parameters bit for bit, in the order of named_parameters()."""
    torch.manual_seed(0)
    model = cls(config()).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path, dtype=torch.float32)
    tensors = {k: v.numpy() for k, v in load_file(tmp_path / "model.safetensors").items()}
    config_json = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    rule = committed(cls.__name__)
    made, buffers = evaluate.apply(rule, tensors, config_json)
    expected = {k: v.detach().numpy() for k, v in loaded.named_parameters()}
    assert list(made) == list(expected)
    assert all(np.array_equal(made[name], expected[name]) for name in expected)
    assert all(np.array_equal(value, loaded.state_dict()[name].numpy()) for name, value in buffers.items())
    every = [k for k, _ in loaded.named_parameters(remove_duplicate=False)]
    assert faults(rule, every, {k: v.shape for k, v in expected.items()}, config_json) == []


def test_a_rule_does_not_make_the_module_of_another_file(tmp_path):
    """The comparison above sees a tensor that is missing, and one in another order."""
    model = t.MixtralForCausalLM(t.MixtralConfig(**EXPERTS, num_local_experts=3))
    model.save_pretrained(tmp_path)
    tensors = {k: v.numpy() for k, v in load_file(tmp_path / "model.safetensors").items()}
    config_json = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    rule = committed("MixtralForCausalLM")
    made, _ = evaluate.apply(rule, {k: v for k, v in tensors.items() if k != "model.norm.weight"}, config_json)
    assert "model.norm.weight" not in made
    one, other = (f"model.layers.0.block_sparse_moe.experts.{n}.w2.weight" for n in (0, 1))
    made, _ = evaluate.apply(rule, {**tensors, one: tensors[other], other: tensors[one]}, config_json)
    parameter = model.get_parameter("model.layers.0.mlp.experts.down_proj").detach().numpy()
    assert np.array_equal(made["model.layers.0.mlp.experts.down_proj"], parameter[[1, 0, 2]])
