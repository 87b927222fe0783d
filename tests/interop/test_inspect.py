# SPDX-License-Identifier: Apache-2.0
"""What `crossdock inspect` says, against the libraries that wrote the files: digests of every dtype, Hugging Face's cache."""
import hashlib
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes import PLAIN, SOURCES, read_folder, write_model
from tree_digest import LEAF, tree_digest


def inspected(crossdock, *args, **kwargs):
    """{name: (dtype, shape, digest)} as inspect --json prints it."""
    tensors = json.loads(crossdock("inspect", "--json", "--digest", "sha256", *args, **kwargs).stdout)["tensors"]
    return {tensor["name"]: (tensor["dtype"], tensor["shape"], tensor["digest"]) for tensor in tensors}


def sha256(tensor):
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def header_of(path):
    """The entries of a safetensors header: the format's own spelling of dtypes, and its shapes."""
    data = path.read_bytes()
    entries = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}


def one_of_each_dtype():
    """A small tensor of every torch dtype that this safetensors writes."""
    from safetensors.torch import save
    bits = torch.arange(96, dtype=torch.uint8).mul(37)
    for dtype in sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str):
        try:
            tensor = (bits % 2 if dtype == torch.bool else bits.clone()).view(dtype).reshape(2, -1)
            save({"t": tensor})
        except Exception:  # quantised and sub-byte dtypes: torch cannot view, or safetensors cannot write them
            continue
        yield str(dtype), tensor


def test_digests_of_every_dtype(crossdock, tmp_path):
    tensors = dict(one_of_each_dtype())
    assert len(tensors) >= 18, "the library writes that many dtypes at least"
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.empty(0, 7), "five dimensions": torch.ones(1, 2, 1, 3, 1),
                "gewicht.ä": torch.ones(2), "层.0": torch.ones(2)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    header = header_of(path)
    expected = {name: (header[name]["dtype"], header[name]["shape"], sha256(t)) for name, t in load_file(path).items()}
    assert inspected(crossdock, path) == inspected(crossdock, tmp_path) == expected


@pytest.mark.parametrize("recipe", SOURCES, ids=str)
def test_digests_of_models(crossdock, source, recipe):
    actual = inspected(crossdock, source(recipe))
    assert {name: digest for name, (_, _, digest) in actual.items()} == {
        name: sha256(tensor) for name, tensor in read_folder(source(recipe)).items()}


def test_default_digest_and_dtype(crossdock, source):
    """The same values give the same digest however they are stored: here in one file and in shards."""
    whole, shards = (recipe for recipe in SOURCES if recipe.weights == "untied-bf16")
    first, second = (json.loads(crossdock("inspect", "--json", source(recipe)).stdout)["tensors"] for recipe in (whole, shards))
    as_set = lambda tensors: {json.dumps({k: t[k] for k in ("name", "dtype", "shape", "digest")}) for t in tensors}
    assert as_set(first) == as_set(second)
    assert all(tensor["digest"].startswith("sha256:") and tensor["dtype"] == "BF16" for tensor in first)


def test_tree_digests_of_many_lengths(crossdock, tmp_path):
    lengths = [0, 1, 255, LEAF - 1, LEAF, LEAF + 1, *(n * LEAF + d for n in (2, 3, 5, 8, 33) for d in (-1, 0, 1)), 3_000_001, 1 << 22]
    tensors = {str(n): torch.randint(256, (n,), dtype=torch.uint8) for n in lengths}
    save_file(tensors, tmp_path / "model.safetensors")
    tensors = load_file(tmp_path / "model.safetensors")
    found = json.loads(crossdock("inspect", "--json", "--digest", "tree", tmp_path).stdout)["tensors"]
    assert {t["name"]: t["digest"] for t in found} == {n: tree_digest(t.numpy().tobytes()) for n, t in tensors.items()}


def test_tree_is_the_digest_of_reports(crossdock, source, converted):
    args = "inspect", "--json", "--digest", "tree", source(PLAIN)
    actual = {tensor["name"]: tensor["digest"] for tensor in json.loads(crossdock(*args).stdout)["tensors"]}
    report = json.loads((converted(PLAIN) / "crossdock.json").read_text())
    assert actual == {tensor["name"]: tensor["digest"] for tensor in report["tensors"]}


def test_for_people(crossdock, source):
    assert crossdock("inspect", source(PLAIN)).stdout.strip()
    table = crossdock("inspect", "--tensors", source(PLAIN)).stdout
    assert all(name in table for name in read_folder(source(PLAIN)))


