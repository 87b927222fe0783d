# SPDX-License-Identifier: Apache-2.0
"""The example plugins, as an outside author wrote them: numpy's .npz in C++ and C99, safetensors in Rust.

Judged by the libraries: numpy writes what the reader reads and loads what the writer wrote, safetensors loads the rest.
"""
import io
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import ROOT
from npz_files import HOSTILE, Member, archive, npy
from recipes import PLAIN
from running import result, start_and_wait_until_it_writes
from test_inspect import one_of_each_dtype
from test_safetensors_writer import same_bits

QUICK = ("--no-sync", "--progress", "none")
SAVE = {"stored": np.savez, "deflated": np.savez_compressed}


@pytest.fixture(scope="session")
def npz(crossdock):
    """The flags that make both .npz plugins known."""
    folder = Path(crossdock.path).parent.parent / "tests/abi"
    if not folder.is_dir():
        pytest.skip(f"the examples are built with the tests, and {folder} is not there")
    return "--plugin-path", folder / "npz_reader", "--plugin-path", folder / "npz_writer"


@pytest.fixture(scope="session")
def cargo(tmp_path_factory):
    """cargo(*args) runs it on the Rust example, without a network; gives its folder of results."""
    if not shutil.which("cargo"):
        pytest.skip("found no cargo: the Rust example is not built")
    target = tmp_path_factory.mktemp("rust")

    def run(*args, **env):
        done = subprocess.run(["cargo", *args, "--offline", "--quiet"], cwd=ROOT / "examples/rust_writer", text=True,
                              env={**os.environ, "CARGO_TARGET_DIR": str(target), **env}, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return target

    return run


@pytest.fixture(scope="session")
def rust(cargo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    shutil.copy(cargo("build", "--release") / "release/librust_writer.so", folder / "rust_writer.xd.so")
    return "--plugin-path", folder


def every_numpy_dtype():
    bits = np.arange(96, dtype=np.uint8) * 37
    names = "?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16"
    return {np.dtype(name).name: (bits % 2 if name == "?" else bits).view(name).reshape(2, -1) for name in names}


def same_arrays(got, want):
    assert set(got) == set(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype.newbyteorder("=") and got[name].shape == array.shape, name
        assert np.asarray(got[name], order="C").tobytes() == array.astype(got[name].dtype).tobytes(), name


def as_numpy(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


# ---- from numpy

@pytest.mark.parametrize("how", SAVE)
def test_every_dtype_from_numpy(crossdock, npz, tmp_path, how):
    arrays = every_numpy_dtype() | {"scalar": np.float32(3.5), "layer/0.w": np.ones((1, 2, 1, 3)), "層.ä": np.ones(2),
                                    "none_ids": np.zeros((0, 7), np.int64), "a.npy": np.ones(1)}
    del arrays["complex128"]  # safetensors has none; test_every_dtype_to_numpy has it
    SAVE[how](tmp_path / "in.npz", **arrays)
    crossdock("convert", tmp_path / "in.npz", tmp_path / "out", "--to", "safetensors", *QUICK, *npz)
    same_arrays(as_numpy(load_file(tmp_path / "out/model.safetensors")), arrays)
    crossdock("verify", tmp_path / "out", "--against", tmp_path / "in.npz", *npz)


@pytest.mark.parametrize("how", SAVE)
def test_fortran_and_big_endian(crossdock, npz, tmp_path, how):
    arrays = every_numpy_dtype()
    del arrays["complex128"]
    shaped = {f"{name}.f": np.asfortranarray(array.reshape(2, 2, -1)) for name, array in arrays.items()}
    swapped = {f"{name}.b": array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    both = {"both": np.asfortranarray(np.arange(6).reshape(2, 3).astype(">i4")),
            "flat": np.asfortranarray(np.arange(3)), "none": np.asfortranarray(np.zeros((3, 0), np.int32))}
    (tmp_path / "in").mkdir()  # the one file of a folder is found
    SAVE[how](tmp_path / "in/model.npz", **shaped, **swapped, **both)
    crossdock("convert", tmp_path / "in", tmp_path / "out", "--to", "safetensors", *QUICK, *npz)
    same_arrays(as_numpy(load_file(tmp_path / "out/model.safetensors")), shaped | swapped | both)


def test_what_inspect_tells(crossdock, npz, tmp_path):
    np.savez_compressed(tmp_path / "in.npz", w=np.zeros((100, 100), np.float32))
    crossdock("inspect", tmp_path / "in.npz", "--manifest", tmp_path / "m.json", *npz)
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert [(f["name"], int(f["size"])) for f in manifest["source"]["files"]] == [
        ("in.npz", (tmp_path / "in.npz").stat().st_size)]
    tensor, = manifest["tensors"]
    with zipfile.ZipFile(tmp_path / "in.npz") as file:
        entry = file.getinfo("w.npy")
    assert tensor["encoding"] == "deflate" and int(tensor["extents"][0]["length"]) == entry.compress_size


def test_a_member_that_is_no_array(crossdock, npz, tmp_path):
    np.savez(tmp_path / "in.npz", w=np.ones(3))
    with zipfile.ZipFile(tmp_path / "in.npz", "a") as file:
        file.writestr("notes.txt", "by hand")
    done = crossdock("convert", tmp_path / "in.npz", tmp_path / "out", "--to", "safetensors", *QUICK, *npz)
    assert "notes.txt in in.npz is no array, and is not read" in done.stdout + done.stderr


def test_zip64_and_versions_of_npy(crossdock, npz, tmp_path):
    data = {}
    with zipfile.ZipFile(tmp_path / "in.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for version in (1, 0), (2, 0), (3, 0):
            for force_zip64 in False, True:
                name, text = f"v{version[0]}.{force_zip64}", io.BytesIO()
                data[name] = np.arange(5, dtype=np.float32) + len(data)
                np.lib.format.write_array(text, data[name], version=version)
                with file.open(f"{name}.npy", "w", force_zip64=force_zip64) as member:
                    member.write(text.getvalue())
    crossdock("convert", tmp_path / "in.npz", tmp_path / "out", "--to", "safetensors", *QUICK, *npz)
    same_arrays(as_numpy(load_file(tmp_path / "out/model.safetensors")), data)


def test_a_large_compressed_array_with_threads(crossdock, npz, big_tmp_path):
    random = np.random.default_rng(1)
    arrays = {"large": random.integers(0, 99, 10 << 20).astype(np.float32).reshape(2560, 4096),
              "other": random.integers(0, 99, 2 << 20).astype(np.int16), "last": np.ones(3)}
    np.savez_compressed(big_tmp_path / "in.npz", **arrays)
    for flags in ("--threads", 4), ("--threads", 4, "--memory", "16MiB"), ("--threads", 1):
        out = big_tmp_path / "-".join(map(str, flags))
        crossdock("convert", big_tmp_path / "in.npz", out, "--to", "safetensors", *QUICK, *npz, *flags)
        same_arrays(as_numpy(load_file(out / "model.safetensors")), arrays)
    # A transposed one is read many times over; that it is right is what counts.
    np.savez_compressed(big_tmp_path / "f.npz", large=np.asfortranarray(arrays["large"]))
    out = big_tmp_path / "transposed"
    crossdock("convert", big_tmp_path / "f.npz", out, "--to", "safetensors", "--threads", 4, *QUICK, *npz)
    same_arrays(as_numpy(load_file(out / "model.safetensors")), {"large": arrays["large"]})


# ---- hostile files

@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_hostile_files(crossdock, npz, tmp_path, case):
    (tmp_path / "in.npz").write_bytes(case.data)
    done = crossdock("convert", tmp_path / "in.npz", tmp_path / "out", "--to", "safetensors", "--from", "npz", *QUICK,
                     *npz, code=1)
    assert case.sentence in done.stderr and "in.npz" in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.npz"]


def test_the_recipes_of_hostile_files_make_good_ones_too(crossdock, npz, tmp_path):
    """So that each is refused for its one flaw."""
    good = archive(Member("a.npy", npy(np.arange(9))), Member("b.npy", npy(np.ones(9)), is_deflated=False))
    (tmp_path / "in.npz").write_bytes(good)
    same_arrays(dict(np.load(tmp_path / "in.npz")), {"a": np.arange(9), "b": np.ones(9)})
    crossdock("convert", tmp_path / "in.npz", tmp_path / "out", "--to", "safetensors", *QUICK, *npz)
    same_arrays(as_numpy(load_file(tmp_path / "out/model.safetensors")), {"a": np.arange(9), "b": np.ones(9)})


def test_a_flipped_bit_anywhere(crossdock, npz, tmp_path):
    """Of the values none goes unseen: the CRC tells."""
    data = archive(Member("w.npy", npy(np.arange(40))), Member("s.npy", npy(np.arange(40)), is_deflated=False))
    want = {"w": np.arange(40), "s": np.arange(40)}
    for at in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[at] ^= 16
        (tmp_path / "in.npz").write_bytes(flipped)
        done = crossdock("convert", tmp_path / "in.npz", tmp_path / "out", "--to", "safetensors", "--from", "npz",
                         *QUICK, *npz, code=None)
        assert done.returncode in (0, 1), (at, done.stderr)
        if done.returncode == 0:  # a date, a version
            same_arrays(as_numpy(load_file(tmp_path / "out/model.safetensors")), want)
            shutil.rmtree(tmp_path / "out")


# ---- to numpy

def test_every_dtype_to_numpy(crossdock, npz, tmp_path):
    arrays = every_numpy_dtype() | {"scalar": np.float32(3.5), "layer/0.w": np.ones((1, 2, 1, 3)), "層.ä": np.ones(2),
                                    "none_ids": np.zeros((0, 7), np.int64), "one": np.ones(1), "a.npy": np.ones(1)}
    np.savez(tmp_path / "in.npz", **arrays)
    crossdock("convert", tmp_path / "in.npz", tmp_path / "out", "--to", "npz", *QUICK, *npz)
    path = tmp_path / "out/model.npz"
    same_arrays(dict(np.load(path)), arrays)
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        assert {entry.compress_type for entry in file.infolist()} == {zipfile.ZIP_DEFLATED}
    # What was written is read.
    crossdock("verify", tmp_path / "out", "--against", tmp_path / "in.npz", *npz)


@pytest.mark.parametrize("bits", [None, "float32", "uint16"])
def test_bf16_to_numpy(crossdock, npz, tmp_path, bits):
    tensor = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)  # every value, NaNs too
    save_file({"w": tensor, "b": torch.ones(3)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    done = crossdock("convert", tmp_path / "model.safetensors", tmp_path / "out", "--to", "npz", *QUICK, *npz,
                     *(("--npz-bf16", bits) if bits else ()))
    got = np.load(tmp_path / "out/model.npz")["w"]
    text = done.stdout + done.stderr
    if bits == "uint16":
        assert "1 BF16 tensors are written as uint16 with the same bits" in text
        assert got.dtype == np.uint16 and got.tobytes() == tensor.view(torch.uint16).numpy().tobytes()
    else:
        assert "1 BF16 tensors are written as float32, which holds the same values" in text
        assert got.dtype == np.float32 and np.array_equal(got, tensor.float().numpy(), equal_nan=True)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_what_a_format_has_not_is_left_out(crossdock, npz, rust, tmp_path):
    torch.save({"c": torch.ones(4, dtype=torch.complex32), "w": torch.ones(2)}, tmp_path / "in.bin")
    for name, to, load in ("numpy", "npz", lambda out: dict(np.load(out / "model.npz"))), (
            "safetensors", "safetensors-rust", lambda out: as_numpy(load_file(out / "model.safetensors"))):
        out = tmp_path / to
        crossdock("convert", tmp_path / "in.bin", out, "--to", to, *QUICK, *npz, *rust)
        same_arrays(load(out), {"w": np.ones(2, np.float32)})
        assert f"{name} has no type for its values" in (out / "crossdock.json").read_text()


def test_many_and_large_to_numpy(crossdock, npz, big_tmp_path):
    """The bytes do not depend on threads and memory."""
    random = np.random.default_rng(2)
    shapes = {f"layers.{i}.w": (i, 50) for i in range(1, 101)} | {"large": (3 << 20,)}
    tensors = {name: torch.from_numpy(random.integers(0, 9, n).astype(np.float32)) for name, n in shapes.items()}
    save_file(tensors, big_tmp_path / "model.safetensors", metadata={"format": "pt"})
    made = []
    for flags in ("--threads", 4), ("--threads", 1, "--memory", "8MiB"):
        out = big_tmp_path / f"out{len(made)}"
        crossdock("convert", big_tmp_path / "model.safetensors", out, "--to", "npz", *QUICK, *npz, *flags)
        made.append((out / "model.npz").read_bytes())
    assert made[0] == made[1]
    same_arrays(dict(np.load(big_tmp_path / "out0/model.npz")), as_numpy(tensors))
    crossdock("verify", big_tmp_path / "out0", "--against", big_tmp_path / "model.safetensors", *npz)


def test_a_model_to_numpy(crossdock, npz, source, tmp_path):
    """The files beside the weights come along."""
    crossdock("convert", source(PLAIN), tmp_path / "out", "--to", "npz", "--npz-bf16", "uint16", *QUICK, *npz)
    assert (tmp_path / "out/config.json").is_file()
    got, want = np.load(tmp_path / "out/model.npz"), load_file(source(PLAIN) / "model.safetensors")
    assert set(got.files) == set(want)
    for name, tensor in want.items():
        bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
        assert got[name].tobytes() == bits.numpy().tobytes(), name


# ---- from Rust

def test_the_rust_structs_lie_as_the_record_says(cargo):
    cargo("test", XD_LAYOUT=str(ROOT / "tests/abi/layout_v1.txt"))


def test_every_dtype_from_rust(crossdock, rust, tmp_path):
    tensors = dict(one_of_each_dtype())
    tensors |= {"scalar": torch.tensor(3.5), "none_ids": torch.empty(0, 7, dtype=torch.int64),
                "a \"b\" \\ ä 層\x01": torch.ones(3)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    crossdock("convert", tmp_path / "model.safetensors", tmp_path / "out", "--to", "safetensors-rust", *QUICK, *rust)
    got = load_file(tmp_path / "out/model.safetensors")
    assert got.keys() == tensors.keys()
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert same_bits(got[name], tensor), name


def test_many_and_large_from_rust(crossdock, rust, big_tmp_path):
    tensors = {f"layers.{i}.w": torch.full((i, 50), i, dtype=torch.float32) for i in range(1, 101)}
    tensors["large"] = torch.arange(20 << 20, dtype=torch.int32).to(torch.int16)  # more than one item
    save_file(tensors, big_tmp_path / "model.safetensors", metadata={"format": "pt"})
    for flags in ("--threads", 4), ("--threads", 1, "--memory", "8MiB"):
        out = big_tmp_path / "-".join(map(str, flags))
        crossdock("convert", big_tmp_path / "model.safetensors", out, "--to", "safetensors-rust", *QUICK, *rust, *flags)
        got = load_file(out / "model.safetensors")
        assert got.keys() == tensors.keys() and all(torch.equal(got[name], tensors[name]) for name in tensors)
        crossdock("verify", out, "--against", big_tmp_path / "model.safetensors", *rust)


def test_a_file_of_unknown_size_begins_anew_after_a_kill(crossdock, npz, tmp_path):
    """Its items cannot be gone on with one by one; the same command makes the whole file, and the same report."""
    torch.manual_seed(5)
    tensors = {f"w{i}": torch.randn(512, 1024) for i in range(12)}
    save_file(tensors, tmp_path / "model.safetensors")
    flags = ("--to", "npz", *npz, "--no-sync")
    crossdock("convert", tmp_path / "model.safetensors", tmp_path / "whole", *flags)
    job = start_and_wait_until_it_writes(crossdock, tmp_path / "model.safetensors", tmp_path / "out", *flags)
    job.kill()
    job.wait()
    assert not (tmp_path / "out").exists()
    crossdock("convert", tmp_path / "model.safetensors", tmp_path / "out", *flags)
    assert result(tmp_path / "out") == result(tmp_path / "whole")
    same_arrays(dict(np.load(tmp_path / "out/model.npz")), {k: v.numpy() for k, v in tensors.items()})
    crossdock("verify", tmp_path / "out", *npz)
