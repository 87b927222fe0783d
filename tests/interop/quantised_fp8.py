# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of FP8 codes with scales of blocks, rows or whole tensors.

The judges round once: fp32(code) * fp32(scale), exact or rounded to fp32, then to the dtype that is asked for. That is
what transformers loads with dequantize=True: the product goes to the dtype of the parameter, and scales are not cast
before. (Without a model, Fp8Dequantize would round to the dtype of the scales; so it gets a model here.)
"""
import torch
from compressed_tensors.entrypoints.convert.converters import FP8BlockDequantizer
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from quantised_case import Quantised, Random, judged, plain

E4M3, E5M2, E8M0 = torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu
NOT_FINITE = {E4M3: (0x7F, 0xFF), E5M2: (0x7C, 0x7D, 0x7E, 0x7F, 0xFC, 0xFD, 0xFE, 0xFF)}
# Powers of two so small that products are denormal, and so large that they overflow in bf16 and fp16 or only there.
EXTREME = {torch.float32: (2.0 ** -140, 1.5 * 2.0 ** -131, 2.0 ** 118, 3e-5), torch.bfloat16: (2.0 ** -133, 2.0 ** 118),
           torch.float16: (2.0 ** -24, 60000.0), E8M0: (2.0 ** -127, 2.0 ** 127)}
LINEAR = "model.layers.0.mlp.down_proj"
EXPERTS = "model.layers.0.mlp.experts.down_proj"


def config(block, scheme="dynamic"):
    """As of DeepSeek-V3 (blocks) and Mistral (None: one scale for a tensor)."""
    return {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": scheme, "weight_block_size": block}


def by_transformers(codes, scales, dtype):
    """Blocks are what the shape of the scales makes of the matrix: short last ones are refused."""
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.empty(codes.shape, dtype=dtype, device="meta"))
    return Fp8Dequantize(None).convert({"weight": codes, "weight_scale_inv": scales}, full_layer_name="weight",
                                       model=model)["weight"]


def by_compressed_tensors(codes, scales, dtype, block):
    """Blocks of a given size, the last ones short where they do not fill the matrix."""
    judge = FP8BlockDequantizer(weight_block_size=tuple(block), dtype=dtype)
    return judge.process({"x.weight": codes, "x.weight_scale_inv": scales})["x.weight"]


def random_codes(random, shape, dtype=E4M3, not_finite=False):
    return random.bytes(shape, without=() if not_finite else NOT_FINITE[dtype]).view(dtype)


def random_scales(random, shape, dtype, all_scales=False):
    if all_scales:
        return random.bytes(shape).view(dtype)
    return random.scales(shape, dtype, EXTREME[dtype])


def blocks(name, shape, block, codes=E4M3, scales=torch.float32, not_finite=False, all_scales=False,
           scale_name="weight_scale_inv", **more):
    """A matrix, or with three dimensions the experts of a layer, whose name is that of the parameter itself."""
    random = Random(name)
    grid = [*shape[:-2], -(-shape[-2] // block[0]), -(-shape[-1] // block[1])]
    weight = random_codes(random, shape, codes, not_finite)
    scale = random_scales(random, grid, scales, all_scales)
    others = plain(random)
    key, scale_key = f"{LINEAR}.weight", f"{LINEAR}.{scale_name}"
    if len(shape) == 3:
        key, scale_key = EXPERTS, EXPERTS + "_scale_inv"

    def reference(dtype):
        if shape[-2] % block[0] == 0 and shape[-1] % block[1] == 0:
            return {key: by_transformers(weight, scale, dtype)}
        if len(shape) == 3:
            return {key: torch.stack([by_compressed_tensors(w, s, dtype, block) for w, s in zip(weight, scale)])}
        return {key: by_compressed_tensors(weight, scale, dtype, block)}

    quantization = config(list(block)) | more
    return Quantised(name, others | {key: weight, scale_key: scale}, quantization, judged(others, reference))


def whole(name, scale_shape, scales=torch.float32, scale_name="weight_scale_inv", beside=(), quantization=None):
    """One scale for a tensor (shape [] or [1]) or for each row ([R, 1]); `beside`: scales of activations."""
    random = Random(name)
    weight = random_codes(random, (48, 50))
    scale = random_scales(random, scale_shape, scales)
    others = plain(random)
    files = others | {f"{LINEAR}.weight": weight, f"{LINEAR}.{scale_name}": scale}
    files |= {f"{LINEAR}.{extra}": torch.tensor(0.25, dtype=scales) for extra in beside}
    return Quantised(name, files, quantization or config(None, "static" if beside else "dynamic"),
                     judged(others, lambda dtype: {f"{LINEAR}.weight": by_transformers(weight, scale, dtype)}))


FBGEMM = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}
# AutoFP8's and vLLM's: "fp8" too, but the scale has another name.
AUTOFP8 = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
STATIC = ("activation_scale", "input_scale")

CASES = {
    "fp8-128x128": lambda n: blocks(n, (256, 384), (128, 128)),
    "fp8-128x128-bf16": lambda n: blocks(n, (256, 384), (128, 128), scales=torch.bfloat16),
    "fp8-16x32": lambda n: blocks(n, (64, 96), (16, 32)),
    "fp8-1x128": lambda n: blocks(n, (12, 256), (1, 128)),
    "fp8-64x1-fp16": lambda n: blocks(n, (128, 6), (64, 1), scales=torch.float16),
    "fp8-not-finite": lambda n: blocks(n, (64, 64), (32, 32), not_finite=True),
    "fp8-short-last": lambda n: blocks(n, (300, 200), (128, 128)),
    "fp8-short-last-bf16": lambda n: blocks(n, (33, 70), (16, 32), scales=torch.bfloat16),
    # Here the scales' shape would fit blocks of 96 x 96 as well.
    "fp8-short-last-even": lambda n: blocks(n, (192, 192), (128, 128)),
    "fp8-one-short-block": lambda n: blocks(n, (40, 24), (128, 128)),
    "fp8-e5m2": lambda n: blocks(n, (64, 96), (32, 32), codes=E5M2, fmt="e5m2"),
    "fp8-e5m2-not-finite": lambda n: blocks(n, (40, 40), (32, 32), codes=E5M2, fmt="e5m2", not_finite=True),
    "fp8-e8m0": lambda n: blocks(n, (256, 384), (128, 128), scales=E8M0, scale_fmt="ue8m0"),
    "fp8-e8m0-short-last": lambda n: blocks(n, (50, 70), (16, 32), scales=E8M0, scale_fmt="ue8m0"),
    # With 255, which is NaN.
    "fp8-e8m0-all-scales": lambda n: blocks(n, (40, 256), (1, 32), scales=E8M0, all_scales=True, scale_fmt="ue8m0"),
    "fp8-experts": lambda n: blocks(n, (3, 64, 96), (32, 32)),
    "fp8-experts-bf16": lambda n: blocks(n, (2, 64, 96), (16, 48), scales=torch.bfloat16),
    "fp8-experts-short-last": lambda n: blocks(n, (2, 40, 72), (32, 32)),
    # One scale for an expert, and one for each half of gate_up_proj.
    "fp8-experts-tensor": lambda n: blocks(n, (3, 40, 24), (40, 24), weight_block_size=None),
    "fp8-experts-halves": lambda n: blocks(n, (3, 40, 24), (20, 24), scales=torch.bfloat16, weight_block_size=None),
    "fp8-scale": lambda n: blocks(n, (64, 96), (32, 32), scales=E8M0, scale_name="scale", scale_fmt="ue8m0"),
    "fp8-qscale": lambda n: whole(n, (), torch.bfloat16, "qscale_weight", ("qscale_act",)),
    "fp8-tensor": lambda n: whole(n, ()),
    "fp8-tensor-bf16": lambda n: whole(n, (), torch.bfloat16, beside=STATIC),
    "fp8-tensor-1": lambda n: whole(n, (1,), beside=STATIC),
    "fp8-rows": lambda n: whole(n, (48, 1)),
    "fp8-rows-bf16": lambda n: whole(n, (48, 1), torch.bfloat16),
    "fp8-autofp8": lambda n: whole(n, (), scale_name="weight_scale", beside=("input_scale",), quantization=AUTOFP8),
    # transformers has no dequantiser for it; the codes and scales are those of rows.
    "fbgemm-fp8": lambda n: whole(n, (48, 1), scale_name="weight_scale", beside=("input_scale_ub",),
                                  quantization=FBGEMM),
}
