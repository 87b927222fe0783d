# SPDX-License-Identifier: Apache-2.0
"""Uses an installed crossdock as its user does: shows, converts and verifies a small model, and looks at how soon it starts.

    python scripts/try_installed.py COMMAND MODEL_FOLDER

Needs nothing but Python.
"""
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MOST_MILLISECONDS = 30  # to start: a launcher in Python takes longer
RUNS = 20


def run(*args):
    done = subprocess.run([str(arg) for arg in args], text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"{done.args}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def must_say(text, expected, what):
    if expected not in text:
        sys.exit(f"{what}: expected it to say {expected!r}, found\n{text}")


def start_milliseconds(command):
    """The median of the runs' times, or where others keep the processors busy, the mean of what it computes."""
    times, before = [], resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(RUNS):
        begin = time.perf_counter()
        run(command, "--version")
        times.append(1000 * (time.perf_counter() - begin))
    median, after = statistics.median(times), resource.getrusage(resource.RUSAGE_CHILDREN)
    if median >= MOST_MILLISECONDS and os.getloadavg()[0] > os.cpu_count():
        computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return 1000 * computed / RUNS, f"of computing, mean of {RUNS}; {median:.0f} ms on a busy machine"
    return median, f"median of {RUNS}"


def main(command, model):
    plugins = run(command, "plugins")
    for format in ("safetensors", "bin", "gguf", "zero", "universal", "zero3", "dcp"):
        must_say(plugins, f" {format} ", "plugins")
    if "not used" in plugins:
        sys.exit(f"plugins: expected all to load, found\n{plugins}")
    must_say(run(command, "inspect", model), "safetensors", "inspect")
    with tempfile.TemporaryDirectory() as folder:
        for format in ("universal", "safetensors", "dcp"):
            out = Path(folder, format)
            run(command, "convert", model, out, "--to", format, "--no-sync", "--progress", "none")
            must_say(run(command, "verify", out), "as crossdock wrote it", "verify")
            must_say(run(command, "verify", out, "--against", model), "equal to", "verify --against")
        zero3 = ("--to", "zero3", "--world-size", "2", "--lr", "1e-4", "--weight-decay", "0")  # by the class's rule
        run(command, "convert", model, Path(folder, "zero3"), *zero3, "--no-sync", "--progress", "none")
    took, how = start_milliseconds(command)
    if took >= MOST_MILLISECONDS:
        sys.exit(f"expected {command} to start in {MOST_MILLISECONDS} ms, found {took:.1f} ms")
    print(f"{command}: all plugins load, 4 conversions made, 3 verified; it starts in {took:.1f} ms ({how})")


if __name__ == "__main__":
    main(*sys.argv[1:])
