# SPDX-License-Identifier: Apache-2.0
"""crossdock diff and inspect --stats, against what numpy and torch make of the same tensors."""
import json
import shutil

import numpy as np
import pytest
import torch
from recipes import Source
from safetensors.torch import save_file
from test_families import FAMILIES

FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
MANTISSA = {"BF16": 7, "F16": 10, "F32": 23, "F64": 52}
BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}


def save(folder, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def diff(crossdock, a, b, *flags, code):
    done = crossdock("diff", a, b, "--json", *flags, code=code)
    return json.loads(done.stdout)


def places(x):
    """Floats as their places among all of their type: neighbours are 1 apart, both zeros are 0."""
    bits = x.view(BITS[x.dtype]).numpy().astype(object)
    top = 1 << (8 * x.element_size() - 1)
    return np.array([-(int(b) + top) if b < 0 else int(b) for b in bits.flat], dtype=object)


def ulps(a, b):
    coarser = min((a, b), key=lambda x: MANTISSA[name_of(x)]).dtype
    by_float = coarser in (torch.bfloat16, torch.float16)  # as torch itself rounds float64 to 16 bits
    x, y = (v.float().to(coarser) if by_float else v.to(coarser) for v in (a, b))
    return np.abs(places(x) - places(y)).max()


def name_of(x):
    return next(k for k, v in FLOATS.items() if v == x.dtype)


@pytest.mark.parametrize("b_type", FLOATS)
@pytest.mark.parametrize("a_type", FLOATS)
def test_distances(crossdock, tmp_path, a_type, b_type):
    generator = torch.Generator().manual_seed(9)
    base = torch.randn(7, 501, dtype=torch.float64, generator=generator)
    a = base.to(FLOATS[a_type])
    noise = torch.randn(base.shape, dtype=torch.float64, generator=generator)
    is_noisy = torch.rand(base.shape, generator=generator) < 0.2
    b = (base + 1e-3 * noise * is_noisy).to(FLOATS[b_type])
    told = diff(crossdock, save(tmp_path / "a", {"w": a}), save(tmp_path / "b", {"w": b}), code=1)
    one = told["tensors"][0]
    x, y = a.double(), b.double()
    assert one["elements"] == a.numel()
    assert one["differ"] == (x != y).sum().item() > 0
    assert one["max_abs"] == (x - y).abs().max().item()
    assert one["max_ulp"] == ulps(a, b)
    assert one["first"] == (x != y).flatten().int().argmax().item()
    assert one["a"] == {"dtype": a_type, "shape": [7, 501], "nan": 0} and one["b"]["dtype"] == b_type


def test_the_same_in_bits(crossdock, tmp_path):
    values = torch.tensor([1.0, float("nan"), -0.0, float("inf"), float("-inf"), 3.5])
    a = save(tmp_path / "a", {"w": values, "n": torch.tensor([1, -2], dtype=torch.int8),
                              "f8": torch.ones(3).to(torch.float8_e4m3fn)})
    told = diff(crossdock, a, shutil.copytree(a, tmp_path / "b"), code=0)
    assert told["same"] and [x["differ"] for x in told["tensors"]] == [0, 0, 0]
    w = next(x for x in told["tensors"] if x["name"] == "w")
    assert w["a"]["nan"] == w["b"]["nan"] == 1
    assert crossdock("diff", a, tmp_path / "b").stdout == "the same: 3 tensors\n"


def test_nan_infinity_and_zeros_of_both_signs(crossdock, tmp_path):
    a = torch.tensor([1.0, float("nan"), 0.0, float("inf"), 2.0])
    b = a.clone()
    b[2] = -0.0
    told = diff(crossdock, save(tmp_path / "a", {"w": a}), save(tmp_path / "b", {"w": b}), code=1)["tensors"][0]
    assert (told["differ"], told["max_abs"], told["max_ulp"], told["first"]) == (1, 0, 0, 2)
    b[1] = torch.tensor(0x7fc00001, dtype=torch.int32).view(torch.float32)  # another NaN
    told = diff(crossdock, tmp_path / "a", save(tmp_path / "b", {"w": b}), code=1)["tensors"][0]
    assert (told["differ"], told["max_abs"], told["first"], told["b"]["nan"]) == (2, "inf", 1, 1)
    b[1], b[3] = 1, 5
    told = diff(crossdock, tmp_path / "a", save(tmp_path / "b", {"w": b}), code=1)["tensors"][0]
    assert (told["differ"], told["max_abs"], told["a"]["nan"], told["b"]["nan"]) == (3, "inf", 1, 0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool,
                                   torch.float8_e4m3fn, torch.float8_e5m2])
def test_other_types(crossdock, tmp_path, dtype):
    a = torch.arange(64).to(dtype).reshape(8, 8)
    b = a.clone()
    b.view(torch.uint8)[5, 3] ^= 1
    told = diff(crossdock, save(tmp_path / "a", {"w": a}), save(tmp_path / "b", {"w": b}), code=1)["tensors"][0]
    assert told["differ"] == 1 and told["max_abs"] == (a.double() - b.double()).abs().max().item()
    widened = diff(crossdock, tmp_path / "a", save(tmp_path / "c", {"w": a.double()}), code=1)
    assert widened["tensors"][0]["differ"] == 0
    assert diff(crossdock, tmp_path / "a", tmp_path / "c", "--ignore-types", code=0)["same"]


