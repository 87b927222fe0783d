# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of NVIDIA ModelOpt.

The package is no part of the tests' environment, and transformers does not read these. So the formulas are those of
dequantize() in modelopt/torch/quantization/qtensor/ (0.47), in the dtypes of each step there, and were compared with it
bit for bit. FP8 casts codes and scales to the dtype that is asked for and multiplies there; the others multiply in fp32
and cast last.
"""
import torch
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8

from quantised_case import Quantised, Random, judged, plain
from quantised_fp8 import E4M3, LINEAR, by_transformers, random_codes

EXPERT = "model.layers.0.mlp.experts.1.up_proj"


def config(algorithm, **weights):
    """Of ModelOpt's config.json (export/convert_hf_config.py); hf_quant_config.json says the same in other words."""
    groups = {"group_0": {"weights": {"dynamic": False, "type": "float"} | weights, "targets": ["Linear"],
                          "input_activations": {"dynamic": False, "type": "float"} | weights}} if weights else {}
    return {"quant_method": "modelopt", "quant_algo": algorithm, "config_groups": groups, "ignore": ["lm_head"],
            "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
            "producer": {"name": "modelopt", "version": "0.47.0"}}


def fp8(name, scale, algorithm="FP8"):
    """fp8_tensor.py: one scale for the tensor, or one for each row without a second dimension."""
    random = Random(name)
    weight = random_codes(random, (48, 50))
    scale = random.scales(scale, torch.float32, (3e-5, 1e-40))
    others = plain(random)
    files = others | {f"{LINEAR}.weight": weight, f"{LINEAR}.weight_scale": scale}
    files[f"{LINEAR}.input_scale"] = torch.tensor(0.5)

    def reference(dtype):
        return {f"{LINEAR}.weight": weight.to(dtype) * scale.reshape(-1, 1).to(dtype)}

    return Quantised(name, files, config(algorithm, num_bits=8), judged(others, reference))


def mxfp8(name):
    """mxfp8_tensor.py, whose formula is that of transformers' Fp8Dequantize: fp32(code) * 2^(byte - 127)."""
    random = Random(name)
    weight, scale = random_codes(random, (40, 256)), random.bytes((40, 8))
    others = plain(random)
    return Quantised(name, others | {f"{LINEAR}.weight": weight, f"{LINEAR}.weight_scale": scale}, config("MXFP8"),
                     judged(others, lambda dtype: {f"{LINEAR}.weight": by_transformers(weight, scale, dtype)}))


def nvfp4(name, shape, whole, rank=0, module=LINEAR):
    """nvfp4_tensor.py: the FP8 scale of 16 codes times the tensor's in fp32, times the code in fp32. Code 8 is 0 there,
    not -0."""
    random = Random(name)
    codes = random.bytes((shape[0], shape[1] // 2))
    scale = random.codes((shape[0], shape[1] // 16), 7, without=(0x7F,)).to(torch.uint8).view(E4M3)
    whole = torch.full((1,) * rank, whole)
    others = plain(random)
    files = others | {f"{module}.weight": codes, f"{module}.weight_scale": scale, f"{module}.weight_scale_2": whole}
    files[f"{module}.input_scale"] = torch.tensor(0.5)

    def reference(dtype):
        values = unpack_fp4_from_uint8(codes, *shape, dtype=torch.float32) + 0.0  # which makes 0 of -0
        scales = scale.float() * whole
        return {f"{module}.weight": (values.unflatten(-1, (-1, 16)) * scales.unsqueeze(-1)).reshape(shape).to(dtype)}

    return Quantised(name, files, config("NVFP4", num_bits=4, group_size=16), judged(others, reference))


CASES = {
    "modelopt-fp8": lambda n: fp8(n, ()),
    "modelopt-fp8-rows": lambda n: fp8(n, (48,), "FP8_PER_CHANNEL_PER_TOKEN"),
    "modelopt-mxfp8": mxfp8,
    "modelopt-nvfp4": lambda n: nvfp4(n, (40, 96), 7.1234e-4),
    "modelopt-nvfp4-1": lambda n: nvfp4(n, (40, 96), 7.1234e-4, rank=1, module=EXPERT),
    "modelopt-nvfp4-small": lambda n: nvfp4(n, (40, 96), 3e-39),
    "modelopt-nvfp4-large": lambda n: nvfp4(n, (40, 96), 2e35),
}
