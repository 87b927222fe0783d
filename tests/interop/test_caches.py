# SPDX-License-Identifier: Apache-2.0
"""Caches of the Hugging Face Hub, laid out by the installed huggingface_hub's own code, and downloads that are not whole."""
import json
import shutil

import pytest
import torch

import hub
from recipes import PLAIN, Source, read_folder

SHARDED = Source(tied=False, sharded=True, dtype="bf16")


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights(folder):
    zero = folder / "global_step0/zero"
    return {path.parent.name: torch.load(path)["param"] for path in zero.glob("*/fp32.pt")}


def source_files(crossdock, name, env, tmp_path):
    crossdock("inspect", name, "--manifest", tmp_path / "m.json", env=env)
    return json.loads((tmp_path / "m.json").read_text())["source"]["files"]


LAYOUTS = {
    "links": ({}, lambda cache: None),
    "shared blobs": ({}, hub.share),
    "shared blobs without their marker": ({}, lambda cache: (hub.share(cache), (cache / "blobs/.huggingface-shared-blobs").unlink())),
    "copies": ({"HF_HUB_DISABLE_SYMLINKS": "1"}, lambda cache: None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("recipe", [PLAIN, SHARDED], ids=str)
def test_layouts_of_a_cache(crossdock, source, tmp_path, layout, recipe):
    env, change = LAYOUTS[layout]
    files, cache = files_of(source(recipe)), tmp_path / "cache"
    snapshot = hub.download(files, cache, **env)
    change(cache)
    where = {"HF_HUB_CACHE": str(cache)}
    crossdock.convert("org/name", tmp_path / "out", env=where)
    got = weights(tmp_path / "out")
    truth = read_folder(source(recipe))
    assert set(got) == set(truth) and all(torch.equal(got[name], truth[name].float()) for name in truth)
    for entry in source_files(crossdock, "org/name", where, tmp_path):
        assert entry["digest"] == "sha256:" + hub.sha256(files[entry["name"]])
    if recipe == PLAIN:  # one file of the snapshot
        entry, = source_files(crossdock, f"{snapshot}/model.safetensors", where, tmp_path)
        if layout != "copies":
            assert entry["digest"] == "sha256:" + hub.sha256(files["model.safetensors"])


def test_a_download_to_a_folder(crossdock, source, tmp_path):
    files = files_of(source(SHARDED))
    only = ["*.json", "model-00001-*"]
    folder = hub.download(files, tmp_path / "cache", only=only, local_dir=tmp_path / "model")
    n = sum(name.endswith(".safetensors") for name in files)
    error = crossdock.convert(folder, tmp_path / "out", code=1).stderr
    assert f"{n - 1} of {n} weight files of this commit are not downloaded (model-00002-of-" in error
    hub.download(files, tmp_path / "cache", local_dir=tmp_path / "model")
    crossdock.convert(folder, tmp_path / "out")
    assert set(weights(tmp_path / "out")) == set(read_folder(source(SHARDED)))


def test_files_that_are_not_downloaded(crossdock, source, tmp_path):
    files, cache = files_of(source(SHARDED)), tmp_path / "cache"
    n = sum(name.endswith(".safetensors") for name in files)
    hub.download(files, cache, only=["*.json", "model-00001-*"])
    error = crossdock.convert("org/name", tmp_path / "out", env={"HF_HUB_CACHE": str(cache)}, code=1).stderr
    assert f"{n - 1} of {n} weight files of this commit are not downloaded (model-00002-of-" in error
    assert "run `hf download org/name`" in error


def test_an_index_that_is_of_another_save(crossdock, source, tmp_path):
    """All files of the commit are there, and still the index lists one that is not: no download helps."""
    files, cache = files_of(source(SHARDED)), tmp_path / "cache"
    index = json.loads(files["model.safetensors.index.json"])
    index["weight_map"]["lost"] = "model-00009-of-00009.safetensors"
    hub.download({**files, "model.safetensors.index.json": json.dumps(index).encode()}, cache)
    error = crossdock.convert("org/name", tmp_path / "out", env={"HF_HUB_CACHE": str(cache)}, code=1).stderr
    n = sum(name.endswith(".safetensors") for name in files)
    assert f"all {n} weight files of this commit are there, so its index is of another save" in error


def test_a_file_that_was_cut_off(crossdock, source, tmp_path):
    """A whole safetensors file of another size than the Hub's: nothing in it tells that it is not the one."""
    files, cache = files_of(source(PLAIN)), tmp_path / "cache"
    snapshot = hub.download(files, cache, HF_HUB_DISABLE_SYMLINKS="1")
    shutil.copy(source(Source(tied=True, sharded=False, dtype="bf16")) / "model.safetensors", snapshot)
    error = crossdock.convert("org/name", tmp_path / "out", env={"HF_HUB_CACHE": str(cache)}, code=1).stderr
    assert "expected model.safetensors of" in error and "as the Hub has it" in error


def test_a_copy_without_its_blobs(crossdock, source, tmp_path):
    snapshot = hub.download(files_of(source(PLAIN)), tmp_path / "cache")
    copy = shutil.copytree(snapshot, tmp_path / "copy", symlinks=True)
    error = crossdock.convert(copy, tmp_path / "out", code=1).stderr
    assert "found links that lead nowhere, as in a copy of a cache without its blobs: " in error and "model.safetensors" in error
    shutil.copy(source(PLAIN) / "model.safetensors", tmp_path / "weights")
    (copy / "model.safetensors").unlink()
    (tmp_path / "weights").rename(copy / "model.safetensors")
    notes = crossdock.convert(copy, tmp_path / "out").stdout
    assert "SRC has links that lead nowhere" in notes and "config.json" in notes


def test_links_lead_nowhere_else(crossdock, source, tmp_path):
    cache = tmp_path / "cache"
    snapshot = hub.download(files_of(source(PLAIN)), cache)
    hub.share(cache)
    store, = (cache / "blobs").glob("??/" + "?" * 64)
    elsewhere = tmp_path / "elsewhere" / store.parent.name / store.name
    elsewhere.parent.mkdir(parents=True)
    shutil.copy(store, elsewhere)
    link, = (path for path in (cache / "models--org--name/blobs").iterdir() if path.is_symlink())
    link.unlink()
    link.symlink_to(elsewhere)
    error = crossdock.convert(snapshot, tmp_path / "out", code=1).stderr
    assert "or the cache's store of shared blobs, found model.safetensors leading to" in error
