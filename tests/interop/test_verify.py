# SPDX-License-Identifier: Apache-2.0
"""crossdock verify: a folder against its report, against its source, and a download against the Hub's own records.

What a file holds is changed by hand or by the format's own library, never by crossdock.
"""
import hashlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import gguf_files
import hub
import pytest
import quantised_models
import torch
import transformers as t
from recipes import Source
from safetensors.torch import load_file, save_file
from test_families import FAMILIES, SMALL
from tree_digest import xxh3_128

HERE = Path(__file__).parent
ZERO3 = ("zero3", "--world-size", "2", "--lr", "1e-4", "--weight-decay", "0.1")
WRITERS = {"universal": ("universal",), "compact": ("universal", "--compact"),
           "zero3": ZERO3, "zero3-bf16": (*ZERO3, "--dtype", "bf16"),
           "safetensors": ("safetensors",), "fp16": ("safetensors", "--dtype", "fp16", "--allow-overflow"),
           "dcp": ("dcp", "--dcp-shards", "2")}


@pytest.fixture(scope="module")
def models(torchrun, source, tmp_path_factory):
    """{kind: SRC}: every way in which a source's values become those of the destination."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(3)
    cls, config = FAMILIES["mixtral"]
    for folder, model in (("mixtral", cls(config())), ("llama", t.LlamaForCausalLM(t.LlamaConfig(**SMALL)))):
        model.to(torch.bfloat16).save_pretrained(root / folder)
    recipe = next(m for m in gguf_files.MODELS if m.quantise.name == "Q8_0")
    gguf_files.write(recipe.make(), recipe, root / "model.gguf")
    quantised_models.MODELS["fp8-deepseek_v3"].save(root / "fp8")
    cases = [{"name": "trained", "stage": 2, "hf": str(root / "llama"), "class": "LlamaForCausalLM", "steps": 2}]
    (root / "cases.json").write_text(json.dumps(cases))
    torchrun(2, HERE / "zero_job.py", root / "cases.json", root, timeout=600)
    for name in ("zero_to_fp32.py", "zero_to_torch.py"):  # DeepSpeed's scripts, which nobody reads
        (root / "trained" / name).unlink(missing_ok=True)
    return {"tied": source(Source(tied=True, sharded=True, dtype="bf16")), "experts": root / "mixtral",
            "gguf": root / "model.gguf", "fp8": root / "fp8", "trained": root / "trained"}


KINDS = ("tied", "experts", "gguf", "fp8", "trained")


@pytest.fixture(scope="module")
def made(crossdock, models, tmp_path_factory):
    """made(kind, writer) -> its folder, converted once."""
    root = tmp_path_factory.mktemp("made")

    def make(kind, writer):
        folder = root / f"{kind}-{writer}"
        if not folder.exists():
            to, *flags = WRITERS[writer]
            if kind == "trained":  # the run's own lr and weight decay go along
                flags = [f for f in flags if f not in ("--lr", "1e-4", "--weight-decay", "0.1")]
            crossdock("convert", models[kind], folder, "--to", to, "--no-sync", *flags)
        return folder

    return make


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_sound(crossdock, models, made, kind, writer):
    folder = made(kind, writer)
    assert "as crossdock wrote it" in crossdock("verify", folder).stdout
    assert "no value was read" in crossdock("verify", folder, "--quick").stdout
    told = crossdock("verify", folder, "--against", models[kind]).stdout
    assert f"equal to {models[kind]}" in told
    report = json.loads((folder / "crossdock.json").read_text())
    written = sum("excluded" not in tensor for tensor in report["tensors"])
    compared = int(told.split(" tensors")[0].rsplit(" ", 1)[1])
    assert compared >= written > 0  # and moments that begin as zeros, and tied names


def test_from_any_folder_and_with_the_source_elsewhere(crossdock, models, made, tmp_path):
    folder = shutil.copytree(made("experts", "universal"), tmp_path / "there")
    source = shutil.copytree(models["experts"], tmp_path / "moved")
    crossdock("verify", "there", "--against", "moved", cwd=tmp_path)
    crossdock("verify", folder, "--against", source, "--threads", 1, "--memory", "8MiB")


def test_a_value_that_the_format_s_own_library_changed(crossdock, models, made, tmp_path):
    folder = shutil.copytree(made("tied", "safetensors"), tmp_path / "out")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    was = tensors[name][3, 17].item()
    tensors[name][3, 17] = 1.25
    tensors[name][3, 18] = 1.25
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    told = crossdock("verify", folder, "--quick", "--against", models["tied"], code=1).stdout
    assert f'tensor "{name}" [3, 17]: source ' in told and "destination 1.25" in told
    assert float(told.split(": source ")[1].split(",")[0]) == pytest.approx(was, rel=1e-7)
    assert f"1 of {len(tensors)} tensors differ from the source" in told
    assert "model.safetensors: expected tree:" in crossdock("verify", folder, code=1).stdout


def test_values_that_torch_changed_in_a_universal_folder(crossdock, models, made, tmp_path):
    """The sizes stay, so that only the values tell."""
    folder = shutil.copytree(made("tied", "universal"), tmp_path / "out")
    for file, index in (("fp32.pt", (2, 3)), ("exp_avg.pt", (1, 4))):
        path = next(folder.rglob("model.layers.0.mlp.up_proj.weight/" + file))
        state = torch.load(path, weights_only=True)
        values = state["param"].contiguous().numpy().tobytes()
        bytes_ = bytearray(path.read_bytes())
        at = bytes_.index(values) + 4 * (index[0] * state["param"].shape[1] + index[1])
        bytes_[at:at + 4] = torch.tensor([1.25]).numpy().tobytes()
        path.write_bytes(bytes_)
        assert torch.load(path, weights_only=True)["param"][index] == 1.25
    told = crossdock("verify", folder, "--quick", "--against", models["tied"], code=1).stdout
    assert 'tensor "model.layers.0.mlp.up_proj.weight" [2, 3]: source ' in told and ", destination 1.25\n" in told
    assert ('tensor "exp_avg/model.layers.0.mlp.up_proj.weight" [1, 4]: expected 0 of a moment that the source has not, '
            "found 1.25") in told
    assert "2 problems" in told


def test_a_source_that_went_on(crossdock, models, made, tmp_path):
    source = shutil.copytree(models["experts"], tmp_path / "src")
    tensors = load_file(source / "model.safetensors")
    expert = next(name for name in tensors if ".experts.1.w1." in name)
    tensors[expert][2, 5] += 1
    del tensors["lm_head.weight"]
    save_file(tensors | {"more.weight": torch.ones(3)}, source / "model.safetensors", metadata={"format": "pt"})
    assert crossdock("verify", made("experts", "universal"), "--against", source, code=1).stderr  # no such model
    tensors = load_file(models["experts"] / "model.safetensors")
    tensors[expert][2, 5] += 1
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    told = crossdock("verify", made("experts", "universal"), "--against", source, code=1).stdout
    assert 'experts.gate_up_proj" [1, 2, 5]: source' in told and "1 problem" in told


def test_a_change_that_the_cast_rounds_away(crossdock, source, tmp_path):
    """bf16 of an fp32 value does not tell its low bits; the report's digest does."""
    src = shutil.copytree(source(Source(tied=False, sharded=False, dtype="fp32")), tmp_path / "src")
    crossdock("convert", src, tmp_path / "out", "--to", "safetensors", "--dtype", "bf16", "--no-sync")
    crossdock("verify", tmp_path / "out", "--against", src)
    tensors = load_file(src / "model.safetensors")
    tensors["model.norm.weight"].view(torch.int32)[4] ^= 1
    save_file(tensors, src / "model.safetensors", metadata={"format": "pt"})
    told = crossdock("verify", tmp_path / "out", "--against", src, code=1).stdout
    assert 'tensor "model.norm.weight" of the source: expected values of tree:' in told


