# SPDX-License-Identifier: Apache-2.0
"""Folders of quantised models that are whole, mixed, or not what they say: what is written of them, or what is said."""
import json

import pytest
import torch
from safetensors.torch import save_file

from quantised import CASES
from recipes import read_folder
from test_quantised import assert_same, write


@pytest.fixture
def convert(crossdock):
    return lambda *args, **kwargs: crossdock("convert", *args, "--to", "safetensors", "--no-sync", **kwargs)


def renamed(case, prefix):
    """Its tensors as those of another module."""
    return {prefix + name: tensor for name, tensor in case.tensors.items()}


def test_schemes_in_one_file(convert, tmp_path):
    """As of Kimi (FP8 beside int4) and of recipes with NVFP4: each weight by what lies beside it."""
    names = ["fp8-128x128", "ct-int4-group", "ct-nvfp4", "bnb-nf4", "mxfp4-gpt-oss"]
    cases = {f"m{i}.": CASES[next(n for n in CASES if n.startswith(name))]() for i, name in enumerate(names)}
    mixed = cases["m0."]
    mixed.tensors = {n: t for prefix, case in cases.items() for n, t in renamed(case, prefix).items()}
    mixed.config = {}
    done = convert(write(tmp_path / "in", mixed), tmp_path / "out", "--dequant-dtype", "bf16")
    got = read_folder(tmp_path / "out")
    for prefix, case in cases.items():
        if prefix == "m0.":
            case = CASES[case.name]()
        want = {prefix + n: t for n, t in case.expected(torch.bfloat16).items()}
        assert_same({n: t.bfloat16() for n, t in got.items() if n.startswith(prefix)}, want)
    assert "weights were dequantised to BF16" in done.stdout


def test_scales_of_activations_are_left_out(convert, tmp_path):
    case = CASES["fp8-128x128"]()
    for name in ("input_scale", "k_scale", "output_scale", "input_zero_point"):
        case.tensors[f"model.layers.0.mlp.down_proj.{name}"] = torch.ones(1)
    convert(write(tmp_path / "in", case), tmp_path / "out")
    assert not [n for n in read_folder(tmp_path / "out") if "point" in n or "scale" in n]
    report = json.loads((tmp_path / "out/crossdock.json").read_text())
    assert "activations" in json.dumps(report)


def test_modelopt_tells_its_method_in_a_file_of_its_own(convert, tmp_path):
    """Its FP8 rounds the scale first, which others do not."""
    case = CASES["modelopt-fp8"]()
    folder = write(tmp_path / "in", case)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "hf_quant_config.json").write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}))
    convert(folder, tmp_path / "out")
    name = "model.layers.0.mlp.down_proj.weight"
    assert_same({name: read_folder(tmp_path / "out")[name]}, {name: case.expected(torch.bfloat16)[name]})


def test_config_keeps_all_else(convert, tmp_path):
    """Byte by byte, in composite models too."""
    case = CASES["fp8-128x128"]()
    folder = write(tmp_path / "in", case)
    text = ('{\n  "model_type": "x",\n  "rope_theta": 1e6,\n  "text_config": {"a": [1, {"b": 2}], "quantization_config": %s, "dtype": "bfloat16"},\n'
            '  "torch_dtype": "bfloat16",\n  "architectures": ["X"]\n}\n')
    (folder / "config.json").write_text(text % json.dumps(case.config))
    convert(folder, tmp_path / "out")
    assert (tmp_path / "out/config.json").read_text() == text.replace('"quantization_config": %s, ', "")


@pytest.mark.parametrize("source,dtype", [("float16", "F16"), ("float32", "F32"), ("bfloat16", "BF16")])
def test_auto_is_the_dtype_of_config(crossdock, convert, tmp_path, source, dtype):
    convert(write(tmp_path / "in", CASES["fp8-128x128"](), source), tmp_path / "out")
    tensors = json.loads(crossdock("inspect", "--json", "--digest", "none", tmp_path / "out").stdout)["tensors"]
    assert {t["dtype"] for t in tensors if "down_proj" in t["name"]} == {dtype}


def changed(name, change):
    """The case's folder with its tensors and config changed in place."""
    def make(folder):
        case = CASES[name]()
        change(case)
        return write(folder, case)
    return make


def without(part):
    def change(case):
        for name in [n for n in case.tensors if n.endswith(part)]:
            del case.tensors[name]
    return change


