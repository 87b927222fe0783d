# SPDX-License-Identifier: Apache-2.0
"""Inputs for the tests, made when the tests run.

Models come from the real transformers library. Files that no library would write (holes, odd names, broken headers) are
put together by hand here, so that a test shows what it needs in a line or two.
"""
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DTYPES = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Source:
    """One Hugging Face folder: which of the shapes that save_pretrained can leave behind."""
    tied: bool
    sharded: bool
    dtype: str

    def __str__(self):
        return f"{'tied' if self.tied else 'untied'}-{'sharded' if self.sharded else 'single'}-{self.dtype}"

    @property
    def weights(self):
        """Sources with the same answer hold the same values, however they are cut into files."""
        return f"{'tied' if self.tied else 'untied'}-{self.dtype}"


SOURCES = [Source(tied, sharded, dtype) for tied in (False, True) for sharded in (False, True) for dtype in DTYPES]
PLAIN = Source(tied=False, sharded=False, dtype="bf16")


def save_tiny_llama(folder, source):
    """A real Llama of 130 KB. Its sizes are odd on purpose: hardly any parameter divides by 2, so every ZeRO rank pads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(20240607)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=259, hidden_size=35, intermediate_size=101, num_hidden_layers=3, num_attention_heads=5,
                    num_key_value_heads=1, head_dim=8, max_position_embeddings=64, initializer_range=0.15,
                    attention_bias=True, tie_word_embeddings=source.tied))
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # biases begin as zeros and norms as ones: give them values
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        model.model.norm.weight[0] = -0.0  # equal to 0.0 for ==, not for bits
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[source.dtype]
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": "60KB"} if source.sharded else {}))


def read_folder(folder):
    """{name: tensor} of a Hugging Face folder, read by the safetensors library."""
    from safetensors.torch import load_file

    index = Path(folder, "model.safetensors.index.json")
    files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    return {name: tensor for file in files for name, tensor in load_file(Path(folder, file)).items()}


# ---- safetensors by hand

WIDTH = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "BF16": 2, "F16": 2, "I32": 4,
         "F32": 4, "I64": 8, "F64": 8}


def tensor_bytes(dtype, shape, seed=0):
    """Reproducible bytes for a tensor: normal numbers for floats, small counts for the rest."""
    random = np.random.default_rng(seed)
    if dtype in ("F32", "F16", "F64", "BF16"):
        values = random.standard_normal(shape)
        if dtype == "BF16":
            return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        return values.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).tobytes()
    return random.integers(0, 2, shape).astype(f"<u{WIDTH[dtype]}").tobytes()


def layout(tensors):
    """{name: (dtype, shape)} -> the header dict with offsets that tile the file in the order given."""
    at, header = 0, {}
    for name, (dtype, shape) in tensors.items():
        end = at + WIDTH[dtype] * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    return header


def write_raw_safetensors(path, header, data):
    """The frame of the format around whatever header (dict, or text as it stands) and data a test wants."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_safetensors(path, tensors):
    """A valid file of {name: (dtype, shape)} with random values."""
    data = b"".join(tensor_bytes(dtype, shape, seed) for seed, (dtype, shape) in enumerate(tensors.values()))
    write_raw_safetensors(path, layout(tensors), data)


def write_holes(path, tensors):
    """A valid file of any size that takes no disk: all its tensors are zeros in a hole. Returns where the data begins."""
    header = layout(tensors)
    write_raw_safetensors(path, header, b"")
    start = Path(path).stat().st_size
    with open(path, "r+b") as file:
        file.truncate(start + max(entry["data_offsets"][1] for entry in header.values()))
    return start


def write_model(folder, tensors, config=None):
    """A folder with one model.safetensors of {name: (dtype, shape)} and a config.json."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": False, **(config or {})}))
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def write_shards(folder, shards, **index):
    """A sharded folder: {file: {name: (dtype, shape)}}; keywords replace what the true index would say."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": False}))
    for file, tensors in shards.items():
        write_safetensors(folder / file, tensors)
    entries = [entry for tensors in shards.values() for entry in layout(tensors).values()]
    total = sum(end - begin for begin, end in (entry["data_offsets"] for entry in entries))
    truth = {"metadata": {"total_size": total}, "weight_map": {name: file for file, ts in shards.items() for name in ts}}
    (folder / "model.safetensors.index.json").write_text(json.dumps({**truth, **index}))
    return folder