@pytest.mark.parametrize("kind, writer", [("tied", "zero3"), ("experts", "dcp"), ("gguf", "universal"),
                                          ("fp8", "safetensors"), ("trained", "universal")])
def test_flipped_bits_of_a_source(crossdock, models, made, tmp_path, kind, writer):
    """Anywhere in what was read: codes, scales, padding, headers, config.json, the pickles of a training state."""
    folder = made(kind, writer)
    source = (shutil.copytree if models[kind].is_dir() else shutil.copy)(models[kind], tmp_path / models[kind].name)
    files = sorted(p for p in ([source] if source.is_file() else source.rglob("*")) if p.is_file() and p.stat().st_size)
    choose, missed = random.Random(8), []
    for i in range(60):
        file = choose.choice(files)
        bytes_ = bytearray(file.read_bytes())
        at, bit = choose.randrange(len(bytes_)), choose.randrange(8)
        bytes_[at] ^= 1 << bit
        was = file.read_bytes()
        file.write_bytes(bytes_)
        if crossdock("verify", folder, "--quick", "--against", source, code=None).returncode != 1:
            missed.append((file.name, at, bit))
        file.write_bytes(was)
    assert not missed
    crossdock("verify", folder, "--quick", "--against", source)


def test_what_is_missing_cut_off_or_more(crossdock, made, tmp_path):
    folder = shutil.copytree(made("tied", "universal"), tmp_path / "out")
    file = next(folder.rglob("fp32.pt"))
    name = str(file.relative_to(folder))
    (folder / "notes.txt").write_text("mine")
    told = crossdock("verify", folder).stdout
    assert "note: 1 file is there that the report does not list: notes.txt." in told
    size = file.stat().st_size
    os.truncate(file, size - 1)
    for flags in ((), ("--quick",)):
        assert f"{name}: expected {size} bytes, found {size - 1}" in crossdock("verify", folder, *flags, code=1).stdout
    for other in folder.rglob("*.pt"):
        other.unlink()
    told = crossdock("verify", folder, code=1).stdout
    assert told.count("found none") >= 20 and "... and " in told and " problems " in told


