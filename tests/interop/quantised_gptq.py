# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of GPTQ and AWQ.

GPTQ's formula is that of gptqmodel 7.7, which is no part of the tests' environment (TorchLinear.dequantize_weight in
nn_modules/qlinear/torch.py): integers minus integers, times the scale, in the dtype of the scales, fp16 as a rule. Its
values and the packing here were compared with TorchLinear bit for bit.
AWQ's judge is compressed-tensors: its converter unpacks autoawq's words, and its decompressor multiplies in the dtype
of the scales, as autoawq does (dequantize_gemm in awq/utils/packing_utils.py of 0.2.9, compared too).
"""
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter

from quantised_case import Quantised, Random, judged, plain
from quantised_fp8 import EXTREME

LINEAR = "model.layers.0.mlp.down_proj"
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def pack_words(codes, bits):
    """Codes down the first dimension into int32 words, the lowest bits first. Those of 3 bits cross words."""
    positions = torch.arange(codes.shape[0]) * bits
    words = torch.zeros(-(-codes.shape[0] * bits // 32), codes.shape[1], dtype=torch.int64)
    for code, position in zip(codes, positions.tolist()):
        word, shift = divmod(position, 32)
        words[word] |= code << shift & 0xFFFFFFFF
        if shift + bits > 32:
            words[word + 1] |= code >> 32 - shift
    return (words - (words >> 31 << 32)).to(torch.int32)


def gptq_config(bits, group, desc_act, sym, form):
    """As gptqmodel writes it."""
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": desc_act, "sym": sym,
            "lm_head": False, "checkpoint_format": form, "pack_dtype": "int32",
            "meta": {"quantizer": ["gptqmodel:7.7.0"]}}


def gptq(name, bits, shape, group, order=False, index=True, sym=False, form="gptq", scales=torch.float16, borrow=False):
    """Inputs are rows here, so that the plain weight is the transpose. order: any input may have any group (desc_act);
    index: with g_idx. Zero points of format "gptq" are stored less one: they are from 1 to 2^bits - 1, or with `borrow`
    from 0, where gptqmodel subtracts 0x11111111 of words, so that a 0 borrows of its neighbour, and adds it to read.
    """
    random = Random(name)
    inputs, outputs = shape
    groups = -(-inputs // group) if group > 0 else 1
    codes = random.codes(shape, bits)
    zeros = random.codes((groups, outputs), bits, without=() if borrow or form == "gptq_v2" else (0,))
    if sym:
        zeros = torch.full_like(zeros, 1 << bits - 1)
    scale = random.scales((groups, outputs), scales, EXTREME[scales])
    g_idx = torch.arange(inputs) // (group if group > 0 else inputs)
    if order:
        g_idx = g_idx[torch.randperm(inputs, generator=random.generator)]
    less = 1 if form == "gptq" and not borrow else 0
    qzeros = pack_words((zeros - less).T, bits).T.contiguous() - (0x11111111 if borrow else 0)
    others = plain(random, torch.float16) | {f"{LINEAR}.bias": random.normal(outputs).half()}
    state = {"qweight": pack_words(codes, bits), "scales": scale, "qzeros": qzeros}
    if index:
        state["g_idx"] = g_idx.to(torch.int32)
    files = others | {f"{LINEAR}.{key}": t for key, t in state.items()}

    def reference(dtype):
        return {f"{LINEAR}.weight": (scale[g_idx] * (codes - zeros[g_idx])).T.contiguous().to(dtype)}

    return Quantised(name, files, gptq_config(bits, group, order, sym, form), judged(others, reference))


def awq(name, shape, group, scales=torch.float16):
    """Eight outputs in a word, in an order of AWQ's kernels; inputs are rows."""
    random = Random(name)
    inputs, outputs = shape
    groups = inputs // group if group > 0 else 1

    def pack(codes):
        codes = codes.unflatten(1, (-1, 8))[..., AWQ_ORDER].flatten(1)
        return pack_words(codes.reshape(-1, 8).T, 4).reshape(codes.shape[0], -1)

    state = {"qweight": pack(random.codes(shape, 4)),
             "scales": random.scales((groups, outputs), scales, EXTREME[scales]),
             "qzeros": pack(random.codes((groups, outputs), 4))}
    quantization = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
                    "modules_to_not_convert": None}
    others = plain(random, torch.float16) | {f"{LINEAR}.bias": random.normal(outputs).half()}

    def reference(dtype):
        converter = AutoAWQConverter.from_autoawq_config(quantization | {"group_size": inputs // groups})
        tensors = converter.process({f"{LINEAR}.{key}": t for key, t in state.items()})
        scheme = converter.update_config(None).config_groups["config_group_0"]
        tensors = {key.removeprefix(f"{LINEAR}."): t for key, t in tensors.items()}
        weight = BaseCompressor.get_value_from_registry("pack-quantized").decompress(tensors, scheme)["weight"]
        return {f"{LINEAR}.weight": weight.to(dtype)}

    return Quantised(name, others | {f"{LINEAR}.{key}": t for key, t in state.items()}, quantization,
                     judged(others, reference))


BITS = (2, 3, 4, 8)
CASES = {
    **{f"gptq-int{bits}": lambda n, bits=bits: gptq(n, bits, (96, 64), 32) for bits in BITS},
    **{f"gptq-int{bits}-v2": lambda n, bits=bits: gptq(n, bits, (96, 64), 32, form="gptq_v2") for bits in BITS},
    **{f"gptq-int{bits}-order": lambda n, bits=bits: gptq(n, bits, (96, 64), 32, order=True) for bits in BITS},
    "gptq-int4-sym": lambda n: gptq(n, 4, (128, 64), 128, sym=True),
    "gptq-int4-sym-order": lambda n: gptq(n, 4, (128, 64), 32, order=True, sym=True),
    "gptq-int4-no-index": lambda n: gptq(n, 4, (96, 64), 32, index=False),
    "gptq-int4-whole": lambda n: gptq(n, 4, (96, 64), -1),
    "gptq-int4-short-last": lambda n: gptq(n, 4, (88, 40), 32),
    "gptq-int4-borrow": lambda n: gptq(n, 4, (96, 64), 32, borrow=True),
    "gptq-int4-bf16": lambda n: gptq(n, 4, (96, 64), 32, scales=torch.bfloat16),
    "gptq-int8-fp32": lambda n: gptq(n, 8, (96, 64), 32, scales=torch.float32),
    "awq": lambda n: awq(n, (96, 64), 32),
    "awq-bf16": lambda n: awq(n, (256, 40), 128, scales=torch.bfloat16),
    "awq-whole": lambda n: awq(n, (96, 64), -1),
}
