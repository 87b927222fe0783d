# SPDX-License-Identifier: Apache-2.0
"""Quantised checkpoints become plain ones, with the bits of the library that each scheme belongs to."""
import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from quantised import CASES
from quantised_models import MODELS
from recipes import read_folder
from test_families import KINDS, RIGHT, converted

HERE = Path(__file__).parent

TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NAMES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}


@pytest.fixture(scope="module")
def cases():
    made = {}
    return lambda name: made.setdefault(name, CASES[name]())


def write(folder, case, dtype="bfloat16"):
    """The codes in one shard and all else in another, as the shards of a large model may fall."""
    folder.mkdir()
    config = {"architectures": ["X"], "model_type": "x", "dtype": dtype, "quantization_config": case.config}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    code_types = (torch.uint8, torch.int8, torch.int32, torch.float8_e4m3fn, torch.float8_e5m2)
    codes = {n: t for n, t in case.tensors.items() if t.dtype in code_types and t.dim() > 1 and "scale" not in n}
    shards = {"model-00001-of-00002.safetensors": {n: t for n, t in case.tensors.items() if n not in codes},
              "model-00002-of-00002.safetensors": codes}
    for name, tensors in shards.items():
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / name, metadata={"format": "pt"})
    where = {n: file for file, tensors in shards.items() for n in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def bits(tensor):
    """As integers; NaNs as one, for libraries differ in their payloads."""
    kind = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
    canonical = torch.where(tensor.isnan(), torch.full_like(tensor, float("nan")), tensor)
    return canonical.contiguous().view(kind)


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape), name
        wrong = bits(got[name]) != bits(tensor)
        assert not wrong.any(), f"{name}: {int(wrong.sum())} of {wrong.numel()} values, the first {wrong.nonzero()[0]}"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", TORCH)
def test_values(crossdock, cases, tmp_path, name, dtype):
    case = cases(name)
    folder = write(tmp_path / "in", case)
    crossdock("convert", folder, tmp_path / "out", "--to", "safetensors", "--no-sync", "--allow-overflow",
              "--dequant-dtype", dtype)
    want = case.expected(TORCH[dtype])
    for other, tensor in case.tensors.items():  # which is plain, and keeps its type
        if other in want and tensor.shape == want[other].shape and torch.equal(tensor.to(TORCH[dtype]), want[other]):
            want[other] = tensor
    got = read_folder(tmp_path / "out")
    if name.startswith("bnb-fp4"):  # whose zero with a sign is 0 or -0 by the path that bitsandbytes takes for a size
        got, want = ({n: t + 0.0 for n, t in tensors.items()} for tensors in (got, want))
    assert_same(got, want)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == NAMES[TORCH[dtype]]


# ---- whole models

@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """models(name) gives a quantised folder, and the same model as transformers dequantises it."""
    root, made = tmp_path_factory.mktemp("models"), {}

    def make(name):
        if name not in made:
            source, plain = root / f"{name}-quantised", root / f"{name}-plain"
            MODELS[name].save(source)
            config = transformers.AutoConfig.from_pretrained(source)
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            model = transformers.AutoModelForCausalLM.from_config(config).bfloat16()
            model.load_state_dict(MODELS[name].load(source, torch.bfloat16))
            model.save_pretrained(plain)
            made[name] = source, plain
        return made[name]
    return make


@pytest.mark.parametrize("name", MODELS)
def test_folder_for_from_pretrained(crossdock, models, tmp_path, name):
    source, plain = models(name)
    crossdock("convert", source, tmp_path / "out", "--to", "safetensors", "--no-sync")
    want = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype="auto").state_dict()
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert not hasattr(model.config, "quantization_config")
    assert_same(model.state_dict(), want)


@pytest.fixture(scope="module")
def verdicts(crossdock, models, torchrun, tmp_path_factory):
    root, cases = tmp_path_factory.mktemp("jobs"), []
    for name in MODELS:
        cases += converted(crossdock, root, name, *models(name))
    (root / "cases.json").write_text(json.dumps(cases))
    torchrun(1, HERE / "deepspeed_judge.py", root / "cases.json", root / "verdicts.json", timeout=900)
    return json.loads((root / "verdicts.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_deepspeed_trains_on(verdicts, name, kind):
    verdict = verdicts[f"{name}-{kind}"]
    assert verdict.pop("loss_difference") <= 1e-6, verdict
    assert verdict == RIGHT
