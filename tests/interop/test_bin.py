# SPDX-License-Identifier: Apache-2.0
"""PyTorch checkpoints against torch itself: every tensor exact, every payload refused, the same output as from safetensors."""
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch

from recipes import PLAIN, Source, read_folder

NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "complex32": "C32", "complex64": "C64",
         "complex128": "C128", "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
         "uint16": "U16", "uint32": "U32", "uint64": "U64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
         "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0"}


def generator():
    return torch.Generator().manual_seed(1)


def bits(shape, dtype):
    """Any bits, NaNs of every kind among them."""
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 256, (*shape, size), generator=generator(), dtype=torch.uint8)
    return (raw & 1).reshape(shape).bool() if dtype == torch.bool else raw.view(dtype).reshape(shape)


def every_dtype():
    return {f"t.{name}": bits((3, 5), getattr(torch, name)) for name in NAMES}


def views():
    base = torch.arange(60.0)
    m = base.view(6, 10)
    return {"whole": m, "transposed": m.t(), "column": m[:, 3], "rows": m[2:5], "steps": m[::2, 1::3], "offset": base[17:23],
            "expanded": torch.arange(4.0).view(4, 1).expand(4, 7), "permuted": bits((2, 3, 4), torch.int32).permute(2, 0, 1),
            "scalar": torch.tensor(3.5), "empty": torch.empty(0), "empty2": torch.empty(3, 0, 2), "ones": torch.ones(1, 1, 1),
            "tail": torch.arange(5000.0)[4990:], "channels_last": bits((2, 3, 4, 5), torch.int16).to(memory_format=torch.channels_last),
            "large": bits((300, 700), torch.int16).t()}


def parameters():
    torch.manual_seed(3)
    out = OrderedDict(a=torch.nn.Parameter(torch.randn(3, 4)), b=torch.nn.Parameter(torch.randn(5).bfloat16(), requires_grad=False))
    out["c"] = torch.nn.Parameter(torch.randn(2, 2))
    out["c"].tensor_model_parallel = True
    out["d"] = torch.ones(3)
    out["d"].note = "a tensor with an attribute"
    return out


def module():
    torch.manual_seed(7)
    net = torch.nn.Sequential(torch.nn.Embedding(11, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 11, bias=False))
    net[2].weight = net[0].weight
    return net


def training(key):
    net = module()
    optimizer = torch.optim.AdamW(net.parameters())
    state = net.state_dict()
    return {key: state, "epoch": 3, "big": 2**80, "negative": -2**40, "names": Counter("abc"), "shape": torch.Size([2]),
            "args": {"x": [1, (2, {3})], "none": None, "bytes": b"\0\xff", "c": 1j}, "dtype": torch.bfloat16,
            "device": torch.device("cpu"), "optimizer_states": [optimizer.state_dict()]}, state


UNICODE = {"gewicht.ä": torch.ones(2), "层.0": torch.ones(1), "": torch.ones(1), "a/b": torch.ones(1), "x" * 300: torch.ones(1)}
PLAIN_CASES = {"every dtype": every_dtype, "views": views, "parameters": parameters, "module": lambda: module().state_dict(),
               "names": lambda: UNICODE, "nothing": dict}


def digest(tensor):
    tensor = tensor.detach().contiguous()
    raw = b"" if tensor.numel() == 0 else tensor.clone().reshape(-1).view(torch.uint8).numpy().tobytes()
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def described(tensors):
    return [{"name": name, "dtype": NAMES[str(t.dtype).removeprefix("torch.")], "shape": list(t.shape), "digest": digest(t)}
            for name, t in tensors.items()]


def inspected(crossdock, path, *flags):
    tensors = json.loads(crossdock("inspect", path, "--json", *flags).stdout)["tensors"]
    return [{key: value for key, value in t.items() if key != "expression"} for t in tensors]


# ---- what torch writes, value for value and in its order
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("case", PLAIN_CASES)
def test_exact(crossdock, tmp_path, case, legacy):
    tensors = PLAIN_CASES[case]()
    torch.save(tensors, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    assert inspected(crossdock, tmp_path / "x.pt") == described(tensors)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "module"])
def test_training_checkpoints(crossdock, tmp_path, key):
    checkpoint, state = training(key)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert inspected(crossdock, tmp_path / "last.ckpt") == described(state)
    assert inspected(crossdock, tmp_path / "last.ckpt", "--state-dict-path", key) == described(state)


def test_nested_dicts(crossdock, tmp_path):
    torch.save({"model": {"encoder": {"w": torch.ones(2)}, "decoder": {"w": torch.zeros(3)}}}, tmp_path / "x.pt")
    assert inspected(crossdock, tmp_path / "x.pt") == described({"encoder.w": torch.ones(2), "decoder.w": torch.zeros(3)})


