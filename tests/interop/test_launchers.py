# SPDX-License-Identifier: Apache-2.0
"""Several processes convert one checkpoint together, started by the real launchers: Open MPI, Slurm, torchrun, and as
Kubernetes starts the pods of an indexed job. Whoever takes part, and whoever dies on the way, DST has the same bytes as
one process would have written."""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recipes import PLAIN, write_model

LAUNCHERS = Path(__file__).parents[1] / "launchers"
FORMATS = {
    "universal": (),
    "zero3": ("--world-size", 4, "--lr", 0.001, "--weight-decay", 0.01),
    "safetensors": ("--shard-size", "16KiB"),
}
PARTS = 4
SECONDS = 180  # after which a launcher that hangs is ended


# ---- what is compared

def contents(folder):
    """({path: bytes} without the report, the report without its timings)."""
    files = {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    report = json.loads(files.pop("crossdock.json"))
    assert report.pop("timings")
    return files, report


def assert_same(out, whole):
    """DST is published, is what one process writes, and no staging is left beside it."""
    files, report = contents(out)
    expected_files, expected_report = contents(whole)
    assert files.keys() == expected_files.keys()
    assert [name for name in files if files[name] != expected_files[name]] == []
    assert report == expected_report
    assert not Path(f"{out}.partial").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """300 MB in eight tensors, which become eight large files: enough to be stopped half way."""
    tensors = {f"w{i}.weight": ("BF16", [2304, 8192]) for i in range(2 * PARTS)}
    return write_model(tmp_path_factory.mktemp("large"), tensors)


@pytest.fixture(scope="module")
def whole(crossdock, source, model, tmp_path_factory):
    """whole(format) -> what one process makes of the small model, or of the large one ("large")."""
    root = tmp_path_factory.mktemp("whole")

    def make(to):
        if not (root / to).exists():
            what = [model, root / to, *LARGE] if to == "large" else [source(PLAIN), root / to, "--to", to, *FORMATS[to]]
            crossdock("convert", *what)
        return root / to

    yield make
    shutil.rmtree(root)


# ---- the launchers

@pytest.fixture(scope="module")
def environment(crossdock):
    """That of nobody's job, whatever the tests run in."""
    job = ("SLURM_", "OMPI_", "PMI", "JOB_COMPLETION_INDEX")
    env = {name: value for name, value in crossdock.env.items() if not name.startswith(job)}
    return {**env, "PATH": f"{env['PATH']}{os.pathsep}/usr/sbin", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def slurm(environment):
    """A real Slurm of one node; its environment."""
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons need root")
    root = Path(tempfile.mkdtemp(prefix="slurm-"))  # the path of a socket must be short
    try:
        command, env = [LAUNCHERS / "slurm_start.sh", root / "run"], {**environment, "CPUS": "8"}
        started = subprocess.run(command, env=env, text=True, capture_output=True, timeout=SECONDS)
        if started.returncode == 3:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        yield {**environment, "SLURM_CONF": str(root / "run/slurm.conf")}
    finally:
        stopped = subprocess.run([LAUNCHERS / "slurm_stop.sh", root / "run"], env=environment, timeout=SECONDS)
        assert stopped.returncode == 0
        shutil.rmtree(root)


def run(command, env, code=0):
    """Runs a launcher to its end and returns its output; code None: whatever it is."""
    command = ["timeout", "-k", "5", str(SECONDS), *map(str, command)]
    done = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert code in (None, done.returncode), f"{shlex.join(command)}: exit {done.returncode}, not {code}\n{done.stdout}"
    return done.stdout


class Srun:
    rank = "SLURM_PROCID"
    needs = "slurm"

    def __call__(self, command, env, code=0):
        return run(["srun", "-n", PARTS, *command], env, code)


class SlurmArray:
    rank = "SLURM_ARRAY_TASK_ID"
    needs = "slurm"

    def submit(self, command, env):
        log = Path(f"{command[2]}-%a.log")  # beside DST
        flags = [f"--array=0-{PARTS - 1}", "--open-mode=append", "-o", log]
        return run(["sbatch", "--parsable", *flags, "--wrap", shlex.join(command)], env).strip()

    def wait(self, job, env):
        """{task: (state, exit code)} when all of them have ended."""
        deadline = time.monotonic() + SECONDS
        while run(["squeue", "-h", "-j", job], env):
            assert time.monotonic() < deadline, run(["scontrol", "show", "job", job], env)
            time.sleep(0.1)
        shown = run(["scontrol", "show", "job", job, "-o"], env).splitlines()
        tasks = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in shown]
        return {int(task["ArrayTaskId"]): (task["JobState"], task["ExitCode"]) for task in tasks}

    def __call__(self, command, env):
        tasks = self.wait(self.submit(command, env), env)
        logs = "".join(path.read_text() for path in sorted(Path(command[2]).parent.glob("*.log")))
        assert tasks == {i: ("COMPLETED", "0:0") for i in range(PARTS)}, logs
        return logs


class Mpirun:
    rank = "OMPI_COMM_WORLD_RANK"
    needs = "environment"

    def __call__(self, command, env, code=0):
        if not shutil.which("mpirun"):
            pytest.skip("found no mpirun; scripts/setup.sh installs openmpi-bin")
        local = ["--allow-run-as-root", "--oversubscribe", "--mca", "oob_tcp_if_include", "lo"]
        return run(["mpirun", *local, "-n", PARTS, *command], env, code)


class Torchrun:
    rank = "RANK"
    needs = "environment"

    def __call__(self, command, env, restarts=0):
        with tempfile.TemporaryDirectory() as folder:  # for logs that it leaves
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
            torchrun += ["--no-python", f"--nproc-per-node={PARTS}", f"--max-restarts={restarts}"]
            return run([*torchrun, *command], {**env, "TMPDIR": folder})


class Kubernetes:
    """Not Kubernetes itself: what an indexed job's pods have in their environment, as docs/scale.md sets it."""
    rank = "JOB_COMPLETION_INDEX"
    needs = "environment"

    def start(self, command, env, index):
        pod = {**env, "JOB_COMPLETION_INDEX": str(index), "CROSSDOCK_PARTS": str(PARTS)}
        return subprocess.Popen(["timeout", "-k", "5", str(SECONDS), *command], env=pod, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def __call__(self, command, env, indexes=range(PARTS)):
        pods = [self.start(command, env, index) for index in indexes]
        outputs = [pod.communicate()[0] for pod in pods]
        assert [pod.returncode for pod in pods] == [0] * len(pods), outputs
        return "".join(outputs)


EVERY = [Srun(), SlurmArray(), Mpirun(), Torchrun(), Kubernetes()]


def part(crossdock, *args):
    return [crossdock.path, "convert", *map(str, args), "--part", "auto"]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("launcher", EVERY, ids=lambda launcher: type(launcher).__name__)
def test_parts_make_what_one_process_makes(crossdock, source, whole, request, tmp_path, launcher, to):
    out, env = tmp_path / "out", request.getfixturevalue(launcher.needs)
    launcher(part(crossdock, source(PLAIN), out, "--to", to, *FORMATS[to]), env)
    assert_same(out, whole(to))
    crossdock("commit", out)  # the last step of every script: harmless when the last part has done it
    assert_same(out, whole(to))


# ---- one of them dies

LARGE = ("--to", "universal", "--compact", "--threads", 1)


def writing(crossdock, out, rank, index):
    """Waits until the process of that rank has a file of its own open for writing below DST.partial; its id."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().split(b"\0")
                # The command itself, or its interpreter; not the launcher that has the same words further behind.
                if os.fsencode(crossdock.path) not in command[:2] or os.fsencode(out) not in command:
                    continue
                if f"{rank}={index}".encode() not in (process / "environ").read_bytes().split(b"\0"):
                    continue
                if any(is_written(process, fd, f"{out}.partial/") for fd in (process / "fd").iterdir()):
                    return int(process.name)
            except OSError:
                continue  # it has ended, or closed that file
        time.sleep(0.001)
    raise AssertionError(f"no process of {rank}={index} wrote below {out}.partial")


def is_written(process, fd, below):
    """A regular file with bytes on the disk, open for writing."""
    if not os.readlink(fd).startswith(below):
        return False
    flags = int((process / "fdinfo" / fd.name).read_text().split("flags:")[1].split()[0], 8)
    return flags & os.O_ACCMODE != os.O_RDONLY and fd.is_file() and fd.stat().st_blocks > 0


def kill(crossdock, out, rank, index):
    os.kill(writing(crossdock, out, rank, index), signal.SIGKILL)


def in_background(launch, *args):
    """Starts a launcher in a thread; returns a function that waits for it and hands on what it returned or raised."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(launch, *args)
    pool.shutdown(wait=False)
    return future.result


def assert_incomplete(crossdock, out):
    refused = crossdock("commit", out, code=1)
    assert refused.stderr.strip()
    assert not out.exists() and Path(f"{out}.partial").exists()


def test_one_of_srun_is_killed_and_done_by_hand(crossdock, model, whole, slurm, big_tmp_path):
    out = big_tmp_path / "out"
    wait = in_background(Srun(), part(crossdock, model, out, *LARGE), slurm, 137)
    kill(crossdock, out, Srun.rank, 2)
    wait()
    assert_incomplete(crossdock, out)
    restarted = time.time_ns()
    crossdock("convert", model, out, *LARGE, "--part", "2/4")
    assert_same(out, whole("large"))
    kept = [file for file in out.glob("*/zero/*/fp32.pt") if file.stat().st_mtime_ns < restarted]
    assert len(kept) >= 2 * (PARTS - 1), "what the other parts had written was written again"


def test_a_task_of_a_slurm_array_is_killed_and_requeued(crossdock, model, whole, slurm, big_tmp_path):
    out, array = big_tmp_path / "out", SlurmArray()
    job = array.submit(part(crossdock, model, out, *LARGE), slurm)
    kill(crossdock, out, array.rank, 2)
    tasks = array.wait(job, slurm)
    assert tasks.pop(2)[0] == "FAILED"
    assert set(tasks.values()) == {("COMPLETED", "0:0")}
    assert_incomplete(crossdock, out)

    run(["scontrol", "requeue", f"{job}_2"], slurm)
    deadline = time.monotonic() + SECONDS
    while run(["squeue", "-h", "-o", "%T", "-j", job], slurm).strip() != "PENDING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run(["scontrol", "update", f"JobId={job}_2", "StartTime=now+2"], slurm)  # else it waits for two minutes
    assert array.wait(job, slurm) == {i: ("COMPLETED", "0:0") for i in range(PARTS)}
    assert_same(out, whole("large"))


def test_one_of_mpirun_is_killed_and_all_are_started_again(crossdock, model, whole, environment, big_tmp_path):
    if not shutil.which("mpirun"):
        pytest.skip("found no mpirun; scripts/setup.sh installs openmpi-bin")
    out, command = big_tmp_path / "out", part(crossdock, model, big_tmp_path / "out", *LARGE)
    wait = in_background(Mpirun(), command, environment, 137)
    kill(crossdock, out, Mpirun.rank, 2)
    wait()  # mpirun has ended the others too
    assert_incomplete(crossdock, out)
    Mpirun()(command, environment)
    assert_same(out, whole("large"))


def test_torchrun_starts_all_again_by_itself(crossdock, model, whole, environment, big_tmp_path):
    out = big_tmp_path / "out"
    wait = in_background(Torchrun(), part(crossdock, model, out, *LARGE), environment, 1)
    kill(crossdock, out, Torchrun.rank, 2)
    wait()
    assert_same(out, whole("large"))


def test_a_pod_is_killed_and_replaced(crossdock, model, whole, environment, big_tmp_path):
    out, job = big_tmp_path / "out", Kubernetes()
    command = part(crossdock, model, out, *LARGE)
    pods = [job.start(command, environment, index) for index in range(PARTS)]
    kill(crossdock, out, job.rank, 2)
    outputs = [pod.communicate()[0] for pod in pods]
    assert [pod.returncode == 0 for pod in pods] == [True, True, False, True], outputs
    assert_incomplete(crossdock, out)
    job(command, environment, [2])
    assert_same(out, whole("large"))


def test_two_pods_of_one_index(crossdock, model, whole, environment, big_tmp_path):
    """Kubernetes starts another when it has lost sight of the first, which may still run."""
    out = big_tmp_path / "out"
    Kubernetes()(part(crossdock, model, out, *LARGE), environment, [0, 1, 2, 2, 3, 3])
    assert_same(out, whole("large"))


# ---- without a launcher

def test_one_after_another(crossdock, source, whole, tmp_path):
    """As an array with one node does: no part may wait for another."""
    out, command = tmp_path / "out", ["convert", source(PLAIN), tmp_path / "out", "--to", "universal"]
    for i in (2, 0, 3):
        assert crossdock(*command, "--part", f"{i}/4").stdout.strip()
        assert_incomplete(crossdock, out)
    crossdock(*command, "--part", "1/4")
    assert_same(out, whole("universal"))
    crossdock(*command, "--part", "0/4")  # one that is late
    assert_same(out, whole("universal"))


def test_another_number_of_parts(crossdock, source, whole, tmp_path):
    """The first attempt had two nodes, of which one was lost for good; the second has three."""
    out, command = tmp_path / "out", ["convert", source(PLAIN), tmp_path / "out", "--to", "universal"]
    crossdock(*command, "--part", "1/2")
    for i in range(3):
        assert not out.exists()
        crossdock(*command, "--part", f"{i}/3")
    assert_same(out, whole("universal"))


def test_commit_without_anything_to_commit(crossdock, tmp_path):
    assert "nowhere" in crossdock("commit", tmp_path / "nowhere", code=1).stderr
    assert list(tmp_path.iterdir()) == []


def test_auto_without_a_launcher(crossdock, source, environment, tmp_path):
    command = [crossdock.path, "convert", source(PLAIN), tmp_path / "out", "--to", "universal", "--part", "auto"]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=SECONDS)
    assert done.returncode in (1, 2) and "--part i/n" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_batch_script_is_one_process(crossdock, source, slurm, tmp_path):
    """SLURM_PROCID says 0 and SLURM_NTASKS 4, and three quarters would never be written."""
    command = shlex.join(part(crossdock, source(PLAIN), tmp_path / "out", "--to", "universal"))
    run(["sbatch", "--wait", "-n", PARTS, "-o", tmp_path / "log", "--wrap", command], slurm, code=None)
    assert "start the command with srun" in (tmp_path / "log").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


# ---- docs/scale.md

# What is another there: its scripts are for 16 nodes, ours for four processes.
HERE = {
    "/lustre/models/in": "{source}", "/lustre/models/out": "{out}", "2GB": "16KiB",
    "--world-size 64 --ds-config ds.json": "--world-size 4 --lr 0.001 --weight-decay 0.01",
    "--nodes=16 --ntasks-per-node=1 --cpus-per-task=16": "--ntasks=4 --cpus-per-task=2",
    "--array=0-15 --cpus-per-task=16": "--array=0-3 --cpus-per-task=2",
    "-n 16 --map-by ppr:1:node": "-n 4 --allow-run-as-root --oversubscribe --mca oob_tcp_if_include lo",
    "--hostfile hosts ": "", "--nnodes 16 --nproc-per-node 1": "--nnodes 1 --nproc-per-node 4",
    "--rdzv-backend c10d --rdzv-endpoint node0:29400": "--standalone --local-addr 127.0.0.1",
}


@pytest.mark.parametrize("index,to", enumerate(["zero3", "universal", "safetensors", "universal"]))
def test_scripts_of_the_document(crossdock, source, whole, slurm, tmp_path, index, to):
    document = (Path(__file__).parents[2] / "docs/scale.md").read_text()
    text = re.findall(r"(?ms)^```bash\n(.*?)^```$", document)[index]
    for there, here in HERE.items():
        text = text.replace(there, here.format(source=source(PLAIN), out=tmp_path / "out"))
    (tmp_path / "job.sh").write_text(text)
    path = os.pathsep.join([str(Path(crossdock.path).parent), str(Path(sys.executable).parent), slurm["PATH"]])
    # The first is a job itself, as its #SBATCH lines say; the others submit one, or are none.
    start = ["sbatch", "--wait", "-o", tmp_path / "log"] if "#SBATCH" in text else ["bash"]
    env = {**slurm, "PATH": path, "TMPDIR": str(tmp_path)}
    output = run(["env", "-C", tmp_path, *start, tmp_path / "job.sh"], env, None)
    deadline = time.monotonic() + SECONDS
    while run(["squeue", "-h"], slurm):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    logs = "".join(log.read_text() for log in [*tmp_path.glob("*.out"), *tmp_path.glob("log")])
    assert (tmp_path / "out").exists(), f"{text}{output}{logs}"
    assert_same(tmp_path / "out", whole(to))
