# SPDX-License-Identifier: Apache-2.0
"""The command as users and scripts meet it: exit codes, what stays on disk after a stop, what it refuses, what it reports."""
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from recipes import PLAIN, layout, tensor_bytes, write_holes, write_model, write_raw_safetensors, write_safetensors, write_shards
from running import start_and_wait_until_it_writes

SMALL = {"a.weight": ("BF16", [3, 5]), "b.weight": ("BF16", [7])}


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "in", SMALL)


def contents(folder):
    """{path: bytes} of everything in a folder, links and empty folders included."""
    return {str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
            for path in folder.rglob("*")}


def assert_nothing_beside(folder, *expected):
    """Neither a destination, nor staging, nor anything else is left in a folder."""
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(expected)


# ---- exit codes

def test_help_and_plugins(crossdock):
    assert "convert" in crossdock("--help").stdout
    shown = crossdock("convert", "--to", "universal", "--help").stdout
    for flag in ("--tag", "--precision", "--moments", "--compact", "--hf-trainer", "--overwrite", "--memory", "--dry-run"):
        assert flag in shown
    shown = crossdock("convert", "--to", "safetensors", "--help").stdout
    for flag in ("--dtype", "--shard-size", "--allow-overflow"):
        assert flag in shown
    listed = crossdock("plugins").stdout
    assert all(plugin in listed for plugin in ("reader.safetensors", "writer.universal", "writer.safetensors"))


@pytest.mark.parametrize("args", [
    [], ["nonsense"], ["convert"], ["convert", "{src}"], ["convert", "{src}", "{dst}"], ["inspect"],
    ["convert", "{src}", "{dst}", "--to", "universal", "--no-such-flag"],
    ["convert", "{src}", "{dst}", "--to", "universal", "--moments", "sometimes"],
    ["convert", "{src}", "{dst}", "--to", "universal", "one-too-many"],
], ids=" ".join)
def test_wrong_usage(crossdock, model, tmp_path, args):
    done = crossdock(*(arg.format(src=model, dst=tmp_path / "out") for arg in args), code=2)
    assert done.stderr.strip()
    assert_nothing_beside(tmp_path, "in")


def test_wrong_path(crossdock, tmp_path):
    for args in (["inspect", tmp_path / "nowhere"], ["convert", tmp_path / "nowhere", tmp_path / "out", "--to", "universal"]):
        assert "nowhere" in crossdock(*args, code=1).stderr
    assert_nothing_beside(tmp_path)


# ---- output

def test_dry_run_writes_nothing(crossdock, model, tmp_path):
    plan = crossdock.convert(model, tmp_path / "out", "--dry-run").stdout
    for word in ("files", "disk", "memory", "free"):
        assert word in plan.lower()
    assert_nothing_beside(tmp_path, "in")


def test_report_file(crossdock, model, tmp_path):
    crossdock.convert(model, tmp_path / "out", "--report", tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == (tmp_path / "out/crossdock.json").read_text()


def test_progress_for_programs(crossdock, source, tmp_path):
    lines = crossdock.convert(source(PLAIN), tmp_path / "out", "--progress", "json").stderr.splitlines()
    events = [json.loads(line) for line in lines]
    steps = [(event["done"], event["total"]) for event in events if "done" in event]
    assert steps and steps == sorted(steps) and steps[-1][0] == steps[-1][1] > 0


@pytest.mark.parametrize("style", ["json", "bar", "plain"])
def test_nobody_reads_the_progress(crossdock, model, tmp_path, style):
    """A full or closed stderr must not end a conversion: it only loses what it would have shown."""
    command = [crossdock.path, "convert", str(model), str(tmp_path / "out"), "--to", "universal", "--progress", style]
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, env=crossdock.env, stdout=subprocess.DEVNULL, stderr=full).returncode == 0
    assert (tmp_path / "out/crossdock.json").exists()


@pytest.mark.parametrize("name", ["m.partial", "m.replaced"])
def test_names_of_unfinished_folders(crossdock, model, tmp_path, name):
    """Another run that writes m would take them for a rest of its own."""
    error = crossdock.convert(model, tmp_path / name, code=1).stderr
    assert "which marks folders that are not finished" in error and not (tmp_path / name).exists()


