# SPDX-License-Identifier: Apache-2.0
"""Conversions that are broken off, and machines that fail them: full disks, sources that change, kills. What is there in the
end is what an undisturbed run makes, or nothing, with an error."""
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from running import result, start_and_wait_until_it_writes, written

FORMATS = {
    "universal": ["--to", "universal"],
    "safetensors": ["--to", "safetensors", "--shard-size", "6MB", "--dtype", "bf16"],
    "dcp": ["--to", "dcp", "--dcp-shards", "3"],
}


def make_model(folder, n_tensors, n_mb):
    """A model of random fp32 tensors, a megabyte or more each."""
    folder.mkdir(parents=True)
    values = numpy.random.default_rng(1)
    tensors = {f"layers.{i}.w": values.standard_normal((n_mb * 1024, 256), dtype=numpy.float32) for i in range(n_tensors)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("faults") / "model", 24, 1)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("faults") / "large", 40, 10)


@pytest.fixture(scope="module")
def whole(crossdock, model, large, tmp_path_factory):
    """whole(source, *flags) -> what one undisturbed run makes."""
    root, made = tmp_path_factory.mktemp("whole"), {}

    def make(source, *flags):
        if (source, flags) not in made:
            out = root / str(len(made))
            crossdock("convert", source, out, "--no-sync", *flags)
            made[source, flags] = result(out)
            shutil.rmtree(out)
        return made[source, flags]

    return make


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_seventy_kills_and_the_end_is_the_same(crossdock, model, whole, tmp_path, name):
    """With 70 for each of three formats they are more than 200."""
    choice, killed, published = random.Random(name), 0, 0
    expected = whole(model, *FORMATS[name])
    while killed < 70:
        parts = choice.choice([1, 1, 2, 3])
        jobs = []
        for i in range(parts):
            flags = ["--part", f"{i}/{parts}"] if parts > 1 else []
            jobs.append(crossdock.start("convert", model, tmp_path / "out", *FORMATS[name], "--threads", "1", *flags))
        time.sleep(choice.random() * 0.12)
        for job in jobs:
            job.kill()
            code = job.wait(60)
            killed += code == -signal.SIGKILL
            # One that was through may have found DST, or another one at work.
            assert code in (0, 1, -signal.SIGKILL)
        if choice.random() < 0.25 or (tmp_path / "out").exists():
            if not (tmp_path / "out").exists():
                crossdock("convert", model, tmp_path / "out", *FORMATS[name])
            assert result(tmp_path / "out") == expected
            crossdock("verify", tmp_path / "out")
            shutil.rmtree(tmp_path / "out")
            crossdock("clean", tmp_path / "out")
            assert names(tmp_path) == []
            published += 1
    assert published > 5