def test_a_report_that_was_changed(crossdock, made, tmp_path):
    folder = shutil.copytree(made("tied", "dcp"), tmp_path / "out")
    path = folder / "crossdock.json"
    text = path.read_text()
    size = json.loads(text)["files"][0]["size"]
    for changed, said in ((text.replace(f'"size": {size}', f'"size": {size + 1}', 1), "was changed or damaged"),
                          (text[:-20], "expected JSON"),
                          (text.replace('"schema": 3', '"schema": 2'), "found one of 2")):
        path.write_text(changed)
        assert said in crossdock("verify", folder, code=1).stderr
    path.unlink()
    assert "expected a folder that crossdock wrote" in crossdock("verify", folder, code=1).stderr


def test_the_report_s_digest_is_xxh3_of_what_stands_before_it(made):
    text = (made("tied", "universal") / "crossdock.json").read_bytes()
    before = text[:text.rindex(b'\n    "report_digest": ')]
    told = json.loads(text)["timings"]["report_digest"]
    assert told == "xxh3:" + xxh3_128(before).hex()


def test_wrong_use(crossdock, made, tmp_path):
    folder = made("tied", "universal")
    for args in ((), ("--quick",), ("x", "y"), (folder, "--threads", "0"), ("x", "--memory", "1KiB"),
                 ("x", "--progress", "y")):
        crossdock("verify", *args, code=2)
    assert "no such folder" in crossdock("verify", tmp_path / "none", code=1).stderr
    assert crossdock("verify", "--help").stdout.startswith("crossdock verify DST")


def test_ctrl_c(crossdock, tmp_path):
    repository = tmp_path / "models--org--name"
    (repository / "blobs").mkdir(parents=True)
    (repository / "snapshots/c").mkdir(parents=True)
    (repository / "blobs" / ("0" * 64)).touch()
    os.truncate(repository / "blobs" / ("0" * 64), 1 << 40)  # a hole, whose SHA-256 takes minutes
    (repository / "snapshots/c/model.safetensors").symlink_to("../../blobs/" + "0" * 64)
    job = crossdock.start("verify", repository / "snapshots/c")
    time.sleep(0.5)
    assert job.poll() is None
    job.send_signal(signal.SIGINT)
    assert job.wait(timeout=30) == 130


# ---- downloads of the Hub

@pytest.fixture(scope="module")
def published(source):
    files = {p.name: p.read_bytes() for p in source(Source(tied=True, sharded=True, dtype="bf16")).iterdir()}
    return files | {"README.md": b"# a model\n", ".gitattributes": b"*.safetensors lfs\n"}


