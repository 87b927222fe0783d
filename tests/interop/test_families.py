# SPDX-License-Identifier: Apache-2.0
"""Families whose modules are not what their files hold (experts, fused projections, renamed towers): real DeepSpeed trains on."""
import json
from pathlib import Path

import pytest
import torch
import transformers as t

HERE = Path(__file__).parent
SMALL = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}
EXPERTS = SMALL | {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
LINEAR = EXPERTS | {"num_hidden_layers": 4, "head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
                    "linear_value_head_dim": 8, "shared_expert_intermediate_size": 16}
LATENT = SMALL | {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
                  "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
                  "v_head_dim": 8, "n_shared_experts": 1, "num_key_value_heads": 4}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16, "patch_size": 8}


def llava():
    return t.LlavaConfig(vision_config=t.CLIPVisionConfig(**VISION), text_config=t.LlamaConfig(**SMALL), image_token_index=95)


FAMILIES = {
    "mixtral": (t.MixtralForCausalLM, lambda: t.MixtralConfig(**SMALL, num_local_experts=4)),
    "qwen2_moe": (t.Qwen2MoeForCausalLM, lambda: t.Qwen2MoeConfig(**EXPERTS, shared_expert_intermediate_size=16)),
    "qwen3_moe": (t.Qwen3MoeForCausalLM, lambda: t.Qwen3MoeConfig(**EXPERTS, head_dim=8)),
    "qwen3_next": (t.Qwen3NextForCausalLM, lambda: t.Qwen3NextConfig(**LINEAR)),
    "qwen3_5_moe": (t.Qwen3_5MoeForCausalLM, lambda: t.Qwen3_5MoeTextConfig(**LINEAR)),
    "deepseek_v2": (t.DeepseekV2ForCausalLM, lambda: t.DeepseekV2Config(**LATENT)),
    "deepseek_v3": (t.DeepseekV3ForCausalLM, lambda: t.DeepseekV3Config(**LATENT)),
    "olmoe": (t.OlmoeForCausalLM, lambda: t.OlmoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2)),
    "granitemoe": (t.GraniteMoeForCausalLM, lambda: t.GraniteMoeConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2)),
    "phimoe": (t.PhimoeForCausalLM, lambda: t.PhimoeConfig(**SMALL, num_local_experts=4)),
    "glm4_moe": (t.Glm4MoeForCausalLM, lambda: t.Glm4MoeConfig(**LATENT | {"head_dim": 8})),
    "jamba": (t.JambaForCausalLM, lambda: t.JambaConfig(**SMALL, num_experts=4, mamba_d_state=4, mamba_dt_rank=4, attn_layer_period=2,
                                                        attn_layer_offset=1, use_mamba_kernels=False)),
    "gpt_neox": (t.GPTNeoXForCausalLM, lambda: t.GPTNeoXConfig(**{k: v for k, v in SMALL.items() if k != "num_key_value_heads"})),
    "llava": (t.LlavaForConditionalGeneration, llava),
}


KINDS = ("universal2", "universal3", "zero33")
RIGHT = {"loaded": True, "wrong_weights": [], "wrong_masters": [], "wrong_moments": []}


def converted(crossdock, root, name, source, plain):
    """Converts the folder source to jobs' formats; gives the judge's cases: does a job train on as from_pretrained(plain)?"""
    crossdock("convert", source, root / f"{name}-universal", "--to", "universal", "--no-sync")
    crossdock("convert", source, root / f"{name}-zero3", "--to", "zero3", "--world-size", 1, "--dtype", "fp32", "--lr", 3e-3,
              "--weight-decay", 0.01, "--no-sync")
    return [{"name": f"{name}-{kind}{stage}", "hf": str(plain), "kind": kind, "folder": str(root / f"{name}-{kind}"), "stage": stage,
             "sub_group": 0, "buffer": False, "dtype": "fp32", "groups": 1, "trainable": [], "moments": True, "weights": name}
            for kind, stage in (("universal", 2), ("universal", 3), ("zero3", 3))]


@pytest.fixture(scope="module")
def verdicts(crossdock, torchrun, tmp_path_factory):
    """{family-kind: verdict}, of one job."""
    root, cases = tmp_path_factory.mktemp("families"), []
    for family, (cls, config) in FAMILIES.items():
        torch.manual_seed(11)
        model = cls(config())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.save_pretrained(root / family)
        cases += converted(crossdock, root, family, root / family, root / family)
    (root / "cases.json").write_text(json.dumps(cases))
    torchrun(1, HERE / "deepspeed_judge.py", root / "cases.json", root / "verdicts.json", timeout=900)
    return json.loads((root / "verdicts.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_trains_on_exactly(verdicts, family, kind):
    verdict = verdicts[f"{family}-{kind}"]
    assert verdict.pop("loss_difference") <= 1e-6, verdict
    assert verdict == RIGHT