def test_names_and_shapes(crossdock, tmp_path):
    a = save(tmp_path / "a", {"x": torch.ones(3), "y": torch.ones(2, 3), "z": torch.ones(1)})
    b = save(tmp_path / "b", {"x": torch.ones(3), "y": torch.ones(3, 2), "w": torch.ones(1)})
    told = diff(crossdock, a, b, code=1)
    assert (told["only_in_a"], told["only_in_b"]) == (["z"], ["w"])
    assert [(x["name"], x["same"]) for x in told["tensors"]] == [("x", True), ("y", False)]
    table = crossdock("diff", a, b, code=1).stdout
    assert "only in A: z\nonly in B: w\ny  F32 [2, 3] / F32 [3, 2]  other shapes\n" in table
    assert "different: 1 tensors are the same, 1 differ, 1 only in A, 1 only in B" in table
    assert crossdock("diff", a, b, "--all", code=1).stdout.count("\n") == 5


def test_of_two_formats(crossdock, source, converted, tmp_path):
    """A universal folder has fp32 and moments; the values are those of the model."""
    recipe = Source(tied=False, sharded=True, dtype="bf16")
    done = crossdock("diff", source(recipe), converted(recipe), "--ignore-types")
    assert done.stdout == "the same: 42 tensors\n"
    assert "B has the state of an optimizer (84 tensors), which the other has not: it is left out" in done.stderr
    assert "same values" in crossdock("diff", source(recipe), converted(recipe), code=1).stdout
    crossdock.convert(source(recipe), tmp_path / "again", "--compact")
    told = diff(crossdock, converted(recipe), tmp_path / "again", "--ignore-types", code=0)
    assert len(told["tensors"]) == 126


@pytest.mark.parametrize("names, count", [("module", 21), ("file", 41)])
def test_experts_stacked_and_one_by_one(crossdock, tmp_path, names, count):
    cls, config = FAMILIES["mixtral"]
    torch.manual_seed(3)
    cls(config()).save_pretrained(tmp_path / "hf")
    crossdock.convert(tmp_path / "hf", tmp_path / "out")
    done = crossdock("diff", tmp_path / "hf", tmp_path / "out", code=1)
    assert "--names module (or file) gives both those of the class" in done.stderr and "only in A" in done.stdout
    same = crossdock("diff", tmp_path / "hf", tmp_path / "out", "--names", names)
    assert same.stdout == f"the same: {count} tensors\n"


def test_exit_codes(crossdock, tmp_path):
    a = save(tmp_path / "a", {"x": torch.ones(3)})
    for args in ((), (a,), (a, a, a), (a, a, "--names", "x"), (a, a, "--threads", "0"), (a, a, "--what")):
        crossdock("diff", *args, code=2)
    assert "B: expected a file or folder" in crossdock("diff", a, tmp_path / "none", code=1).stderr
    cut = shutil.copytree(a, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((a / "model.safetensors").read_bytes()[:-1])
    assert crossdock("diff", a, cut, code=1).stderr.startswith("crossdock: error: B: ")
    assert crossdock("diff", "--help").stdout.startswith("crossdock diff A B")


# ---- inspect --stats

def test_statistics(crossdock, tmp_path):
    torch.manual_seed(2)
    tensors = {f"{name}.w": torch.randn(13, 1001).to(dtype) for name, dtype in FLOATS.items()}
    tensors |= {"i": torch.arange(-5, 100), "f8": torch.randn(999).to(torch.float8_e4m3fn)}
    folder = save(tmp_path / "a", tensors)
    model = json.loads(crossdock("inspect", folder, "--stats", "--json").stdout)
    told = {x["name"]: x["statistics"] for x in model["tensors"]}
    for name, x in tensors.items():
        x = x.double()
        assert (told[name]["min"], told[name]["max"]) == (x.min().item(), x.max().item())
        assert told[name]["mean"] == pytest.approx(x.mean().item(), rel=1e-12, abs=1e-15)
        assert told[name]["zero"] == (x == 0).sum().item()
        assert (told[name]["nan"], told[name]["inf"], told[name]["constant"]) == (0, 0, False)
    assert crossdock("inspect", folder, "--stats").stdout.endswith("6 tensors: no NaN, no Inf, none constant\n")


def test_what_is_suspicious(crossdock, tmp_path):
    bad = torch.ones(4, 5)
    bad[1, 2], bad[0, 0], bad[3, 3] = float("nan"), float("inf"), float("-inf")
    folder = save(tmp_path / "a", {"bad": bad, "zero": torch.zeros(3, 3, dtype=torch.bfloat16),
                                   "half": torch.full((2, 2), 0.5), "norm.weight": torch.ones(8),
                                   "bias": torch.zeros(8), "good": torch.randn(9)})
    out = crossdock("inspect", folder, "--stats").stdout
    assert out.endswith("suspicious: 3 of 6 tensors: bad (1 NaN, 2 Inf), half (constant 0.5), zero (all zero)\n")
    assert "bad  F32  [4, 5]  min 1, max 1, mean 1, 1 NaN, 2 Inf\n" in out
