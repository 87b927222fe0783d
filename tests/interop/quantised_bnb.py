# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of bitsandbytes, as transformers saves them.

Four-bit codes: two in a byte, the first in its high half, in blocks that run over the whole tensor, not over rows. The
judge gives the dtype that the weights had before (quant_state's), rounding fp32(code) * fp32(absmax) once;
model.dequantize() of transformers casts that, and so does expected(): what was bf16 has values of bf16 in fp32 too.

On processors with AVX-512 bitsandbytes' kernel takes wrong scales for some matrices whose rows are no multiple of the
blocks (0.50: 5 x 192 in blocks of 128, for one); its other paths do not. So the judge sees one long row.
"""
import json

import torch
from bitsandbytes import functional as bnb
from transformers import BitsAndBytesConfig

from quantised_case import Quantised, Random, judged, plain

LINEAR = "model.layers.0.mlp.down_proj"


def config(**options):
    return json.loads(BitsAndBytesConfig(**options).to_json_string(use_diff=False))


def four_bits(name, shape, kind="nf4", block=64, nested=False, dtype=torch.bfloat16, storage=torch.uint8,
              of_weights=True):
    """of_weights: bitsandbytes quantises random weights. Else codes and scales are random, which no weights need give.
    Other storage than uint8 is the same bytes, for jobs that shard parameters of one dtype."""
    random = Random(name)
    weight = random.normal(*shape) * torch.exp2(random.normal(shape[0], 1) * 4)
    codes, state = bnb.quantize_4bit(weight.to(dtype), blocksize=block, compress_statistics=nested, quant_type=kind,
                                     quant_storage=storage)
    if not of_weights:
        codes = random.bytes(codes.shape)
        state.absmax = random.bytes(state.absmax.shape) if nested else random.scales(
            state.absmax.shape, torch.float32, (2.0 ** -140, 1.5 * 2.0 ** -131, 2.0 ** 120, 3e-5))
        if nested:
            state.state2.absmax = random.scales(state.state2.absmax.shape)
    others = plain(random)
    stored = {f"{LINEAR}.weight": codes}
    stored |= {f"{LINEAR}.weight.{key}": t for key, t in state.as_dict(packed=True).items()}
    quantization = config(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=nested,
                          bnb_4bit_compute_dtype=dtype, bnb_4bit_quant_storage=storage)

    def reference(wanted):
        parts = {key.removeprefix(f"{LINEAR}.weight."): t for key, t in stored.items() if key != f"{LINEAR}.weight"}
        read = bnb.QuantState.from_dict(parts, torch.device("cpu"))
        read.shape = torch.Size([read.shape.numel()])
        return {f"{LINEAR}.weight": bnb.dequantize_4bit(codes, read).reshape(shape).to(wanted)}

    return Quantised(name, others | stored, quantization, judged(others, reference))


def eight_bits(name, shape, of_weights=True):
    """One scale for a row, by 127. The judge multiplies by it and then by fp32(1/127): two roundings, in fp32."""
    random = Random(name)
    codes, scales, _ = bnb.int8_vectorwise_quant(random.normal(*shape).half())
    if not of_weights:
        codes = random.bytes(shape).view(torch.int8)
        scales = random.scales(shape[:1], torch.float32, (2.0 ** -140, 2.0 ** 118))
    others = plain(random, torch.float16)
    files = others | {f"{LINEAR}.weight": codes, f"{LINEAR}.SCB": scales}
    files[f"{LINEAR}.weight_format"] = torch.tensor(0, dtype=torch.uint8)  # rows; old GPU layouts had other numbers
    return Quantised(name, files, config(load_in_8bit=True), judged(
        others, lambda dtype: {f"{LINEAR}.weight": bnb.int8_vectorwise_dequant(codes, scales).to(dtype)}))


F16, F32 = torch.float16, torch.float32
CASES = {
    "bnb-nf4": lambda n: four_bits(n, (48, 128)),
    "bnb-nf4-fp16": lambda n: four_bits(n, (48, 128), dtype=F16),
    "bnb-nf4-fp32": lambda n: four_bits(n, (48, 128), dtype=F32),
    "bnb-nf4-128": lambda n: four_bits(n, (5, 192), block=128, dtype=F32),
    "bnb-nf4-4096": lambda n: four_bits(n, (50, 192), block=4096),
    "bnb-nf4-odd": lambda n: four_bits(n, (7, 37)),
    "bnb-nf4-nested": lambda n: four_bits(n, (150, 130), nested=True),
    "bnb-nf4-nested-fp32": lambda n: four_bits(n, (150, 130), nested=True, dtype=F32),
    "bnb-nf4-nested-odd": lambda n: four_bits(n, (151, 131), block=32, nested=True),
    "bnb-nf4-storage-bf16": lambda n: four_bits(n, (48, 128), nested=True, storage=torch.bfloat16),
    "bnb-nf4-storage-fp32": lambda n: four_bits(n, (48, 128), storage=F32),
    "bnb-nf4-codes": lambda n: four_bits(n, (33, 50), dtype=F32, of_weights=False),
    "bnb-nf4-codes-bf16": lambda n: four_bits(n, (33, 50), of_weights=False),
    "bnb-nf4-codes-nested": lambda n: four_bits(n, (150, 130), nested=True, dtype=F32, of_weights=False),
    "bnb-fp4": lambda n: four_bits(n, (48, 128), "fp4"),
    "bnb-fp4-nested": lambda n: four_bits(n, (150, 130), "fp4", nested=True, dtype=F16),
    "bnb-fp4-codes": lambda n: four_bits(n, (33, 50), "fp4", 128, dtype=F32, of_weights=False),
    "bnb-fp4-codes-nested": lambda n: four_bits(n, (150, 130), "fp4", nested=True, of_weights=False),
    "bnb-int8": lambda n: eight_bits(n, (48, 50)),
    "bnb-int8-codes": lambda n: eight_bits(n, (48, 50), of_weights=False),
}