def test_cancelled_after_ten_seconds_of_work(crossdock, large, whole, tmp_path):
    """It says how to go on and how to clear, and going on does the rest only."""
    flags = ["--to", "universal"]
    job = subprocess.Popen([crossdock.path, "convert", large, tmp_path / "out", *flags, "--threads", "1"], env=crossdock.env, text=True,
                           stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while written(tmp_path / "out.partial") < 100 << 20:
        assert job.poll() is None
        time.sleep(0.002)
    job.send_signal(signal.SIGSTOP)
    before = written(tmp_path / "out.partial")
    time.sleep(10.5)
    job.send_signal(signal.SIGINT)
    job.send_signal(signal.SIGCONT)
    said = job.communicate(timeout=60)[1]
    assert job.returncode == 130
    assert "the same command goes on" in said and "crossdock clean" in said and "nothing was left" not in said
    assert written(tmp_path / "out.partial") >= before // 2

    events = crossdock("convert", large, tmp_path / "out", *flags, "--progress", "json").stderr.splitlines()
    plan = next(event for event in map(json.loads, events) if event["event"] == "plan")
    assert plan["stored_bytes"] < 330 << 20, "of some 420 MB"
    assert result(tmp_path / "out") == whole(large, *flags)
    assert names(tmp_path) == ["out"]


def test_another_command_does_not_go_on(crossdock, large, model, whole, tmp_path):
    flags = ["--to", "universal"]
    start_and_wait_until_it_writes(crossdock, large, tmp_path / "out", *flags).kill()
    time.sleep(0.2)
    for other, what in {("--tag", "other"): "--tag", ("--rename", "w=v"): "list of flags", ("--compact",): "--compact"}.items():
        said = crossdock("convert", large, tmp_path / "out", *flags, *other, code=1).stderr
        assert what in said and "--restart" in said
    said = crossdock("convert", model, tmp_path / "out", *flags, code=1).stderr
    assert "the source's folder was" in said and str(large) in said
    said = crossdock("convert", large, tmp_path / "out", *flags, "--part", "0/2", "--tag", "x", code=1).stderr
    assert "--tag was" in said
    assert written(tmp_path / "out.partial") >= 1 << 20, "the work is still there"
    crossdock("convert", model, tmp_path / "out", *flags, "--restart")
    assert result(tmp_path / "out") == whole(model, *flags)
    assert names(tmp_path) == ["out"]


def test_no_resume_and_clean(crossdock, large, tmp_path):
    start_and_wait_until_it_writes(crossdock, large, tmp_path / "out", "--to", "universal").kill()
    assert "removed" in crossdock("clean", tmp_path / "out").stdout
    assert names(tmp_path) == []
    assert "no unfinished work" in crossdock("clean", tmp_path / "out").stdout
    start_and_wait_until_it_writes(crossdock, large, tmp_path / "out", "--to", "universal").kill()
    time.sleep(0.2)
    crossdock("convert", large, tmp_path / "out", "--to", "universal", "--no-resume")
    assert names(tmp_path) == ["out"]


def test_plans_are_the_same_whatever_threads_memory_and_language(crossdock, model, tmp_path):
    for number, (name, flags) in enumerate(FORMATS.items()):
        plans = set()
        for threads, memory, locale in [(1, "8MiB", "C"), (2, "1GiB", "de_DE.UTF-8"), (7, "64MiB", "tr_TR.UTF-8"), (16, "8GiB", "C.UTF-8")]:
            out = tmp_path / f"{number}-{threads}"
            crossdock("convert", model, out, *flags, "--threads", threads, "--memory", memory, env={"LC_ALL": locale, "LANG": locale})
            plans.add(json.loads((out / "crossdock.json").read_text())["plan"])
        assert len(plans) == 1, name


# ---- a small file system

@pytest.fixture
def small_disk(tmp_path):
    """mount(size, inodes) -> a real, small file system."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder, mounted = tmp_path / "disk", []
    folder.mkdir()

    def mount(size, inodes, remount=False):
        options = f"{'remount,' if remount else ''}size={size},nr_inodes={inodes}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("size, inodes, word", [("12m", 1000, "free for"), ("200m", 20, "inodes")], ids=["bytes", "inodes"])
def test_full(crossdock, model, whole, small_disk, size, inodes, word):
    flags = ["--to", "universal"]
    disk = small_disk(size, inodes)
    refused = crossdock("convert", model, disk / "out", *flags, code=1)
    assert word in refused.stderr and "--force" in refused.stderr
    assert names(disk) == []
    assert crossdock("convert", model, disk / "out", *flags, "--dry-run").stdout.count("note: expected") == 1
    failed = crossdock("convert", model, disk / "out", *flags, "--force", code=1)
    assert "No space left on device" in failed.stderr
    assert names(disk) == []
    small_disk("200m", 1000, remount=True)
    crossdock("convert", model, disk / "out", *flags)
    assert result(disk / "out") == whole(model, *flags)
    assert names(disk) == ["out"]


# ---- a source that changes

@pytest.fixture
def changing(large, tmp_path):
    shutil.copytree(large, tmp_path / "in")
    return tmp_path / "in"


def change_while_stopped(crossdock, source, out, change, *flags):
    """Exit code and stderr of a run whose source changes half way."""
    job = subprocess.Popen([crossdock.path, "convert", source, out, "--to", "universal", "--threads", "1", "--no-sync", *flags],
                           env=crossdock.env, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while written(Path(f"{out}.partial")) < 20 << 20:
        assert job.poll() is None
        time.sleep(0.001)
    job.send_signal(signal.SIGSTOP)
    change(source / "model.safetensors")
    job.send_signal(signal.SIGCONT)
    said = job.communicate(timeout=120)[1]
    return job.returncode, said


def shrink(path):
    os.truncate(path, path.stat().st_size // 2)


def grow(path):
    with path.open("ab") as file:
        file.write(b"more")


def rot(path):
    """A few bytes near the end, and the time as it was."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size - 1000)
        file.write(bytes(range(64)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [shrink, grow])
def test_a_source_that_changes_is_an_error(crossdock, changing, tmp_path, change):
    code, said = change_while_stopped(crossdock, changing, tmp_path / "out", change)
    assert code == 1 and "model.safetensors" in said
    assert names(tmp_path) == ["in"]


def test_a_source_that_rots_in_silence_is_found_by_verify(crossdock, large, changing, tmp_path):
    """Its time is as it was, and its bytes are read once, so what is written is what was read: never a mixture that is not told."""
    code, _ = change_while_stopped(crossdock, changing, tmp_path / "out", rot)
    assert code == 0
    crossdock("verify", tmp_path / "out", "--against", changing)
    assert "layers" in crossdock("verify", tmp_path / "out", "--against", large, code=1).stdout


def test_what_rots_between_reading_and_verifying_is_not_published(crossdock, changing, tmp_path):
    """With --verify the source is read again: what changed after it was read is an error."""
    def change_the_first(path):
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(before.st_size - 39 * (10 << 20) - 4096)  # in the first tensor, which is written
            file.write(bytes(range(1, 65)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    code, said = change_while_stopped(crossdock, changing, tmp_path / "out", change_the_first, "--verify")
    assert code == 1 and "--verify" in said
    assert names(tmp_path) == ["in"]


def test_the_time_of_day_does_not_matter(crossdock, large, whole, tmp_path):
    """A clock that steps back between two runs, and files from the future."""
    flags = ["--to", "universal"]
    start_and_wait_until_it_writes(crossdock, large, tmp_path / "out", *flags, n_bytes=60 << 20).kill()
    time.sleep(0.2)
    future = time.time() + 10**8
    for path in (tmp_path / "out.partial").rglob("*"):
        os.utime(path, (future, future))
    crossdock("convert", large, tmp_path / "out", *flags)
    assert result(tmp_path / "out") == whole(large, *flags)


# ---- what is in the way, and what is only called so

PARTS = FORMATS["safetensors"]


def test_commit_tells_what_is_there_and_never_takes_it_for_what_is_not(crossdock, model, tmp_path):
    out = tmp_path / "out"
    crossdock("convert", model, out, *PARTS)
    said = crossdock("commit", out).stdout
    assert "published already" in said and str(model) in said and "--dtype=bf16" in said
    (tmp_path / "out.partial").mkdir()
    crossdock("commit", out, code=1)
    (tmp_path / "out.partial").rmdir()
    crossdock("commit", out, "--bogus", code=2)
    crossdock("commit", out, "extra", code=2)
    crossdock("commit", "--memory", "1GiB", out)
    next(out.glob("model-*")).unlink()
    crossdock("commit", out, code=1)
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/crossdock.json").write_text("garbage")
    crossdock("commit", tmp_path / "fake", code=1)


def test_a_damaged_destination_is_not_published(crossdock, model, whole, tmp_path):
    out = tmp_path / "out"
    crossdock("convert", model, out, *PARTS)
    next(out.glob("model-*")).unlink()
    crossdock("convert", model, out, *PARTS, "--part", "0/1", code=1)
    crossdock("convert", model, out, *PARTS, "--part", "0/1", "--overwrite")
    assert result(out) == whole(model, *PARTS)


def test_the_spelling_of_the_source_does_not_matter(crossdock, model, whole, tmp_path):
    (tmp_path / "link").symlink_to(model)
    flags = ("--to", "safetensors", "--shard-size", "1MB")
    expected = whole(model, *flags)
    spellings = [str(model), f"{model}/", os.path.relpath(model, tmp_path), "./link", f"{model}/../{model.name}"]
    for i, spelling in enumerate(spellings):
        crossdock("convert", spelling, "out", *flags, "--part", f"{i}/{len(spellings) + 1}", cwd=tmp_path)
    crossdock("commit", tmp_path / "out", code=1)
    crossdock("convert", model, tmp_path / "out", *flags, "--part", f"{len(spellings)}/{len(spellings) + 1}")
    files = result(tmp_path / "out")
    assert files.pop("crossdock.json")["plan"] == expected["crossdock.json"]["plan"]
    assert files == {name: text for name, text in expected.items() if name != "crossdock.json"}


def test_commit_finds_a_file_that_a_flag_named_by_a_relative_path(crossdock, source, tmp_path):
    from recipes import PLAIN
    (tmp_path / "ds.json").write_text(json.dumps({"bf16": {"enabled": True}, "zero_optimization": {"stage": 3}, "optimizer": {
        "type": "AdamW", "params": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}}}))
    crossdock("convert", source(PLAIN), "out", "--to", "zero3", "--world-size", 4, "--ds-config", "ds.json", "--part", "0/2", cwd=tmp_path)
    assert "missing" in crossdock("commit", tmp_path / "out", code=1).stderr
    crossdock("convert", source(PLAIN), tmp_path / "out", "--to", "zero3", "--world-size", 4, "--ds-config", tmp_path / "ds.json", "--part", "1/2")
    assert (tmp_path / "out/crossdock.json").exists()


def test_folders_that_only_look_like_unfinished_work(crossdock, model, tmp_path):
    crossdock("convert", model, tmp_path / "out", *PARTS)
    (tmp_path / "out").rename(tmp_path / "new.partial")  # somebody's backup
    before = result(tmp_path / "new.partial")
    for flags in [[], ["--restart"], ["--part", "0/1"]]:
        assert "is not crossdock's" in crossdock("convert", model, tmp_path / "new", *PARTS, *flags, code=1).stderr
    assert "is not crossdock's" in crossdock("clean", tmp_path / "new", code=1).stderr
    assert result(tmp_path / "new.partial") == before
    crossdock("convert", model, tmp_path / "work", *PARTS, "--part", "0/3")
    assert "unfinished work" in crossdock("convert", model, tmp_path / "work.partial/x", *PARTS, code=1).stderr


@pytest.mark.parametrize("place", ["parts/plan", "parts/x.journal", ".crossdock-partial", "tree/pipe"])
def test_a_pipe_in_unfinished_work_is_an_error(crossdock, model, tmp_path, place):
    crossdock("convert", model, tmp_path / "out", *PARTS, "--part", "0/3")
    path = tmp_path / "out.partial" / place
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    done = subprocess.run([crossdock.path, "convert", str(model), str(tmp_path / "out"), *PARTS], env=crossdock.env, timeout=60,
                          capture_output=True, text=True)
    assert done.returncode == (0 if place == ".crossdock-partial" else 1), done.stderr
    assert (tmp_path / "out").exists() == (place == ".crossdock-partial")


@pytest.mark.parametrize("place", ["parts/plan", "parts/x.journal"])
def test_a_huge_file_in_unfinished_work_is_an_error(crossdock, model, tmp_path, place):
    crossdock("convert", model, tmp_path / "out", *PARTS, "--part", "0/3")
    with (tmp_path / "out.partial" / place).open("ab") as file:
        file.truncate(100 << 30)
    said = crossdock("convert", model, tmp_path / "out", *PARTS, code=1).stderr
    assert Path(place).name in said and "bad_alloc" not in said


def test_links_in_place_of_the_tree_are_refused(crossdock, model, tmp_path):
    crossdock("convert", model, tmp_path / "out", *PARTS, "--part", "0/2")
    tree = tmp_path / "out.partial/tree"
    tree.rename(tmp_path / "elsewhere")
    tree.symlink_to(tmp_path / "elsewhere")
    assert "to be a folder" in crossdock("convert", model, tmp_path / "out", *PARTS, "--part", "1/2", code=1).stderr
    assert not (tmp_path / "out").exists()


def test_a_large_tokenizer_that_changes_between_parts(crossdock, model, tmp_path):
    shutil.copytree(model, tmp_path / "in")
    (tmp_path / "in/config.json").write_text("{}")
    tokenizer = tmp_path / "in/tokenizer.json"
    tokenizer.write_bytes(b"{" + b" " * (70 << 20) + b"}")
    crossdock("convert", tmp_path / "in", tmp_path / "out", *PARTS, "--part", "1/2")
    with tokenizer.open("r+b") as file:
        file.seek(68 << 20)
        file.write(b"\n")
    assert "tokenizer.json" in crossdock("convert", tmp_path / "in", tmp_path / "out", *PARTS, "--part", "0/2", code=1).stderr


def test_closed_standard_streams(crossdock, model, whole, tmp_path):
    done = subprocess.run(f'"{crossdock.path}" convert "{model}" "{tmp_path}/out" {" ".join(PARTS)} --progress bar <&- 2>&- >/dev/null',
                          shell=True, env=crossdock.env)
    assert done.returncode == 0
    assert result(tmp_path / "out") == whole(model, *PARTS)
    full = subprocess.run(f'"{crossdock.path}" plugins >/dev/full', shell=True, env=crossdock.env, capture_output=True, text=True)
    assert full.returncode == 1 and "stdout" in full.stderr