def test_a_whole_download(crossdock, published, tmp_path):
    snapshot = hub.download(published, tmp_path / "cache")
    env = {"HF_HUB_CACHE": str(tmp_path / "cache")}
    for name in ("org/name", tmp_path / "cache/models--org--name", snapshot):
        told = crossdock("verify", name, env=env).stdout
        assert f"complete: all {len(published)} files of the commit are there" in told
        assert f"org/name, commit {hub.COMMIT}: every file that is there is as the Hub has it" in told
        assert f"({len(published)} files" in told
    assert "org/other" in crossdock("verify", "org/other", env=env, code=1).stderr


@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00003.safetensors", "README.md"])
def test_a_flipped_bit_in_a_blob(crossdock, published, tmp_path, name):
    if name not in published:
        name = next(n for n in published if n.endswith(".safetensors"))
    file = Path(hub.download(published, tmp_path / "cache"), name)
    blob = file.resolve()
    bytes_ = bytearray(blob.read_bytes())
    bytes_[len(bytes_) // 2] ^= 4
    os.chmod(blob, 0o644)
    blob.write_bytes(bytes_)
    told = crossdock("verify", tmp_path / "cache/models--org--name", code=1).stdout
    kind = "sha256:" if name.endswith(".safetensors") else "git:"
    found = hashlib.sha256(bytes_) if kind == "sha256:" else hashlib.sha1(b"blob %d\0" % len(bytes_) + bytes_)
    assert f"{name}: expected {kind}{hub.etag(name, published[name])}, found {kind}{found.hexdigest()}" in told
    assert "1 problem" in told
    blob.write_bytes(published[name][:-1])
    told = crossdock("verify", tmp_path / "cache/models--org--name", code=1).stdout
    assert f"{name}: expected {len(published[name])} bytes, found {len(published[name]) - 1}" in told
    blob.unlink()
    told = crossdock("verify", tmp_path / "cache/models--org--name", code=1).stdout
    assert f"{name}: expected its blob in the cache" in told


def test_a_download_of_some_files(crossdock, published, tmp_path):
    hub.download(published, tmp_path / "cache", only=["*.json"])
    told = crossdock("verify", tmp_path / "cache/models--org--name", code=1).stdout
    shards = sum(n.endswith(".safetensors") for n in published)
    assert f"model.safetensors.index.json: expected its {shards} shards beside it" in told
    assert f"found that {shards} are missing" in told
    assert "not downloaded: .gitattributes, README.md, " in told
    hub.download(published, tmp_path / "other", only=["config.json", "README.md"])
    told = crossdock("verify", tmp_path / "other/models--org--name").stdout
    assert f"2 of {len(published)} files of the commit are there" in told


def test_a_cache_without_a_list_and_one_with_shared_blobs(crossdock, published, tmp_path):
    hub.download(published, tmp_path / "cache")
    hub.share(tmp_path / "cache")
    repository = tmp_path / "cache/models--org--name"
    assert "complete" in crossdock("verify", repository).stdout
    shutil.rmtree(repository / "trees")
    told = crossdock("verify", repository).stdout
    assert "There is no list of the commit's files" in told and f"({len(published)} files" in told
    name = next(n for n in published if n.endswith(".safetensors"))
    file = next((repository / "snapshots").iterdir()) / name
    os.chmod(file.resolve(), 0o644)
    file.resolve().write_bytes(published[name][:-1] + b"!")
    assert f"{name}: expected sha256:" in crossdock("verify", repository, code=1).stdout


def test_a_download_to_a_folder(crossdock, published, tmp_path):
    hub.download(published, tmp_path / "cache", local_dir=tmp_path / "local")
    assert "complete" in crossdock("verify", tmp_path / "local").stdout
    shutil.rmtree(tmp_path / "local/.cache/huggingface/trees")
    crossdock("verify", tmp_path / "local")
    (tmp_path / "local/config.json").write_bytes(b" " + published["config.json"])
    assert "config.json: expected git:" in crossdock("verify", tmp_path / "local", code=1).stdout


def test_weights_of_a_download_that_no_record_tells_of(crossdock, tmp_path):
    folder = tmp_path / "local"
    (folder / ".cache/huggingface").mkdir(parents=True)
    (folder / "README.md").write_text("not looked at by anybody")
    assert "No record tells a digest of README.md" in crossdock("verify", folder).stdout
    (folder / "model.safetensors").write_bytes(b"cut off")
    said = crossdock("verify", folder, code=1).stdout
    assert "model.safetensors: expected a record of its digest" in said
