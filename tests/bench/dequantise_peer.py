# SPDX-License-Identifier: Apache-2.0
"""The libraries that crossdock's values are compared with: float32 output of each on one thread, "NAME GB/s" per line,
and bfloat16 of some. dequantise.cc has the same names and sizes; rates are of the thread's own time, as there.

    dequantise_peer.py [PART] [--reuse]      only names with PART

Results and what is between are new memory, as when a model is loaded, and not now and then, as glibc would have it.
That is most of the time of the fast ones: with --reuse memory is kept, and only loops are measured."""
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # of bitsandbytes' own kernels too
# glibc reads these when it starts. What is larger than the first is new memory each time; what the second is for, kept.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str((4 << 30) if "--reuse" in sys.argv else (1 << 20)),
          "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}
if not MALLOC.items() <= os.environ.items():
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MALLOC)
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))
import bitsandbytes.functional as bnb  # noqa: E402
import torch  # noqa: E402
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8  # noqa: E402
from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: E402

import quantised_ct as ct  # noqa: E402
from quantised_fp8 import E4M3, E5M2, E8M0, by_transformers  # noqa: E402
from quantised_gptq import AWQ_ORDER  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(1)
ROWS = COLUMNS = 4096


def codes(*shape, dtype=torch.uint8):
    """Any bits."""
    size = torch.empty(0, dtype=dtype).element_size()
    return torch.randint(256, (*shape[:-1], shape[-1] * size), dtype=torch.uint8).view(dtype)


def scales(*shape, dtype=torch.float32):
    """Of numbers near 1; of bytes their exponents."""
    if dtype in (torch.uint8, E8M0):
        return torch.randint(120, 128, shape, dtype=torch.uint8).view(dtype)
    return (torch.rand(shape) / 2 + 0.5).to(dtype)