def put(part, tensor):
    def change(case):
        case.tensors[f"model.layers.0.mlp.down_proj.{part}"] = tensor
    return change


def say(**config):
    return lambda case: case.config.update(config)


INT4 = next(n for n in CASES if n.startswith("ct-int4-group"))
WRONG = {
    "fp8 without scales": (changed("fp8-128x128", without("_scale_inv")), "weight_scale_inv"),
    "scales without codes": (changed("fp8-128x128", without("down_proj.weight")), "weight_scale_inv"),
    "grid of another size": (changed("fp8-128x128", put("weight_scale_inv", torch.ones(7, 9))), "[7, 9]"),
    "grid of no elements": (changed("fp8-128x128", put("weight_scale_inv", torch.ones(0, 2))), "[0, 2]"),
    "integer scales": (changed("fp8-128x128", put("weight_scale_inv", torch.ones(2, 2, dtype=torch.int64))), "weight_scale_inv"),
    "packed without shape": (changed(INT4, without("_shape")), "weight_shape"),
    "packed without scales": (changed(INT4, without("weight_scale")), "weight_scale"),
    "shape of another weight": (changed(INT4, put("weight_shape", torch.tensor([1 << 40, -3]))), "weight_shape"),
    "nf4 without state": (changed("bnb-nf4", without("bitsandbytes__nf4")), "quant_state"),
    "nf4 with a broken state": (changed("bnb-nf4", put("weight.quant_state.bitsandbytes__nf4", torch.tensor(list(b"{"), dtype=torch.uint8))), "JSON"),
    "nf4 with a state of other sizes": (changed("bnb-nf4", put("weight.quant_state.bitsandbytes__nf4", torch.tensor(
        list(b'{"dtype":"bfloat16","shape":[4294967296,4294967296],"blocksize":64}'), dtype=torch.uint8))), "shape"),
    "gptq without zeros": (changed("gptq-int4", without("qzeros")), "qzeros"),
    "groups beyond the scales": (changed("gptq-int4", put("g_idx", torch.full((96,), 99, dtype=torch.int32))), "g_idx"),
    "gptq of other bits": (changed("gptq-int4", say(bits=8)), "8 bits"),
    "gptq of other groups": (changed("gptq-int4", say(group_size=64)), "groups of 64"),
    "marlin": (changed("gptq-int4", say(checkpoint_format="marlin")), "marlin"),
    "awq gemv": (changed("awq", say(version="gemv")), "gemv"),
    "config of another method": (changed("fp8-128x128", say(quant_method="gptq")), "gptq"),
    "smoothed inputs": (changed("modelopt-nvfp4", put("pre_quant_scale", torch.ones(96))), "pre_quant_scale"),
    "rotated weights": (changed(INT4, say(transform_config={"config_groups": {"R1": {}}})), "transform_config"),
    "sparse weights": (changed(INT4, say(sparsity_config={"format": "sparse-24-bitmask"})), "sparse-24-bitmask"),
    "int8 in tiles": (changed("bnb-int8", put("weight_format", torch.tensor(2, dtype=torch.uint8))), "weight_format"),
}


@pytest.mark.parametrize("make,named", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(convert, tmp_path, make, named):
    """In one sentence, by name, and nothing is written."""
    done = convert(make(tmp_path / "in"), tmp_path / "out", code=1)
    said = [line for line in done.stderr.splitlines() if line.startswith("crossdock: error: ")]
    assert len(said) == 1 and named in said[0], done.stderr
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("name", ["gptq-int4", "fp8-short-last-even"])
def test_a_file_alone_that_config_must_explain(convert, tmp_path, name):
    """How GPTQ keeps zeros, and where the last block is short, no shape tells."""
    case = CASES[name]()
    save_file({n: t.contiguous() for n, t in case.tensors.items()}, tmp_path / "weights.safetensors")
    assert "name the folder" in convert(tmp_path / "weights.safetensors", tmp_path / "out", code=1).stderr


def test_a_file_alone(convert, tmp_path):
    case = CASES["bnb-nf4"]()
    save_file({n: t.contiguous() for n, t in case.tensors.items()}, tmp_path / "weights.safetensors")
    convert(tmp_path / "weights.safetensors", tmp_path / "out", "--dequant-dtype", "bf16")
    assert_same(read_folder(tmp_path / "out"), case.expected(torch.bfloat16))
