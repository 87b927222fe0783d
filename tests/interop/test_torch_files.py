# SPDX-License-Identifier: Apache-2.0
"""Every file of a converted folder, read by Python's torch and zipfile and compared with what DeepSpeed expects to find.

The expectation is written here once more, on purpose: from what DeepSpeed 0.19.8 reads, not from what crossdock writes.
"""
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes import PLAIN, SOURCES, Source, read_folder, write_holes, write_model, write_raw_safetensors
from tree_digest import tree_digest

TAG = "global_step0"
MOMENTS = ("exp_avg", "exp_avg_sq")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

# flags -> (dtype of fp32.pt if not float32, kind of moments)
VARIANTS = {
    (): (torch.float32, "holes"),
    ("--moments", "dense"): (torch.float32, "dense"),
    ("--moments", "zero-stride"): (torch.float32, "zero-stride"),
    ("--moments", "none"): (torch.float32, "none"),
    ("--precision", "source"): (None, "holes"),
    ("--compact",): (None, "zero-stride"),
}
EVERY_SOURCE_AND_EVERY_VARIANT = [(source, ()) for source in SOURCES] + [(PLAIN, flags) for flags in VARIANTS if flags]


def load(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def read_report(folder):
    return json.loads(Path(folder, "crossdock.json").read_text())


def assert_same_bits(actual, expected):
    """Same dtype, shape, strides and bits."""
    assert (actual.dtype, actual.shape, actual.stride()) == (expected.dtype, expected.shape, expected.stride())
    as_bytes = lambda t: t.contiguous().reshape(-1).view(torch.uint8)
    assert torch.equal(as_bytes(actual), as_bytes(expected))


def assert_only_zero(actual, shape, zero_stride=False):
    assert_same_bits(actual, torch.zeros(()).expand(shape) if zero_stride else torch.zeros(shape))
    stored = actual.untyped_storage().nbytes()
    assert stored == (4 if zero_stride else 4 * actual.numel())


# ---- content

@pytest.mark.parametrize("recipe,flags", EVERY_SOURCE_AND_EVERY_VARIANT, ids=str)
def test_parameter_folders(source, converted, recipe, flags):
    precision, moments = VARIANTS[flags]
    tensors = read_folder(source(recipe))
    zero = converted(recipe, *flags) / TAG / "zero"
    assert {entry.name for entry in zero.iterdir()} == {*tensors, "optimizer_state.pt"}
    for name, tensor in tensors.items():
        expected = {"fp32.pt"} | ({"exp_avg.pt", "exp_avg_sq.pt", "step.pt"} if moments != "none" else set())
        assert {file.name for file in (zero / name).iterdir()} == expected
        weights = load(zero / name / "fp32.pt")
        assert list(weights) == ["param", "cat_dim"] and weights["cat_dim"] == 0
        assert_same_bits(weights["param"], tensor.to(precision or tensor.dtype))
        if moments != "none":
            for moment in MOMENTS:
                content = load(zero / name / f"{moment}.pt")
                assert list(content) == ["param", "cat_dim"] and content["cat_dim"] == 0
                assert_only_zero(content["param"], tensor.shape, moments == "zero-stride")
            assert_only_zero(load(zero / name / "step.pt"), ())


def test_optimizer_state(converted):
    state = load(converted(PLAIN) / TAG / "zero/optimizer_state.pt")
    assert isinstance(state["ds_version"], str)
    # Many and empty: stages 1/2 zip() these with the job's groups, and what they hold replaces the job's settings.
    assert state["param_groups"] == [{"params": []}] * 64
    inner = state["optimizer_state_dict"]
    assert inner["param_groups"] == [{"params": []}]
    assert list(inner["state"]) == [0] and list(inner["state"][0]) == ["step"]
    assert_only_zero(inner["state"][0]["step"], ())


@pytest.mark.parametrize("recipe", [PLAIN, Source(tied=True, sharded=True, dtype="fp32")], ids=str)
def test_model_states(source, converted, recipe):
    folder = converted(recipe) / TAG
    states = load(folder / "mp_rank_00_model_states.pt")
    required = {"dp_world_size": 1, "mp_world_size": 1, "global_steps": 0, "skipped_steps": 0,
                # read by DeepSpeed's own schedulers, torch's LambdaLR, and those of torch that wrap others
                "lr_scheduler": {"last_batch_iteration": -1, "lr_lambdas": [], "_schedulers": []},
                "universal_checkpoint_info": {"universal_checkpoint_version": 0.4}}
    assert {key: states[key] for key in required} == required
    assert isinstance(states["ds_version"], str)
    assert len(states["module"]) == 0 and states["buffer_names"] == []
    shapes = {name: tensor.shape for name, tensor in read_folder(source(recipe)).items()}
    assert states["param_shapes"] == [shapes]
    assert all(isinstance(shape, torch.Size) for shape in states["param_shapes"][0].values())
    assert set(states["shared_params"].items()) <= ({(HEAD, EMBEDDING)} if recipe.tied else set())
    for_stage_3 = folder / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    assert {**load(for_stage_3)} == {**states}


def test_files_beside_the_checkpoint(source, converted):
    origin, folder = source(PLAIN), converted(PLAIN)
    copies = {"config.json", "generation_config.json"}
    assert {entry.name for entry in folder.iterdir()} == {*copies, TAG, "latest_universal", "crossdock.json"}
    assert (folder / "latest_universal").read_text() == TAG
    for name in copies:
        assert (folder / name).read_bytes() == (origin / name).read_bytes()


def test_tag(crossdock, source, tmp_path):
    crossdock.convert(source(PLAIN), tmp_path / "out", "--tag", "start")
    assert (tmp_path / "out/latest_universal").read_text() == "start"
    assert (tmp_path / "out/start/mp_rank_00_model_states.pt").exists()
    assert not (tmp_path / "out" / TAG).exists()


def test_integers_and_bools_are_buffers(crossdock, tmp_path):
    types = {"weight": ("F32", [3, 5]), "bn.num_batches_tracked": ("I64", []), "mask": ("BOOL", [4, 4]), "ids": ("I32", [7])}
    folder = write_model(tmp_path / "in", types)
    crossdock.convert(folder, tmp_path / "out")
    buffers = {name: tensor for name, tensor in read_folder(folder).items() if name != "weight"}
    assert {entry.name for entry in (tmp_path / "out" / TAG / "zero").iterdir()} == {"weight", "optimizer_state.pt"}
    for file in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"):
        states = load(tmp_path / "out" / TAG / file)
        assert sorted(states["buffer_names"]) == sorted(buffers) == sorted(states["module"])
        for name, tensor in buffers.items():
            assert_same_bits(states["module"][name], tensor)
    report = {tensor["name"]: tensor for tensor in read_report(tmp_path / "out")["tensors"]}
    for name in buffers:
        assert any("model_states.pt" in target for target in report[name]["objects"])


def test_a_tied_tensor_that_is_stored_twice_is_one_parameter(crossdock, tmp_path):
    """Older files hold lm_head beside the embedding that it shares. DeepSpeed lists such a parameter once."""
    folder = write_model(tmp_path / "in", {EMBEDDING: ("BF16", [11, 3]), "model.norm.weight": ("BF16", [3])},
                         {"tie_word_embeddings": True})
    embedding = read_folder(folder)[EMBEDDING]
    from safetensors.torch import save_file
    save_file({**read_folder(folder), HEAD: embedding.clone()}, folder / "model.safetensors")
    crossdock.convert(folder, tmp_path / "out")
    zero = tmp_path / "out" / TAG / "zero"
    assert_same_bits(load(zero / EMBEDDING / "fp32.pt")["param"], embedding.float())
    assert not (zero / HEAD).exists()
    head = next(tensor for tensor in read_report(tmp_path / "out")["tensors"] if tensor["name"] == HEAD)
    assert "tie" in head["excluded"]


@pytest.mark.parametrize("flag,pattern", [("--frozen", "embed_tokens|norm"), ("--trainable", "proj|lm_head")])
def test_frozen_parameters(crossdock, source, tmp_path, flag, pattern):
    crossdock.convert(source(PLAIN), tmp_path / "out", flag, pattern)
    names = set(read_folder(source(PLAIN)))
    frozen = {name for name in names if "embed_tokens" in name or "norm" in name}
    report = read_report(tmp_path / "out")
    assert {p["name"] for p in report["parameters"]} == names - frozen
    assert {t["name"] for t in report["tensors"] if "frozen" in t.get("excluded", "")} == frozen
    assert {entry.name for entry in (tmp_path / "out" / TAG / "zero").iterdir()} == names - frozen | {"optimizer_state.pt"}
    assert any("from_pretrained" in note for note in report["notes"]), "a universal load restores no frozen weights"


@pytest.mark.parametrize("flags,renamed", [
    (["--add-prefix", "module."], lambda name: f"module.{name}"),
    (["--strip-prefix", "model."], lambda name: name.removeprefix("model.")),
    (["--rename", "^model\\.=backbone."], lambda name: name.replace("model.", "backbone.", 1)),
    (["--rename", "layers\\.([0-9]+)=h$1"], lambda name: name.replace("layers.", "h")),
], ids=["add", "strip", "rename", "rename-group"])
def test_other_names(crossdock, source, tmp_path, flags, renamed):
    crossdock.convert(source(PLAIN), tmp_path / "out", *flags)
    tensors = read_folder(source(PLAIN))
    zero = tmp_path / "out" / TAG / "zero"
    assert {entry.name for entry in zero.iterdir()} == {*map(renamed, tensors), "optimizer_state.pt"}
    assert {(p["source"], p["name"]) for p in read_report(tmp_path / "out")["parameters"]} == {(n, renamed(n)) for n in tensors}
    for name, tensor in tensors.items():
        assert_same_bits(load(zero / renamed(name) / "fp32.pt")["param"], tensor.float())


@pytest.mark.parametrize("dtype,torch_dtype", [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_every_half_precision_value_is_cast_exactly(crossdock, tmp_path, dtype, torch_dtype):
    folder = write_model(tmp_path / "in", {})
    header = {"w": {"dtype": dtype, "shape": [256, 256], "data_offsets": [0, 1 << 17]}}
    write_raw_safetensors(folder / "model.safetensors", header, np.arange(1 << 16, dtype="<u2").tobytes())
    crossdock.convert(folder, tmp_path / "out")
    actual = load(tmp_path / "out" / TAG / "zero/w/fp32.pt")["param"]
    expected = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch_dtype).float().reshape(256, 256)
    nan = expected.isnan()
    assert torch.equal(actual.isnan(), nan)  # a NaN stays a NaN; its payload is nobody's promise
    assert_same_bits(actual[~nan], expected[~nan])


def test_scalars_and_empty_tensors(crossdock, tmp_path):
    folder = write_model(tmp_path / "in", {"scalar": ("F32", []), "empty": ("BF16", [0, 3]), "ones": ("F16", [1, 1, 1, 1])})
    crossdock.convert(folder, tmp_path / "out")
    for name, tensor in read_folder(folder).items():
        stored = tensor.float().reshape(tensor.shape or 1)  # stages 1 and 2 chunk() what they load, which no scalar can
        assert_same_bits(load(tmp_path / "out" / TAG / "zero" / name / "fp32.pt")["param"], stored)
        assert_only_zero(load(tmp_path / "out" / TAG / "zero" / name / "exp_avg.pt")["param"], stored.shape)


# ---- container

def record_offset(path, record):
    """Where the bytes of a stored record begin, from its local header."""
    with open(path, "rb") as file:
        file.seek(record.header_offset + 26)
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return record.header_offset + 30 + name + extra


def check_archive(path):
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        names = [record.filename for record in records]
        root = names[0].split("/")[0]
        assert {f"{root}/{name}" for name in ("data.pkl", "byteorder", "version")} <= set(names)
        assert all(name.startswith(f"{root}/") for name in names) and len(names) == len(set(names))
        assert archive.read(f"{root}/byteorder") == b"little"
        for record in records:
            assert record.compress_type == zipfile.ZIP_STORED and record.compress_size == record.file_size
            assert record_offset(path, record) % 64 == 0, f"{path}: {record.filename} is not aligned as torch aligns"
        assert archive.testzip() is None, f"{path}: wrong CRC"


@pytest.mark.parametrize("flags", VARIANTS, ids=str)
def test_archives(converted, flags):
    files = list(converted(PLAIN, *flags).rglob("*.pt"))
    assert len(files) > 30
    for file in files:
        check_archive(file)


def disk_bytes(path):
    return path.stat().st_blocks * 512


def test_zero_moments_take_no_disk(crossdock, tmp_path):
    (tmp_path / "in").mkdir()
    write_holes(tmp_path / "in/model.safetensors", {"w": ("BF16", [1024, 4097])})
    logical = 4 * 1024 * 4097
    for moments in ("holes", "dense"):
        crossdock.convert(tmp_path / "in", tmp_path / moments, "--moments", moments)
        for moment in MOMENTS:
            file = tmp_path / moments / TAG / "zero/w" / f"{moment}.pt"
            check_archive(file)
            assert_only_zero(load(file)["param"], (1024, 4097))
            if moments == "holes":
                assert disk_bytes(file) <= 64 << 10 < logical < file.stat().st_size
            else:
                assert disk_bytes(file) >= logical


@pytest.mark.skipif(os.environ.get("CROSSDOCK_SKIP_BIG") == "1", reason="CROSSDOCK_SKIP_BIG=1")
def test_records_over_4_gib(crossdock, big_tmp_path):
    """Sizes and offsets that need zip64. The source is a hole, with a few values at its ends to recognise."""
    if shutil.disk_usage(big_tmp_path).free < 20 << 30:
        pytest.skip("needs 20 GB of free disk")
    shape, ends = (65537, 16384), torch.tensor([1.5, -2.0, 3.25], dtype=torch.bfloat16)
    (big_tmp_path / "in").mkdir()
    file = big_tmp_path / "in/model.safetensors"
    start = write_holes(file, {"w": ("BF16", shape)})
    with open(file, "r+b") as out:
        for at in (start, file.stat().st_size - 6):
            out.seek(at)
            out.write(ends.view(torch.uint8).numpy().tobytes())
    crossdock.convert(big_tmp_path / "in", big_tmp_path / "out")
    folder = big_tmp_path / "out" / TAG / "zero/w"
    for name in ("fp32", *MOMENTS):
        path = folder / f"{name}.pt"
        tensor = torch.load(path, mmap=True, weights_only=True)["param"]
        assert tensor.shape == shape and tensor.is_contiguous() and tensor.dtype == torch.float32
        flat = tensor.view(-1)
        expected = ends.float() if name == "fp32" else torch.zeros(3)
        assert torch.equal(flat[:3], expected) and torch.equal(flat[-3:], expected)
        assert not flat[3:1000].any() and not flat[-1000:-3].any()
        with zipfile.ZipFile(path) as archive:
            data = next(record for record in archive.infolist() if record.filename.endswith("/data/0"))
        assert data.file_size == 4 * shape[0] * shape[1] > 1 << 32
        if name != "fp32":
            assert disk_bytes(path) <= 64 << 10
    for name in ("fp32", MOMENTS[0]):  # CRCs over 4 GiB take a while: one file of each kind
        check_archive(folder / f"{name}.pt")


# ---- report

DTYPE_NAMES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}


@pytest.mark.parametrize("recipe", [PLAIN, Source(tied=True, sharded=True, dtype="fp16")], ids=str)
def test_report(source, converted, recipe):
    folder, tensors = converted(recipe), read_folder(source(recipe))
    report = read_report(folder)
    expected = [{"name": name, "dtype": DTYPE_NAMES[recipe.dtype], "shape": list(tensor.shape),
                 "digest": tree_digest(tensor.view(torch.uint8).numpy().tobytes())} for name, tensor in sorted(tensors.items())]
    actual = sorted(report["tensors"], key=lambda tensor: tensor["name"])
    assert [{key: tensor[key] for key in ("name", "dtype", "shape", "digest")} for tensor in actual] == expected
    assert all(f"{TAG}/zero/{tensor['name']}/fp32.pt" in tensor["objects"] for tensor in actual)
    parameters = [{key: p[key] for key in ("name", "shape", "source")} for p in report["parameters"]]
    assert sorted(parameters, key=lambda p: p["name"]) == [
        {"name": name, "shape": list(tensor.shape), "source": name} for name, tensor in sorted(tensors.items())]
    written = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del written["crossdock.json"]  # it cannot hold its own digest
    files = {file["path"]: (file["size"], file["digest"]) for file in report["files"]}
    assert files == {path: (len(data), tree_digest(data)) for path, data in written.items()}
    assert report["timings"] and isinstance(report["writer"]["options"], dict)
    assert any("stage 3" in note for note in report["notes"]), "several parameter groups are inexact at stage 3"
