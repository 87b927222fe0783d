# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of compressed-tensors.

The judge is the decompressor that transformers calls, on the tensors as they are stored; its result is cast to the
dtype that is asked for. It computes in the dtype of the scales (each product in fp32, rounded to that dtype), and FP4
and the MX formats in bf16: so what is asked for in fp32 has the values of bf16 there.
"""
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized import pack_to_int32
from compressed_tensors.quantization import QuantizationConfig

from quantised_case import Quantised, Random, judged, plain
from quantised_fp8 import E4M3, EXTREME, random_codes

LINEAR = "model.layers.0.mlp.down_proj"
TOKENS = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True, "observer": None}


def weights(bits, kind, strategy, group=None, symmetric=True, **more):
    """The weights of a config group, as llm-compressor writes them."""
    args = {"num_bits": bits, "type": kind, "symmetric": symmetric, "strategy": strategy, "group_size": group,
            "block_structure": None, "dynamic": False, "actorder": None, "observer": "minmax", "observer_kwargs": {}}
    return args | more


def config(form, weight_args, activations=None, targets=("Linear",)):
    group = {"targets": list(targets), "weights": weight_args, "input_activations": activations,
             "output_activations": None, "format": form}
    return {"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed",
            "global_compression_ratio": None, "kv_cache_scheme": None, "ignore": ["lm_head"],
            "config_groups": {"group_0": group}}


def decompress(state, quantization, dtype, group="group_0"):
    scheme = QuantizationConfig.model_validate(quantization).config_groups[group]
    form = quantization["config_groups"][group]["format"]
    return BaseCompressor.get_value_from_registry(form).decompress(dict(state), scheme)["weight"].to(dtype)


def case(name, random, state, quantization, beside=()):
    """Of one module; `beside`: what is of no use for its weights."""
    others = plain(random)
    files = others | {f"{LINEAR}.{key}": tensor for key, tensor in state.items()}
    files |= {f"{LINEAR}.{key}": torch.tensor([0.25]) for key in beside}
    return Quantised(name, files, quantization,
                     judged(others, lambda dtype: {f"{LINEAR}.weight": decompress(state, quantization, dtype)}))


def integers(random, shape, bits):
    return (random.codes(shape, bits) - (1 << bits - 1)).to(torch.int8)


def scale_shape(rows, columns, strategy, group=None):
    return {"tensor": (1,), "channel": (rows, 1), "group": (rows, columns // group if group else 0)}[strategy]


def packed_state(random, bits, shape, strategy, group, scales, symmetric=True, shape_dtype=torch.int64):
    grid = scale_shape(*shape, strategy, group)
    codes = integers(random, shape, bits)
    state = {"weight_packed": pack_to_int32(codes, bits), "weight_scale": random.scales(grid, scales, EXTREME[scales]),
             "weight_shape": torch.tensor(shape, dtype=shape_dtype)}
    if not symmetric:
        zeros = integers(random, grid, bits)
        state["weight_zero_point"] = zeros if strategy == "tensor" else pack_to_int32(zeros, bits, packed_dim=0)
    return state


def packed(name, bits, shape, strategy="group", group=None, scales=torch.bfloat16, symmetric=True,
           shape_dtype=torch.int64):
    """Codes of 2 to 8 bits in a row of int32 words, which they cross; zero points are packed down the rows."""
    random = Random(name)
    state = packed_state(random, bits, shape, strategy, group, scales, symmetric, shape_dtype)
    return case(name, random, state, config("pack-quantized", weights(bits, "int", strategy, group, symmetric)))


def packed_in_order(name, shape, group):
    """With weight_g_idx, the group of each column. compressed-tensors 0.20 reads it no more; before, it sorted columns
    by their groups, dequantised and put them back (0.10, lifecycle/forward.py), which is done here around it."""
    random = Random(name)
    quantization = config("pack-quantized", weights(4, "int", "group", group))
    codes = integers(random, shape, 4)
    scale = random.scales(scale_shape(*shape, "group", group), torch.float16)
    index = torch.arange(shape[1]) // group
    index = index[torch.randperm(shape[1], generator=random.generator)]
    order = torch.argsort(index, stable=True)
    state = {"weight_scale": scale, "weight_shape": torch.tensor(shape)}
    sorted_state = state | {"weight_packed": pack_to_int32(codes[:, order], 4)}
    stored = state | {"weight_packed": pack_to_int32(codes, 4), "weight_g_idx": index.to(torch.int32)}
    others = plain(random)

    def reference(dtype):
        return {f"{LINEAR}.weight": decompress(sorted_state, quantization, dtype)[:, torch.argsort(order)].contiguous()}

    stored_config = config("pack-quantized", weights(4, "int", "group", group, actorder="group"))
    return Quantised(name, others | {f"{LINEAR}.{key}": t for key, t in stored.items()}, stored_config,
                     judged(others, reference))


def whole_bytes(name, kind, shape, strategy, scales=torch.bfloat16, form=None, symmetric=True, bits=8, group=None,
                block=None, activations=TOKENS, beside=()):
    """One byte a code: FP8 (float- and naive-quantized) or integers (int-quantized). Blocks may be short at the end."""
    random = Random(name)
    grid = (-(-shape[0] // block[0]), -(-shape[1] // block[1])) if block else scale_shape(*shape, strategy, group)
    state = {"weight": random_codes(random, shape) if kind == "float" else integers(random, shape, bits),
             "weight_scale": random.scales(grid, scales, EXTREME[scales])}
    if not symmetric:
        state["weight_zero_point"] = integers(random, grid, bits)
    args = weights(bits, kind, strategy, group, symmetric, block_structure=block)
    return case(name, random, state, config(form or f"{kind}-quantized", args, activations), beside)


def packed_floats(name, form, shape, bits, group, global_scale=None):
    """NVFP4 (scales in FP8, and one for the tensor, which they are divided by), MXFP4 and MXFP6 (powers of two)."""
    random = Random(name)
    grid = (shape[0], shape[1] // group)
    state = {"weight_packed": random.bytes((shape[0], shape[1] * bits // 8))}
    if global_scale is None:
        state["weight_scale"] = random.bytes(grid)
        args = weights(bits, "float", "group", group, scale_dtype="torch.uint8")
        return case(name, random, state, config(form, args))
    state["weight_scale"] = random.codes(grid, 7, without=(0x7F,)).to(torch.uint8).view(E4M3)  # positive, no NaN
    state["weight_global_scale"] = torch.tensor([global_scale])
    args = weights(bits, "float", "tensor_group", group, scale_dtype="torch.float8_e4m3fn")
    return case(name, random, state, config(form, args, args | {"dynamic": "local"}), ("input_global_scale",))


def mxfp8(name, shape):
    random = Random(name)
    state = {"weight": random_codes(random, shape), "weight_scale": random.bytes((shape[0], shape[1] // 32))}
    args = weights(8, "float", "group", 32, scale_dtype="torch.uint8")
    return case(name, random, state, config("mxfp8-quantized", args, args | {"dynamic": True}))


def mixed(name):
    """FP8 attention and int4 experts, which regular expressions tell apart, and a layer that is left out."""
    random = Random(name)
    float8 = config("float-quantized", weights(8, "float", "channel"), TOKENS, ["re:.*self_attn.*"])
    int4 = config("pack-quantized", weights(4, "int", "group", 16), targets=["re:.*experts.*"])
    groups = {"group_0": float8["config_groups"]["group_0"], "group_1": int4["config_groups"]["group_0"]}
    quantization = float8 | {"format": "mixed-precision", "ignore": ["lm_head", "re:.*shared_experts.*"],
                             "config_groups": groups}
    others = plain(random) | {"model.layers.0.mlp.shared_experts.up_proj.weight": random.normal(8, 8).bfloat16()}
    attention = {"weight": random_codes(random, (32, 24)), "weight_scale": random.scales((32, 1), torch.bfloat16)}
    experts = [packed_state(random, 4, (20, 48), "group", 16, torch.bfloat16) for _ in range(2)]
    modules = {"model.layers.0.self_attn.q_proj": ("group_0", attention)}
    modules |= {f"model.layers.0.mlp.experts.{i}.up_proj": ("group_1", state) for i, state in enumerate(experts)}
    files = {f"{module}.{key}": t for module, (_, state) in modules.items() for key, t in state.items()}

    def reference(dtype):
        return {f"{module}.weight": decompress(state, quantization, dtype, group)
                for module, (group, state) in modules.items()}

    return Quantised(name, others | files, quantization, judged(others, reference))


F16, F32 = torch.float16, torch.float32
CASES = {
    **{f"ct-int{bits}-group": lambda n, bits=bits: packed(n, bits, (33, 120), group=24) for bits in range(2, 9)},
    **{f"ct-int{bits}-group-zeros": lambda n, bits=bits: packed(n, bits, (33, 120), group=24, symmetric=False)
       for bits in range(2, 9)},
    **{f"ct-int{bits}-channel": lambda n, bits=bits: packed(n, bits, (35, 37), "channel") for bits in range(2, 9)},
    "ct-int4-kimi": lambda n: packed(n, 4, (48, 96), group=32, shape_dtype=torch.int32),
    "ct-int4-group-fp16": lambda n: packed(n, 4, (20, 96), group=32, scales=F16, symmetric=False),
    "ct-int4-group-fp32": lambda n: packed(n, 4, (20, 96), group=32, scales=F32, symmetric=False),
    "ct-int3-channel-zeros": lambda n: packed(n, 3, (35, 37), "channel", symmetric=False),
    "ct-int5-channel-zeros-fp16": lambda n: packed(n, 5, (37, 35), "channel", scales=F16, symmetric=False),
    "ct-int4-tensor": lambda n: packed(n, 4, (7, 37), "tensor"),
    "ct-int4-tensor-zeros": lambda n: packed(n, 4, (7, 37), "tensor", symmetric=False),
    "ct-int8-tensor-fp32": lambda n: packed(n, 8, (7, 37), "tensor", scales=F32),
    "ct-int4-one-row": lambda n: packed(n, 4, (1, 96), group=32),
    "ct-int3-one-row-zeros": lambda n: packed(n, 3, (1, 96), group=32, symmetric=False),  # with 4 bits the judge fails
    "ct-int4-g-idx": lambda n: packed_in_order(n, (20, 96), 32),
    "ct-float-channel": lambda n: whole_bytes(n, "float", (48, 50), "channel"),
    "ct-float-channel-fp32": lambda n: whole_bytes(n, "float", (48, 50), "channel", F32),
    "ct-float-channel-fp16": lambda n: whole_bytes(n, "float", (48, 50), "channel", F16),
    "ct-float-tensor": lambda n: whole_bytes(n, "float", (48, 50), "tensor", beside=("input_scale",)),
    "ct-float-tensor-fp32": lambda n: whole_bytes(n, "float", (48, 50), "tensor", F32),
    "ct-float-block": lambda n: whole_bytes(n, "float", (256, 384), "block", block=[128, 128]),
    "ct-float-block-short-last": lambda n: whole_bytes(n, "float", (50, 70), "block", F32, block=[16, 32]),
    "ct-float-block-short-last-bf16": lambda n: whole_bytes(n, "float", (192, 192), "block", block=[128, 128]),
    "ct-float-group": lambda n: whole_bytes(n, "float", (40, 96), "group", group=32),
    "ct-naive-float": lambda n: whole_bytes(n, "float", (48, 50), "channel", form="naive-quantized", activations=None),
    "ct-int8-bytes": lambda n: whole_bytes(n, "int", (48, 50), "channel"),
    "ct-int8-bytes-fp32": lambda n: whole_bytes(n, "int", (48, 50), "channel", F32),
    "ct-int8-bytes-zeros": lambda n: whole_bytes(n, "int", (48, 50), "channel", symmetric=False),
    "ct-int8-bytes-zeros-fp16": lambda n: whole_bytes(n, "int", (48, 50), "channel", F16, symmetric=False),
    "ct-int8-bytes-tensor": lambda n: whole_bytes(n, "int", (48, 50), "tensor", symmetric=False),
    "ct-int8-bytes-group": lambda n: whole_bytes(n, "int", (48, 64), "group", group=16, symmetric=False),
    "ct-int4-bytes": lambda n: whole_bytes(n, "int", (48, 50), "channel", bits=4),
    "ct-nvfp4": lambda n: packed_floats(n, "nvfp4-pack-quantized", (40, 96), 4, 16, 1234.567),
    "ct-nvfp4-small": lambda n: packed_floats(n, "nvfp4-pack-quantized", (40, 96), 4, 16, 3e-36),
    "ct-nvfp4-large": lambda n: packed_floats(n, "nvfp4-pack-quantized", (40, 96), 4, 16, 2e38),
    "ct-mxfp4": lambda n: packed_floats(n, "mxfp4-pack-quantized", (40, 256), 4, 32),
    "ct-mxfp6": lambda n: packed_floats(n, "mxfp6-pack-quantized", (40, 256), 6, 32),
    "ct-mxfp8": lambda n: mxfp8(n, (40, 256)),
    "ct-mixed": mixed,
}
