# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face folder becomes a checkpoint of each format and comes back as it was: names, types, bits, config, metadata."""
import pytest
import torch
from safetensors import safe_open

import transformers as t
from recipes import Source
from test_families import FAMILIES
from test_ways_back import TIED

MODELS = {name: FAMILIES[name] for name in ("mixtral", "qwen3_moe", "gpt_neox", "llava")} | {"gpt2": TIED["gpt2"], "t5": TIED["t5"]}
OPTIMIZER = ("--lr", 1e-3, "--weight-decay", 0.1)
WAYS = {"universal": ("universal",), "zero3 of 1": ("zero3", "--world-size", 1, *OPTIMIZER), "zero3 of 3": ("zero3", "--world-size", 3, *OPTIMIZER),
        "zero3 of 8": ("zero3", "--world-size", 8, *OPTIMIZER), "dcp": ("dcp",), "dcp of 4": ("dcp", "--dcp-shards", 4)}
LLAMAS = [Source(tied, sharded, dtype) for tied, sharded, dtype in ((True, False, "bf16"), (False, True, "fp32"), (True, True, "fp16"))]


def raw(folder):
    """{name: (dtype, shape, bytes)} and the metadata of all files."""
    tensors, metadata = {}, []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            metadata.append(opened.metadata())
            for name in opened.keys():
                x = opened.get_tensor(name)
                tensors[name] = (x.dtype, tuple(x.shape), x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return tensors, metadata


def check_round_trip(crossdock, folder, tmp_path, way, dtype):
    to, *flags = WAYS[way]
    crossdock("convert", folder, tmp_path / "there", "--to", to, *flags, "--no-sync")
    # The fp32 masters of a job have the bits of what they were made of, and are rounded to it again. dcp keeps types.
    back = [] if to == "dcp" or dtype == "fp32" else ["--dtype", dtype]
    crossdock("convert", tmp_path / "there", tmp_path / "back", "--to", "safetensors", *back, "--no-sync")
    before, after = raw(folder), raw(tmp_path / "back")
    assert after[0] == before[0]
    assert after[1] == before[1][:1]
    for file in folder.glob("*.json"):
        if "index" not in file.name:
            assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("recipe", LLAMAS, ids=str)
def test_llama(crossdock, source, tmp_path, recipe, way):
    if recipe.dtype == "fp16" and way.startswith("zero3"):
        pytest.skip("zero3 writes jobs in bf16 and fp32")
    check_round_trip(crossdock, source(recipe), tmp_path, way, recipe.dtype)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", MODELS)
def test_models_whose_files_are_not_their_module(crossdock, tmp_path, family, way):
    torch.manual_seed(9)
    cls, config = MODELS[family]
    cls(config()).to(torch.bfloat16).save_pretrained(tmp_path / "in")
    check_round_trip(crossdock, tmp_path / "in", tmp_path, way, "bf16")


@pytest.mark.parametrize("first, second", [("zero3 of 3", "universal"), ("universal", "zero3 of 8"), ("dcp of 4", "zero3 of 3"), ("zero3 of 8", "dcp of 4"),
                                           ("universal", "dcp"), ("dcp", "universal"), ("zero3 of 1", "zero3 of 8")])
def test_by_way_of_another_format(crossdock, tmp_path, first, second):
    torch.manual_seed(9)
    t.Qwen3MoeForCausalLM(FAMILIES["qwen3_moe"][1]()).save_pretrained(tmp_path / "in")
    to, *flags = WAYS[first]
    crossdock("convert", tmp_path / "in", tmp_path / "first", "--to", to, *flags, "--no-sync")
    to, *flags = WAYS[second]
    crossdock("convert", tmp_path / "first", tmp_path / "second", "--to", to, *flags, "--no-sync")
    crossdock("convert", tmp_path / "second", tmp_path / "back", "--to", "safetensors", "--no-sync")
    assert raw(tmp_path / "back")[0] == raw(tmp_path / "in")[0]