# ---- Hugging Face's cache

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def hub(source, tmp_path_factory):
    """HF_HOME with the model org/tiny in it, as snapshot_download leaves it: files are links to blobs."""
    home = tmp_path_factory.mktemp("hf_home")
    repository = home / "hub/models--org--tiny"
    snapshot = repository / "snapshots" / REVISION
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True)
    (repository / "refs/main").write_text(REVISION)
    sharded = next(recipe for recipe in SOURCES if recipe.sharded)
    for file in source(sharded).iterdir():
        blob = hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, repository / "blobs" / blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob}")
    from huggingface_hub import snapshot_download  # the judge of this layout
    found = snapshot_download("org/tiny", cache_dir=home / "hub", local_files_only=True)
    assert os.path.samefile(found, snapshot)
    return home, repository, snapshot, source(sharded)


def test_cache_by_path(crossdock, hub):
    _, repository, snapshot, origin = hub
    expected = inspected(crossdock, origin)
    assert inspected(crossdock, repository) == inspected(crossdock, snapshot) == expected


def test_cache_knows_the_digests_of_files(crossdock, hub, tmp_path):
    _, _, snapshot, origin = hub
    report = tmp_path / "report.json"
    crossdock("convert", snapshot, tmp_path / "out", "--to", "universal", "--no-sync", "--report", report)
    files = {f["name"]: f.get("hub_digest") for f in json.loads(report.read_text())["source"]["files"]}
    assert files == {name: "sha256:" + hashlib.sha256((origin / name).read_bytes()).hexdigest() for name in files} and len(files) > 1


def test_cache_by_name(crossdock, hub, tmp_path):
    home, _, _, origin = hub
    expected = inspected(crossdock, origin)
    assert inspected(crossdock, "org/tiny", env={"HF_HOME": str(home)}) == expected
    hub_cache = {"HF_HUB_CACHE": str(home / "hub")}
    assert inspected(crossdock, "org/tiny", env=hub_cache) == expected
    assert inspected(crossdock, "org/tiny", env={**hub_cache, "HF_HOME": str(tmp_path)}) == expected, "the cache's own name wins"
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/huggingface").symlink_to(home)
    assert inspected(crossdock, "org/tiny", env={"HOME": str(tmp_path)}) == expected, "the default place"


def test_a_folder_of_that_name_comes_before_the_cache(crossdock, hub, tmp_path):
    write_model(tmp_path / "org/tiny", {"here": ("F32", [2])})
    assert set(inspected(crossdock, "org/tiny", env={"HF_HOME": str(hub[0])}, cwd=tmp_path)) == {"here"}


def test_not_in_the_cache(crossdock, hub):
    error = crossdock("inspect", "--json", "org/other", env={"HF_HOME": str(hub[0])}, code=1).stderr
    assert "org/other" in error and "Traceback" not in error


def test_convert_from_the_cache(crossdock, hub, tmp_path):
    home, _, snapshot, origin = hub
    crossdock.convert("org/tiny", tmp_path / "out", env={"HF_HOME": str(home)})
    config = tmp_path / "out/config.json"
    assert config.read_bytes() == (origin / "config.json").read_bytes() and not config.is_symlink()
    error = crossdock.convert("org/tiny", snapshot / "out", env={"HF_HOME": str(home)}, code=1).stderr
    assert "SRC" in error and not (snapshot / "out").exists()


def test_how_tensors_are_made(crossdock, tmp_path):
    w = torch.arange(24.0).reshape(4, 6)
    torch.save({"plain.weight": w, "turned.weight": w.T, "part.weight": w[1:, 2:4], "one.weight": w[:1].expand(3, 6)}, tmp_path / "m.bin")
    lines = crossdock("inspect", tmp_path / "m.bin", "--tensors").stdout.splitlines()
    assert lines == ["plain.weight  F32  [4, 6]", "turned.weight  F32  [6, 4]  = strided([1, 6], turned.weight)",
                     "part.weight  F32  [3, 2]  = strided([6, 1], 8, part.weight)", "one.weight  F32  [3, 6]  = strided([0, 1], one.weight)"]
    listed = json.loads(crossdock("inspect", tmp_path / "m.bin", "--json", "--digest", "none").stdout)["tensors"]
    assert [t.get("expression") for t in listed] == [None, "strided([1, 6], turned.weight)", "strided([6, 1], 8, part.weight)", "strided([0, 1], one.weight)"]
    crossdock("inspect", tmp_path / "m.bin", "--manifest", tmp_path / "m.json")
    told = json.loads((tmp_path / "m.json").read_text())["tensors"]
    assert [t.get("expression") for t in told] == [t.get("expression") for t in listed]
    assert not any("strides" in t or "storage_offset" in t or "storageOffset" in t for t in told)