def test_pickle_protocol_3(crossdock, tmp_path):
    torch.save({"a": torch.ones(2), "b": b"bytes"}, tmp_path / "x.pt", pickle_protocol=3)
    assert inspected(crossdock, tmp_path / "x.pt") == described({"a": torch.ones(2)})


@pytest.mark.parametrize("save", [
    lambda path: torch.save({"a": torch.ones(2)}, path, pickle_protocol=4),
    lambda path: torch.save({"a": torch.ones(2).to_sparse()}, path),
    lambda path: torch.save({"a": torch.empty(2, device="meta")}, path),
    lambda path: torch.save({"a": torch.ones(2, dtype=torch.complex64).conj()}, path),
    lambda path: torch.save(module(), path),
    lambda path: torch.save(torch.ones(2), path),
    lambda path: torch.jit.script(torch.nn.Linear(2, 2)).save(str(path)),
    lambda path: path.write_bytes(pickle.dumps({"a": 1})),
], ids=["protocol 4", "sparse", "meta", "conj", "module", "tensor", "script", "pickle"])
def test_refused_with_a_reason(crossdock, tmp_path, save):
    save(tmp_path / "x.pt")
    error = crossdock.convert(tmp_path / "x.pt", tmp_path / "out", code=1).stderr
    assert error.startswith("crossdock: error: x.pt: ") and "expected" in error and "found" in error
    assert not (tmp_path / "out").exists()


# ---- containers
CONTAINERS = {
    "deflated": lambda src, dst: repack(src, dst, compress=True),
    "zip64": lambda src, dst: repack(src, dst, force_zip64=True),
    "stream": lambda src, dst: repack(src, dst, seekable=False),
    "comment": lambda src, dst: repack(src, dst, comment=b"hello PK\x05\x06 world"),
    "big": lambda src, dst: repack(src, dst, big=True),
    "no byteorder": lambda src, dst: repack(src, dst, drop="byteorder"),
}


class NoSeek(io.RawIOBase):
    def __init__(self, file):
        self.file = file

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)


def repack(src, dst, compress=False, force_zip64=False, seekable=True, comment=b"", big=False, drop=None):
    """The records of a torch file, as another program might pack them."""
    import numpy as np
    sizes = {1024: 4, 32: 2, 56: 8}  # of elements, by the storages' sizes
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(src) as old, open(dst, "wb") as out:
        with zipfile.ZipFile(out if seekable else NoSeek(out), "w", kind) as new:
            for item in old.infolist():
                name, data = item.filename, old.read(item)
                if drop and name.endswith("/" + drop):
                    continue
                if big and name.endswith("/byteorder"):
                    data = b"big"
                if big and "/data/" in name:
                    data = np.frombuffer(data, f"<u{sizes[len(data)]}").byteswap().tobytes()
                info = zipfile.ZipInfo(name)
                info.compress_type = kind
                with new.open(info, "w", force_zip64=force_zip64) as file:
                    file.write(data)
            new.comment = comment


@pytest.mark.parametrize("how", CONTAINERS)
def test_other_containers(crossdock, tmp_path, how):
    tensors = {"w": torch.randn(16, 16), "b": torch.randn(16).bfloat16(), "i": torch.arange(7)}
    torch.save(tensors, tmp_path / "plain.pt")
    CONTAINERS[how](tmp_path / "plain.pt", tmp_path / "x.pt")
    loaded = torch.load(tmp_path / "x.pt", weights_only=True)  # torch agrees that it is the same
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert inspected(crossdock, tmp_path / "x.pt") == described(tensors)