def fp8(dtype, kind, scale, block):
    weight, scale = codes(ROWS, COLUMNS, dtype=kind), scales(ROWS // block[0], COLUMNS // block[1], dtype=scale)
    return lambda: by_transformers(weight, scale, dtype)


def fp4(dtype):
    weight, scale = codes(ROWS, COLUMNS // 2, dtype=torch.int8), scales(ROWS, COLUMNS // 32, dtype=E8M0)
    return lambda: by_transformers(weight, scale, dtype)


def gpt_oss(dtype):
    blocks, scale = codes(2, 5760, 90, 16), scales(2, 5760, 90, dtype=torch.uint8)  # 2 of 8 experts, to save memory
    return lambda: convert_moe_packed_tensors(blocks, scale, dtype=dtype)


def compressed_tensors(dtype, form, args, **state):
    state = {f"weight{key}": t for key, t in state.items()}
    return lambda: ct.decompress(state, ct.config(form, args), dtype)


def whole_bytes(dtype, kind, code):
    return compressed_tensors(dtype, f"{kind}-quantized", ct.weights(8, kind, "channel"),
                              **{"": codes(ROWS, COLUMNS, dtype=code)}, _scale=scales(ROWS, 1, dtype=torch.bfloat16))


def nvfp4(dtype):
    args = ct.weights(4, "float", "tensor_group", 16, scale_dtype="torch.float8_e4m3fn")
    return compressed_tensors(dtype, "nvfp4-pack-quantized", args, _packed=codes(ROWS, COLUMNS // 2),
                              _scale=scales(ROWS, COLUMNS // 16, dtype=E4M3), _global_scale=scales(1))


def nvfp4_of_modelopt(dtype):
    """Its formula, as tests/interop/quantised_modelopt.py has it."""
    packed, scale, second = codes(ROWS, COLUMNS // 2), scales(ROWS, COLUMNS // 16, dtype=E4M3), scales(1)

    def run():
        values = unpack_fp4_from_uint8(packed, ROWS, COLUMNS, dtype=torch.float32) + 0.0
        return (values.unflatten(-1, (-1, 16)) * (scale.float() * second).unsqueeze(-1)).flatten(-2).to(dtype)

    return run


def packed(dtype, bits, group, symmetric=True):
    zeros = {} if symmetric else {"_zero_point": codes(ROWS * bits // 32, COLUMNS // group, dtype=torch.int32)}
    return compressed_tensors(dtype, "pack-quantized", ct.weights(bits, "int", "group", group, symmetric),
                              _packed=codes(ROWS, COLUMNS * bits // 32, dtype=torch.int32),
                              _scale=scales(ROWS, COLUMNS // group, dtype=torch.bfloat16),
                              _shape=torch.tensor([ROWS, COLUMNS]), **zeros)


def packed_in_order(dtype):
    """As compressed-tensors did while it read the order (tests/interop/quantised_ct.py)."""
    decompress, order = packed(dtype, 4, 128), torch.randperm(COLUMNS)
    return lambda: decompress()[:, order].contiguous()


def four_bits(dtype, before, nested=False):
    weight, state = bnb.quantize_4bit(torch.randn(ROWS, COLUMNS).to(before), compress_statistics=nested,
                                      quant_type="nf4")
    return lambda: bnb.dequantize_4bit(weight, state).to(dtype)


def eight_bits(dtype):
    weight, scale = codes(ROWS, COLUMNS, dtype=torch.int8), scales(ROWS)
    return lambda: bnb.int8_vectorwise_dequant(weight, scale).to(dtype)


def unpack_down(words, bits):
    """Codes of words that hold them down the first dimension; those of 3 bits cross words."""
    positions = torch.arange(32) * bits
    groups = words.unflatten(0, (-1, bits))
    place, shift = positions // 32, (positions % 32).to(torch.int32).view(-1, 1)
    if 32 % bits == 0:
        return (words.unsqueeze(1) >> shift[:32 // bits] & (1 << bits) - 1).to(torch.int16).flatten(0, 1)
    low = groups[:, place] >> shift & (1 << 32 - shift) - 1
    high = groups[:, (place + 1).clamp(max=bits - 1)] << 32 - shift
    high[:, (shift + bits <= 32).flatten()] = 0
    return ((low | high) & (1 << bits) - 1).to(torch.int16).flatten(0, 1)


def gptq(dtype, bits, order):
    """gptqmodel's formula, as tests/interop/quantised_gptq.py has it."""
    words = codes(COLUMNS * bits // 32, ROWS, dtype=torch.int32)
    zero_words = codes(COLUMNS // 128, ROWS * bits // 32, dtype=torch.int32)
    scale = scales(COLUMNS // 128, ROWS, dtype=torch.float16)
    index = torch.arange(COLUMNS) // 128
    if order:
        index = index[torch.randperm(COLUMNS)]

    def run():
        zeros = unpack_down(zero_words.T.contiguous(), bits).T + 1 & (1 << bits) - 1
        return (scale[index] * (unpack_down(words, bits) - zeros[index])).T.contiguous().to(dtype)

    return run


def awq(dtype):
    """autoawq's formula: eight codes in a word, in an order of their own."""
    words, zero_words = codes(COLUMNS, ROWS // 8, dtype=torch.int32), codes(COLUMNS // 128, ROWS // 8,
                                                                           dtype=torch.int32)
    scale = scales(COLUMNS // 128, ROWS, dtype=torch.float16)
    shifts = 4 * torch.argsort(torch.tensor(AWQ_ORDER)).to(torch.int32)

    def unpack(words):
        return (words.unsqueeze(-1) >> shifts & 15).to(torch.int8).flatten(1)

    def run():
        zeros, factors = (t.repeat_interleave(128, 0) for t in (unpack(zero_words), scale))
        return ((unpack(words) - zeros) * factors).T.contiguous().to(dtype)

    return run


PEERS = {
    "fp8-128x128": lambda dtype: fp8(dtype, E4M3, torch.float32, (128, 128)),
    "fp8-128x128-e5m2": lambda dtype: fp8(dtype, E5M2, torch.float32, (128, 128)),
    "fp8-128x128-e8m0": lambda dtype: fp8(dtype, E4M3, E8M0, (128, 128)),
    "fp8-rows": lambda dtype: whole_bytes(dtype, "float", E4M3),
    "mxfp8": lambda dtype: fp8(dtype, E4M3, torch.uint8, (1, 32)),
    "mxfp4-gpt-oss": gpt_oss,
    "fp4-e8m0": fp4,
    "nvfp4-ct": nvfp4,
    "nvfp4-modelopt": nvfp4_of_modelopt,
    **{f"ct-int{bits}-{group}": lambda dtype, bits=bits, group=group: packed(dtype, bits, group)
       for bits in range(2, 9) for group in (32, 128)},
    "ct-int4-128-zeros": lambda dtype: packed(dtype, 4, 128, symmetric=False),
    "ct-int4-128-order": packed_in_order,
    "ct-int8-rows": lambda dtype: whole_bytes(dtype, "int", torch.int8),
    "bnb-nf4": lambda dtype: four_bits(dtype, torch.bfloat16),
    "bnb-nf4-nested": lambda dtype: four_bits(dtype, torch.bfloat16, nested=True),
    "bnb-nf4-fp32": lambda dtype: four_bits(dtype, torch.float32),
    "bnb-int8": eight_bits,
    **{f"gptq-int{bits}{'-order' if order else ''}": lambda dtype, bits=bits, order=order: gptq(dtype, bits, order)
       for bits in (2, 3, 4, 8) for order in (False, True)},
    "awq": awq,
}
ALSO_BF16 = ("fp8-128x128", "fp8-rows", "mxfp8", "mxfp4-gpt-oss", "nvfp4-ct", "ct-int4-32", "ct-int4-128", "bnb-nf4",
             "bnb-nf4-nested", "gptq-int4", "awq")


def main():
    part = next((arg for arg in sys.argv[1:] if arg != "--reuse"), "")
    for name, make in PEERS.items():
        if part not in name:
            continue
        for dtype in (torch.float32, torch.bfloat16) if name in ALSO_BF16 else (torch.float32,):
            run, best = make(dtype), 1e9
            for _ in range(6):
                begin = time.thread_time()
                out = run()
                best = min(best, time.thread_time() - begin)
                assert out.dtype == dtype
            print(f"{name}{'' if dtype == torch.float32 else '>bf16'} {out.nbytes / best / 1e9:.3f}", flush=True)


main()
