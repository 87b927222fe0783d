# SPDX-License-Identifier: Apache-2.0
"""Checkpoints whose scales are powers of two: gpt-oss' MXFP4, MXFP8, and DeepSeek-V4's FP4 experts beside FP8.

A product of a code and a power of two is exact, so that there is one rounding, to the dtype that is asked for; what is
too large is infinite, and what is small denormal.
"""
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from quantised_case import Quantised, Random, judged, plain
from quantised_fp8 import E8M0, LINEAR, by_transformers, random_codes, random_scales

EXPERTS = "model.layers.0.mlp.experts"
GPT_OSS = {"quant_method": "mxfp4", "modules_to_not_convert": [
    "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}
MXFP8 = {"quant_method": "mxfp8", "activation_scheme": "dynamic", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"}
DEEPSEEK_V4 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
               "scale_fmt": "ue8m0", "expert_dtype": "fp4"}


def gpt_oss(name, experts, hidden, inner, scales=range(256)):
    """The experts of a layer. The blocks of 32 lie along the input, which the plain model has second to last.

    transformers has no NaN among the scales: 255 is 2^128, which leaves 0 a zero and makes 0.5 finite."""
    random = Random(name)
    others = plain(random)
    files, keys = dict(others), {}
    for part, rows, columns in (("gate_up_proj", 2 * inner, hidden), ("down_proj", hidden, inner)):
        keys[part] = [random.bytes((experts, rows, columns // 32, 16)),
                      random.pick(torch.tensor(scales, dtype=torch.uint8), (experts, rows, columns // 32))]
        files |= {f"{EXPERTS}.{part}_blocks": keys[part][0], f"{EXPERTS}.{part}_scales": keys[part][1]}
        others[f"{EXPERTS}.{part}_bias"] = files[f"{EXPERTS}.{part}_bias"] = random.normal(experts, rows).bfloat16()

    def reference(dtype):
        return {f"{EXPERTS}.{part}": convert_moe_packed_tensors(*key, dtype=dtype) for part, key in keys.items()}

    return Quantised(name, files, GPT_OSS, judged(others, reference))


def mxfp8(name, shape, quantization=MXFP8, scale_name="weight_scale_inv"):
    """FP8 in blocks of 32 of a row, with exponents as bytes: here 255 is infinite."""
    random = Random(name)
    codes = random_codes(random, shape)
    scales = random.bytes((*shape[:-1], shape[-1] // 32))
    others = plain(random)
    key, scale_key = f"{LINEAR}.weight", f"{LINEAR}.{scale_name}"
    if len(shape) == 3:
        key, scale_key = f"{EXPERTS}.down_proj", f"{EXPERTS}.down_proj_scale_inv"
    return Quantised(name, others | {key: codes, scale_key: scales}, quantization,
                     judged(others, lambda dtype: {key: by_transformers(codes, scales, dtype)}))


def deepseek_v4(name):
    """Experts of two FP4 codes in a byte of type I8, the low half first; attention in FP8. The Hub's names."""
    random = Random(name)
    others = plain(random)
    files, keys = dict(others), {}
    for module, codes, grid in (("attn.wq_a", (256, 128), (2, 1)), ("ffn.experts.0.w1", (48, 48), (48, 3)),
                                ("ffn.experts.1.w1", (48, 48), (48, 3)), ("ffn.experts.0.w2", (96, 16), (96, 1))):
        module = f"layers.0.{module}"
        weight = random.bytes(codes).view(torch.int8) if "experts" in module else random_codes(random, codes)
        keys[module] = weight, random_scales(random, grid, E8M0)
        files |= {f"{module}.weight": weight, f"{module}.scale": keys[module][1]}

    def reference(dtype):
        return {f"{module}.weight": by_transformers(*key, dtype) for module, key in keys.items()}

    return Quantised(name, files, DEEPSEEK_V4, judged(others, reference))


CASES = {
    "mxfp4-gpt-oss": lambda n: gpt_oss(n, 2, 96, 64, range(97, 157)),
    "mxfp4-gpt-oss-all-scales": lambda n: gpt_oss(n, 3, 96, 64),
    "mxfp8": lambda n: mxfp8(n, (40, 256)),
    "mxfp8-experts": lambda n: mxfp8(n, (3, 40, 96)),
    "fp4-deepseek-v4": deepseek_v4,
}