def test_crc(crossdock, tmp_path):
    tensors = {"w": torch.randn(64, 8)}
    torch.save(tensors, tmp_path / "good.pt")
    assert inspected(crossdock, tmp_path / "good.pt", "--verify-crc") == described(tensors)
    torch.serialization.set_crc32_options(False)  # writes wrong ones on purpose
    try:
        torch.save(tensors, tmp_path / "none.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert inspected(crossdock, tmp_path / "none.pt") == described(tensors)
    damaged = bytearray((tmp_path / "good.pt").read_bytes())
    at = bytes(damaged).index(tensors["w"].numpy().tobytes())
    damaged[at] ^= 1
    (tmp_path / "bad.pt").write_bytes(damaged)
    assert 'expected record "good/data/0" to have the CRC' in crossdock("inspect", tmp_path / "bad.pt", "--verify-crc", code=1).stderr


# ---- a model, from .bin and from safetensors
def save_bin(model, folder, shards=1):
    """What save_pretrained(safe_serialization=False) left behind: tied names share their storage within a file."""
    folder.mkdir()
    tensors = OrderedDict(read_folder(model))
    config = json.loads((model / "config.json").read_text())
    if config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    for file in model.iterdir():
        if "safetensors" not in file.name:
            shutil.copy(file, folder)
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return folder
    names, weight_map = list(tensors), {}
    per_shard = -(-len(names) // shards)
    for i in range(shards):
        file, part = f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin", names[i * per_shard:(i + 1) * per_shard]
        torch.save({name: tensors[name] for name in part}, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("flags", [[], ["--compact"]], ids=["fp32", "compact"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", [PLAIN, Source(tied=True, sharded=False, dtype="fp16")], ids=str)
def test_the_same_output_as_from_safetensors(crossdock, source, tmp_path, kind, shards, flags):
    model = source(kind)
    bin_folder = save_bin(model, tmp_path / "bin", shards)
    crossdock.convert(model, tmp_path / "a", *flags)
    crossdock.convert(bin_folder, tmp_path / "b", *flags)
    a, b = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert a.keys() == b.keys()
    different = {name for name in a if a[name] != b[name] and not name.endswith("_model_states.pt")}
    assert different == {"crossdock.json"}
    one, two = (torch.load(tmp_path / x / "global_step0/mp_rank_00_model_states.pt", weights_only=False) for x in "ab")
    assert one["module"].keys() == two["module"].keys() and all(torch.equal(one["module"][k], two["module"][k]) for k in one["module"])
    assert sorted(str(one["param_shapes"])) == sorted(str(two["param_shapes"]))


def test_both_formats_in_one_folder(crossdock, source, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(source(PLAIN), folder)
    torch.save({name: t + 1 for name, t in read_folder(folder).items()}, folder / "pytorch_model.bin")
    done = crossdock("inspect", folder, "--json")
    assert {t["name"]: t["digest"] for t in json.loads(done.stdout)["tensors"]} == {k: digest(v) for k, v in read_folder(folder).items()}
    assert "reading safetensors; --from bin chooses the other" in done.stderr
    assert "reading safetensors; --from bin chooses the other" in crossdock.convert(folder, tmp_path / "out").stdout
    other = inspected(crossdock, folder, "--from", "bin")
    assert {t["name"]: t["digest"] for t in other} == {k: digest(v + 1) for k, v in read_folder(folder).items()}


def test_frozen_parameters_stay_frozen(crossdock, tmp_path):
    torch.save(parameters(), tmp_path / "x.pt")
    crossdock.convert(tmp_path / "x.pt", tmp_path / "out")
    assert {f.name for f in (tmp_path / "out/global_step0/zero").iterdir()} == {"a", "c", "d", "optimizer_state.pt"}
    report = json.loads((tmp_path / "out/crossdock.json").read_text())
    assert ["frozen" in t.get("excluded", "") for t in report["tensors"]] == [False, True, False, False]


# ---- nothing runs
class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", ["top", "value", "key"])
def test_payloads(crossdock, tmp_path, where, legacy):
    payload = Payload(tmp_path / "marker")
    value = {"top": payload, "value": {"w": torch.ones(1), "x": [payload]}, "key": {(payload,): torch.ones(1)}}[where]
    torch.save(value, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    error = crossdock("inspect", tmp_path / "x.pt", code=1).stderr
    assert 'found the global "posix.system", which none has a use for: nothing was run' in error
    assert not (tmp_path / "marker").exists()


def test_damaged_files(crossdock, tmp_path):
    """Random damage is refused or read: never a crash, never a long wait. (Every cut and bit: the plugin's own tests.)"""
    torch.save(module().state_dict(), tmp_path / "good.pt")
    torch.save(module().state_dict(), tmp_path / "good.bin", _use_new_zipfile_serialization=False)
    rng = random.Random(4)
    for name in ("good.pt", "good.bin"):
        good = (tmp_path / name).read_bytes()
        for i in range(40):
            bad = bytearray(good)
            for _ in range(rng.randint(1, 8)):
                bad[rng.randrange(len(bad))] = rng.randrange(256)
            (tmp_path / "x.pt").write_bytes(bad[:rng.randint(0, len(bad))] if i % 4 == 0 else bad)
            done = crossdock("inspect", tmp_path / "x.pt", "--json", code=None)
            assert done.returncode in (0, 1), done.stderr


@pytest.mark.skipif(bool(os.environ.get("CROSSDOCK_SKIP_BIG")), reason="CROSSDOCK_SKIP_BIG is set")
def test_records_beyond_4_gib(crossdock, tmp_path):
    """zip64 as torch writes it: sizes and offsets of more than 32 bits."""
    with torch.serialization.skip_data():  # leaves holes where the storages would be
        torch.save({"big": torch.empty(5 << 30, dtype=torch.uint8), "small": torch.empty(3, dtype=torch.int16)}, tmp_path / "x.pt")
    tensors = json.loads(crossdock("inspect", tmp_path / "x.pt", "--json", "--digest", "none").stdout)["tensors"]
    assert [t["shape"] for t in tensors] == [[5 << 30], [3]]
    assert subprocess.run(["du", "-m", tmp_path / "x.pt"], capture_output=True, text=True).stdout.split()[0] < "100"
