# SPDX-License-Identifier: Apache-2.0
"""What the interop tests share: the command under test, the sources, and the folders converted from them.

    pytest tests/interop [--crossdock PATH]

Everything is made once per session and only when a test asks for it. Tests must not change what `source` and
`converted` hand out: copy first.
"""
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import recipes

ROOT = Path(__file__).resolve().parents[2]
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
os.environ.update(QUIET)


def pytest_addoption(parser):
    parser.addoption("--crossdock", default=os.environ.get("CROSSDOCK", ROOT / "build/release/bin/crossdock"),
                     help="the command to test (or CROSSDOCK in the environment; default build/release/bin/crossdock)")


class Crossdock:
    """Runs the command, away from the caches and settings of whoever runs the tests."""

    def __init__(self, path, home):
        self.path = str(path)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_", "CROSSDOCK"))}
        self.env["HOME"] = str(home)

    def __call__(self, *args, code=0, env=None, cwd=None):
        """Runs it to its end and checks the exit code (None: any). Returns subprocess's result, with text streams."""
        done = subprocess.run([self.path, *map(str, args)], env={**self.env, **(env or {})}, cwd=cwd, text=True,
                              capture_output=True, timeout=600)
        assert code in (None, done.returncode), f"{done.args}: exit {done.returncode}, not {code}\n{done.stdout}{done.stderr}"
        return done

    def convert(self, source, target, *flags, **kwargs):
        return self("convert", source, target, "--to", "universal", "--no-sync", *flags, **kwargs)

    def start(self, *args):
        """Starts it and returns the process: for the tests that stop it half way."""
        return subprocess.Popen([self.path, *map(str, args)], env=self.env, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL,
                                # A shell that runs us in the background has SIGINT ignored, which is inherited.
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


@pytest.fixture(scope="session")
def crossdock(request, tmp_path_factory):
    path = Path(request.config.getoption("--crossdock")).absolute()
    if not path.is_file():
        pytest.exit(f"{path} is not there: run scripts/build.sh first, or say --crossdock PATH", returncode=2)
    return Crossdock(path, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """source(Source) -> its folder."""
    root = tmp_path_factory.mktemp("hf")

    def make(recipe):
        folder = root / str(recipe)
        if not folder.exists():
            recipes.save_tiny_llama(folder, recipe)
        return folder

    return make


@pytest.fixture(scope="session")
def converted(crossdock, source, tmp_path_factory):
    """converted(Source, *flags) -> the universal folder made from it with these flags."""
    root, made = tmp_path_factory.mktemp("universal"), {}

    def make(recipe, *flags):
        if (recipe, flags) not in made:
            folder = root / f"{recipe}-{len(made)}"
            crossdock.convert(source(recipe), folder, *flags)
            made[recipe, flags] = folder
        return made[recipe, flags]

    return make


@pytest.fixture
def big_tmp_path(tmp_path):
    """tmp_path for gigabytes: pytest keeps the last few sessions' folders, this one goes at once."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(scope="session")
def python_job():
    """python_job(command, timeout) runs a training job beside the tests' own interpreter and returns its output."""
    bin_folder = Path(sys.executable).parent
    env = {**os.environ, **QUIET, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
           "GLOO_SOCKET_IFNAME": "lo",  # else ranks meet at what this machine's name resolves to
           "TORCH_EXTENSIONS_DIR": str(ROOT / "build/torch_extensions"),  # DeepSpeed compiles its CPU all-reduce once
           "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}

    def run(*command, timeout=600, cwd=None):
        with subprocess.Popen([*map(str, command)], env=env, cwd=cwd, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, start_new_session=True) as job:
            try:
                output, _ = job.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(job.pid, signal.SIGKILL)  # the launcher and its ranks
                output, _ = job.communicate()
                output += f"\n(no end after {timeout} s)"
        assert job.returncode == 0, f"{' '.join(map(str, command))}: exit {job.returncode}\n{output[-6000:]}"
        return output

    return run


@pytest.fixture(scope="session")
def torchrun(python_job):
    """torchrun(world, script, *args, **kwargs) -> output of `world` ranks of a script."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1")

    def run(world, *command, **kwargs):
        ranks = (*launcher, f"--nproc_per_node={world}", *command)
        try:
            return python_job(*ranks, **kwargs)
        except AssertionError as error:
            # On a busy machine gloo's ranks at times do not find each other.
            if not any(sign in str(error) for sign in ("connectFullMesh", "Gloo", "Rendezvous", "Connection re", "timed out")):
                raise
            print(f"a second try after: {error}")
            return python_job(*ranks, **kwargs)

    return run