def test_dry_run_looks_at_the_destination(crossdock, model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("")
    error = crossdock.convert(model, tmp_path / "out", "--dry-run", code=1).stderr
    assert "expected DST to be new or empty" in error


def test_tied_embeddings_under_the_head_name_alone(crossdock, tmp_path):
    """safetensors.torch.save_model keeps the first name of the alphabet; the job will look for the other."""
    model = write_model(tmp_path / "in", {"lm_head.weight": ("BF16", [3, 5])}, {"tie_word_embeddings": True})
    notes = crossdock.convert(model, tmp_path / "out").stdout
    assert "config.json ties the embeddings, but the source has lm_head.weight and no input embeddings" in notes
    crossdock.convert(model, tmp_path / "renamed", "--rename", "^lm_head=model.embed_tokens")
    assert (tmp_path / "renamed/global_step0/zero/model.embed_tokens.weight/fp32.pt").exists()


def test_one_file_of_a_folder(crossdock, model, tmp_path):
    assert "the config.json and tokenizer beside it were not read" in \
        crossdock.convert(model / "model.safetensors", tmp_path / "out").stdout


def test_same_input_same_bytes(crossdock, source, tmp_path):
    for out in ("first", "second"):
        crossdock.convert(source(PLAIN), tmp_path / out, "--hf-trainer")
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    reports = [json.loads(files.pop("crossdock.json")) for files in (first, second)]
    assert first == second
    for report in reports:
        del report["timings"]
    assert reports[0] == reports[1]


def test_with_sync_and_little_memory(crossdock, source, converted, tmp_path):
    crossdock("convert", source(PLAIN), tmp_path / "out", "--to", "universal", "--from", "safetensors", "--memory", "16MiB")
    first, second = contents(converted(PLAIN)), contents(tmp_path / "out")
    del first["crossdock.json"], second["crossdock.json"]
    assert first == second


# ---- stopped half way

@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """1.5 GB of zeros that take no disk to hold, and a while to convert."""
    folder = tmp_path_factory.mktemp("large")
    write_holes(folder / "model.safetensors", {f"w{i}.weight": ("BF16", [4096, 16384]) for i in range(12)})
    return folder


@pytest.mark.parametrize("old", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_cancel(crossdock, model, large, big_tmp_path, number, old):
    out, flags = big_tmp_path / "out", ["--overwrite"] if old else []
    if old:
        crossdock.convert(model, out)
    before = contents(big_tmp_path)
    job = start_and_wait_until_it_writes(crossdock, large, out, "--to", "universal", "--no-sync", "--compact", *flags)
    job.send_signal(number)
    assert job.wait(60) == 130
    assert contents(big_tmp_path) == before


@pytest.mark.parametrize("old", [False, True], ids=["new", "overwrite"])
def test_killed_then_run_again(crossdock, model, large, big_tmp_path, old):
    out, flags = big_tmp_path / "out", ["--overwrite"] if old else []
    if old:
        crossdock.convert(model, out)
    before = contents(out) if old else None
    job = start_and_wait_until_it_writes(crossdock, large, out, "--to", "universal", "--no-sync", "--compact", *flags)
    job.kill()
    assert job.wait(60) == -signal.SIGKILL
    assert (contents(out) if out.exists() else None) == before, "a reader of DST sees the old state"
    crossdock.convert(large, out, "--compact", *flags)
    assert_nothing_beside(big_tmp_path, "in", "out")
    report = json.loads((out / "crossdock.json").read_text())
    assert {tensor["name"] for tensor in report["tensors"]} == {f"w{i}.weight" for i in range(12)}
    assert {file["path"]: file["size"] for file in report["files"]} == {
        str(path.relative_to(out)): path.stat().st_size for path in out.rglob("*") if path.is_file() and path.name != "crossdock.json"}


def test_a_foreign_staging_folder_is_left_alone(crossdock, model, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/thesis.txt").write_text("precious")
    before = contents(tmp_path)
    assert "out.partial" in crossdock.convert(model, tmp_path / "out", code=1).stderr
    assert contents(tmp_path) == before


# ---- what is already at DST

def test_overwrite(crossdock, model, tmp_path):
    out = tmp_path / "out"
    crossdock.convert(model, out, "--tag", "old")
    before = contents(out)
    assert "--overwrite" in crossdock.convert(model, out, code=1).stderr
    assert contents(out) == before
    crossdock.convert(model, out, "--tag", "new", "--overwrite")
    assert (out / "new").is_dir() and not (out / "old").exists()
    assert_nothing_beside(tmp_path, "in", "out")


def foreign_file(out):
    (out / "global_step0/zero/notes.txt").write_text("mine")
    return "notes.txt"


def foreign_folder(out):
    (out / "logs").mkdir()
    return "logs"


def foreign_link(out):
    (out / "link").symlink_to("/")
    return "link"


def no_report(out):
    (out / "crossdock.json").unlink()
    return "crossdock.json"


def not_ours_at_all(out):
    shutil.rmtree(out)
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    return "crossdock.json"


@pytest.mark.parametrize("change", [foreign_file, foreign_folder, foreign_link, no_report, not_ours_at_all],
                         ids=lambda change: change.__name__)
def test_overwrite_removes_only_what_it_wrote(crossdock, model, tmp_path, change):
    crossdock.convert(model, tmp_path / "out")
    named = change(tmp_path / "out")
    before = contents(tmp_path)
    assert named in crossdock.convert(model, tmp_path / "out", "--overwrite", code=1).stderr
    assert contents(tmp_path) == before


def test_overwrite_follows_no_link(crossdock, model, tmp_path):
    crossdock.convert(model, tmp_path / "real")
    (tmp_path / "out").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = contents(tmp_path)
    for name in ("out", "dangling"):
        assert "link" in crossdock.convert(model, tmp_path / name, "--overwrite", code=1).stderr
    assert contents(tmp_path) == before


@pytest.mark.parametrize("target", ["in", "in/out", ".", "link-to-in/out"])
def test_source_and_destination_are_apart(crossdock, model, tmp_path, target):
    (tmp_path / "link-to-in").symlink_to("in")
    before = contents(tmp_path)
    for flags in ([], ["--overwrite"]):
        crossdock.convert(model, tmp_path / target, *flags, code=1)
        assert contents(tmp_path) == before


def test_a_missing_parent_is_made(crossdock, model, tmp_path):
    crossdock.convert(model, tmp_path / "new/deep/out")
    assert (tmp_path / "new/deep/out/latest_universal").exists()


# ---- sources that are refused

def with_config(config, tensors=SMALL):
    return lambda folder: write_model(folder, tensors, config)


def with_tensors(**tensors):
    return with_config({}, {**SMALL, **tensors})


QUANTISED = {
    "config": (with_config({"quantization_config": {"quant_method": "gptq", "bits": 4}}), "quantization_config"),
    "f8": (with_tensors(**{"c.weight": ("F8_E4M3", [4, 4])}), "F8_E4M3"),
    "fp8-scale": (with_tensors(**{"c.weight_scale_inv": ("F32", [1, 1])}), "weight_scale_inv"),
    "gptq": (with_tensors(**{"c.qweight": ("I32", [4, 4]), "c.qzeros": ("I32", [1, 1])}), "c.scales"),
    "mxfp4": (with_tensors(**{"c_blocks": ("U8", [2, 4, 1, 16])}), "c_scales"),
    "mxfp4-codes": (with_tensors(**{"c_scales": ("U8", [2, 4, 1])}), "c_scales"),
    "bnb-4bit": (with_tensors(**{"c.weight": ("U8", [8, 1]), "c.weight.absmax": ("F32", [1])}), "quant_state"),
    "bnb-8bit": (with_tensors(**{"c.weight": ("I8", [4, 4])}), "c.weight"),
    "bnb-8bit-scales": (with_tensors(**{"c.SCB": ("F32", [4])}), "SCB"),
    "compressed": (with_tensors(**{"c.weight_packed": ("I32", [4, 4])}), "weight_scale"),
}


@pytest.mark.parametrize("make,named", QUANTISED.values(), ids=QUANTISED)
def test_quantised_sources(crossdock, tmp_path, make, named):
    assert named in crossdock.convert(make(tmp_path / "in"), tmp_path / "out", code=1).stderr
    assert_nothing_beside(tmp_path, "in")
    crossdock("inspect", "--json", tmp_path / "in")  # looking at it is allowed


@pytest.mark.parametrize("names", [
    [""], ["."], [".."], ["a/b"], ["../escape"], ["/absolute"], ["a\\b"], ["a\0b"], ["x" * 256], ["ä" * 128],
    ["optimizer_state.pt"], ["Layer.weight", "layer.weight"],
], ids=lambda names: repr(names)[:40])
def test_names_that_cannot_be_folders(crossdock, tmp_path, names):
    write_model(tmp_path / "in", {**SMALL, **{name: ("F32", [2]) for name in names}})
    assert crossdock.convert(tmp_path / "in", tmp_path / "out", code=1).stderr.strip()
    assert_nothing_beside(tmp_path, "in")


@pytest.mark.parametrize("flags", [
    ["--add-prefix", "../"], ["--strip-prefix", "a.weight"], ["--rename", ".*=same"], ["--rename", "weight=optimizer_state.pt"],
    ["--rename", "["], ["--tag", "../x"], ["--tag", "a/b"], ["--tag", ""],
], ids=" ".join)
def test_options_that_would_make_such_names(crossdock, tmp_path, flags):
    folder = write_model(tmp_path / "in", {"a.weight": ("F32", [2]), "weight": ("F32", [2])})
    done = crossdock.convert(folder, tmp_path / "out", *flags, code=None)
    assert done.returncode in (1, 2) and done.stderr.strip()
    assert_nothing_beside(tmp_path, "in")


def raw_model(header=None, data=None, cut=0):
    """A folder whose model.safetensors has this header over the values of SMALL, less `cut` bytes at its end."""
    def make(folder):
        write_model(folder, {})
        values = b"".join(tensor_bytes(*entry) for entry in SMALL.values()) if data is None else data
        path = folder / "model.safetensors"
        write_raw_safetensors(path, layout(SMALL) if header is None else header, values)
        path.write_bytes(path.read_bytes()[:path.stat().st_size - cut])
        return folder
    return make


def entry(begin, end, dtype="BF16", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 2] if shape is None else shape, "data_offsets": [begin, end]}


TWO_SHARDS = {"a": "model-1.safetensors", "b": "model-2.safetensors"}


def shards(model_2=None, **index):
    """A folder of the shards that TWO_SHARDS lists. `model_2` replaces what the second holds, `index` what the index says."""
    files = {"model-1.safetensors": {"a": ("F32", [3])}, "model-2.safetensors": model_2 or {"b": ("F32", [5])}}
    return lambda folder: write_shards(folder, files, **{"weight_map": TWO_SHARDS, **index})


def weights_of(folder):
    return write_model(folder, SMALL) / "model.safetensors"


# What is wrong -> how to make it, and what the message must name.
BROKEN = {
    "cut off by a byte": (raw_model(cut=1), r"model\.safetensors"),
    "cut off in the header": (raw_model(cut=60), r"model\.safetensors"),
    "empty file": (lambda folder: weights_of(folder).write_bytes(b""), r"model\.safetensors"),
    "bytes after the end": (raw_model(data=b"".join(tensor_bytes(*e) for e in SMALL.values()) + b"x"), r"model\.safetensors"),
    "no JSON": (raw_model("{nonsense"), r"model\.safetensors"),
    "huge header": (lambda folder: weights_of(folder).write_bytes((1 << 40).to_bytes(8, "little") + b"{}"), r"model\.safetensors"),
    "hole": (raw_model({"a": entry(0, 4), "b": entry(6, 44)}), '"b"'),
    "overlap": (raw_model({"a": entry(0, 24), "b": entry(22, 44)}), '"b"'),
    "shape and size differ": (raw_model({"a": entry(0, 44, shape=[23])}), '"a"'),
    "shape overflows": (raw_model({"a": entry(0, 44, shape=[1 << 62, 1 << 62])}), '"a"'),
    "unknown dtype": (raw_model({"a": entry(0, 44, dtype="Q7")}), "Q7"),
    "name twice": (raw_model('{"a": %s, "\\u0061": %s}' % (json.dumps(entry(0, 22)), json.dumps(entry(22, 44)))), '"a"'),
    "shard missing": (shards(weight_map={**TWO_SHARDS, "b": "model-3.safetensors"}), r"model-3\.safetensors"),
    "tensor missing": (shards(weight_map={**TWO_SHARDS, "c": "model-2.safetensors"}), '"c"'),
    "tensor in two shards": (shards(model_2={"a": ("F32", [3]), "b": ("F32", [5])}), '"a"'),
    "shard outside": (shards(weight_map={"a": "../outside.safetensors"}), r"\.\./outside"),
    "shard by absolute path": (shards(weight_map={"a": "/etc/passwd"}), "/etc/passwd"),
    "no weights": (lambda folder: weights_of(folder).unlink(), "safetensors"),
    "broken config": (lambda folder: (write_model(folder, SMALL) / "config.json").write_text("{"), r"config\.json"),
}


@pytest.mark.parametrize("make,named", BROKEN.values(), ids=BROKEN)
def test_broken_sources(crossdock, tmp_path, make, named):
    write_safetensors(tmp_path / "outside.safetensors", {"a": ("F32", [3])})
    make(tmp_path / "in")
    error = crossdock.convert(tmp_path / "in", tmp_path / "out", code=1).stderr
    assert len(error.strip().splitlines()) == 1 and all(re.search(part, error) for part in (named, "expected", "found")), error
    assert_nothing_beside(tmp_path, "in", "outside.safetensors")


def test_a_wrong_total_size_is_told(crossdock, tmp_path):
    """Nobody reads total_size, and edited models keep an old one: it is worth a word, and no refusal."""
    shards(metadata={"total_size": 1})(tmp_path / "in")
    assert "total_size" in crossdock.convert(tmp_path / "in", tmp_path / "out").stdout
    assert any("total_size" in note for note in json.loads((tmp_path / "out/crossdock.json").read_text())["notes"])
