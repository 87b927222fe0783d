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
