#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast and how small crossdock is, as ratios to what the machine can do at that moment.

    tests/bench/bench.py [--crossdock PATH] [--work DIR] [--rounds N] [--large] [--peer] [--only NAME ...]

Needs nothing but Python. README.md beside this file says what the lines mean. It never fails because of a time.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import typing
from pathlib import Path

import models

ROOT = Path(__file__).resolve().parents[2]
MiB = 1 << 20
GB = 10**9
DEFAULT = ["start", "index", "dry_run", "memory", "speed", "zero3", "safetensors", "experts", "bin", "gguf",
           "dequantise", "ways_back", "resume", "verify"]


class Done(typing.NamedTuple):
    seconds: float
    cpu: float  # seconds of all threads, user and system
    peak: int   # resident bytes


class Bench:
    def __init__(self, args):
        self.crossdock = str(Path(args.crossdock).resolve())
        self.work = Path(args.work).resolve()
        self.rounds = args.rounds
        self.python = args.python
        self.outputs = 0
        shutil.rmtree(self.work / "out", ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)

    # ---- one command
    def run(self, command, stdout=subprocess.DEVNULL):
        begin = time.perf_counter()
        child = subprocess.Popen([str(c) for c in command], stdout=stdout, stderr=subprocess.PIPE)
        complaint = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            sys.exit(f"{child.args}: exit code {child.returncode}\n{complaint.decode(errors='replace')}")
        return Done(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    def convert(self, source, *flags, to="universal"):
        out = self.out("converted")
        return self.run([self.crossdock, "convert", source, out, "--to", to, "--no-sync", "--progress", "none", *flags])

    def out(self, name):
        """A fresh place for output. Dirty pages of the run before must not slow the next one down.

        Old output is emptied and kept till the end: for minutes after a removal ext4 looks at every removed inode
        whenever it makes a file, which would be charged to the run that makes many.
        """
        self.outputs += 1
        path = self.work / "out" / str(self.outputs) / name
        for file in path.parents[1].rglob("*"):
            if file.is_file() and file.stat().st_size > 0:
                os.truncate(file, 0)
        path.parent.mkdir(parents=True)
        os.sync()
        return path

    def rest_after_half(self, source):
        """Seconds of the run that goes on with one that was killed when half was written."""
        out = self.out("converted")
        command = [self.crossdock, "convert", source, out, "--to", "universal", "--no-sync", "--progress", "json"]
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in job.stderr:
            event = json.loads(line)
            if event["event"] == "progress" and 2 * event["done"] >= event["total"]:
                break
        job.kill()
        job.wait()
        os.sync()  # a whole run begins without dirty pages too
        return self.run([*command[:-1], "none"]).seconds

    def parts(self, source, n):
        """Seconds until all parts are through, that begin at once with a thread each."""
        out = self.out("converted")
        begin = time.perf_counter()
        running = [subprocess.Popen([self.crossdock, "convert", source, out, "--to", "universal", "--no-sync", "--progress", "none",
                                     "--threads", "1", "--part", f"{i}/{n}"], stdout=subprocess.DEVNULL) for i in range(n)]
        if any([child.wait() for child in running]) or not out.exists():
            sys.exit("a part failed")
        return time.perf_counter() - begin

    # ---- what a conversion is compared with
    def cat(self, files):
        with open(self.out("cat"), "wb") as out:
            return self.run(["cat", *files], stdout=out).seconds

    def two_cats(self, files):
        out = self.out("cat")
        begin = time.perf_counter()
        running = []
        for i in range(2):
            with open(f"{out}{i}", "wb") as file:
                running.append(subprocess.Popen(["cat", *map(str, files)], stdout=file))
        if any(child.wait() for child in running):
            sys.exit("cat failed")
        return time.perf_counter() - begin

    def paired(self, runs):
        """Every run once per round, round after round: what disturbs one disturbs its neighbours too. Every other
        round goes backwards, for the first of a round has the disk's work of the round before beside it."""
        times = {name: [] for name in runs}
        for i in range(self.rounds + 1):
            for name, run in list(runs.items())[::1 if i % 2 else -1]:
                seconds = run()
                if i > 0:  # the first round warms up
                    times[name].append(seconds)
        return times

    # ---- lines
    def line(self, what, measured, limit, unit, note=""):
        verdict = "OK" if measured <= limit else "OVER"
        print(f"{what:<58} {measured:>8.2f} {limit:>8.2f} {unit:<4} {verdict:<5} {note}", flush=True)

    def ratio(self, what, times, a, b, limit):
        ratio = statistics.median(x / y for x, y in zip(times[a], times[b]))
        note = f"{statistics.median(times[a]):.2f} s / {statistics.median(times[b]):.2f} s, {len(times[a])} pairs"
        self.line(what, ratio, limit, "x", note)

    # ---- the measurements
    def resume(self):
        source, files = self.llama()
        self.cat_to_nothing(files)  # into the cache
        times = self.paired({
            "whole": lambda: self.convert(source, "--threads", "2").seconds,
            "no journal": lambda: self.convert(source, "--threads", "2", "--no-resume").seconds,
            "rest": lambda: self.rest_after_half(source),
            "four parts": lambda: self.parts(source, 4),
        })
        self.ratio("going on after half / a whole run", times, "rest", "whole", 0.60)
        self.ratio("with a journal / without", times, "whole", "no journal", 1.01)
        self.ratio("four parts at once / one process with two threads", times, "four parts", "whole", 1.15)

    def speed(self):
        source, files = self.llama()
        need = 3 * sum(f.stat().st_size for f in files)
        if shutil.disk_usage(self.work).free < need:
            sys.exit(f"expected {need / GB:.0f} GB free in {self.work}, found less: give another folder with --work")
        models.in_child(models.touch_memory)
        self.cat_to_nothing(files)  # into the cache
        times = self.paired({
            "convert": lambda: self.convert(source).seconds,
            "cat": lambda: self.cat(files + files),
            "two": lambda: self.two_cats(files),
        })
        self.ratio("convert / one cat of as many bytes", times, "convert", "cat", 1.0)
        self.ratio("convert / two cats side by side", times, "convert", "two", 1.3)
        times = self.paired({
            "compact": lambda: self.convert(source, "--compact").seconds,
            "cat": lambda: self.cat(files),
        })
        self.ratio("convert --compact / one cat of the source", times, "compact", "cat", 0.9)

    def zero3(self):
        source, files = self.llama()
        flags = lambda ranks: ("--world-size", ranks, "--lr", 2e-5, "--weight-decay", 0)
        self.cat_to_nothing(files)
        times = self.paired({
            "ranks": lambda: self.convert(source, *flags(8), to="zero3").seconds,
            "one": lambda: self.convert(source, *flags(1), to="zero3").seconds,
            "cat": lambda: self.cat(files + files),
        })
        self.ratio("zero3, 8 ranks / one cat of as many bytes", times, "ranks", "cat", 1.3)
        self.ratio("zero3, 1 rank / one cat of as many bytes", times, "one", "cat", 0.8)
        peak = max(self.convert(source, *flags(ranks), "--memory", "256MiB", to="zero3").peak for ranks in (1, 8))
        self.memory_line("zero3", peak)

    def experts(self):
        source = models.make(self.work / "mixtral", models.mixtral, shards=4, data=True, config=models.MIXTRAL)
        dense = models.make(self.work / "dense", models.as_large_as_mixtral, shards=4, data=True)
        for folder in source, dense:
            self.cat_to_nothing(folder.glob("*.safetensors"))
        times = self.paired({
            "experts": lambda: self.convert(source, "--memory", "256MiB").seconds,
            "dense": lambda: self.convert(dense, "--memory", "256MiB").seconds,
        })
        self.ratio("experts stacked / a dense model of as many bytes", times, "experts", "dense", 1.15)
        self.memory_line("experts stacked", self.convert(source, "--memory", "256MiB").peak)

    def safetensors(self):
        source, files = self.llama()
        self.cat_to_nothing(files)
        times = self.paired({
            "copied": lambda: self.convert(source, to="safetensors").seconds,
            "cast": lambda: self.convert(source, "--dtype", "fp16", to="safetensors").seconds,
            "cat": lambda: self.cat(files),
        })
        self.ratio("safetensors / one cat of as many bytes", times, "copied", "cat", 1.3)
        self.ratio("safetensors --dtype fp16 / one cat of as many bytes", times, "cast", "cat", 1.3)
        self.memory_line("safetensors", self.convert(source, "--memory", "256MiB", to="safetensors").peak)

    def memory(self):
        source, _ = self.llama()
        for flags, what in ((), "fp32"), (("--compact",), "compact"):
            peak = max(self.convert(source, "--memory", "256MiB", *flags).peak for _ in range(2))
            self.memory_line(what, peak)

    def memory_line(self, what, peak, note=""):
        """The kernel hands a process's peak on to what it starts, so our own size is the least that can be seen."""
        floor = self.run(["true"]).peak
        seen = "at most: less cannot be seen" if peak <= floor else f"seen from {floor / MiB:.0f} MiB up"
        self.line(f"peak memory with --memory 256MiB, {what}", peak / MiB, 256 + 64, "MiB", seen + note)

    def large(self):
        free = shutil.disk_usage(self.work).free
        layers = min(34, int((free - 10 * GB) / (2 * models.LARGE_LAYER_ELEMS)))
        if layers < 4:
            return print(f"peak memory of a large model: left out, {free / GB:.0f} GB free are too few")
        tensors = lambda: models.large_llama(layers)
        source = models.make(self.work / f"large{layers}", tensors, shards=8, data=False)
        size = sum(f.stat().st_size for f in source.glob("*.safetensors"))
        done = self.convert(source, "--memory", "256MiB", "--compact")
        self.memory_line(f"{size / GB:.0f} GB, compact", done.peak, f", {done.seconds:.0f} s")

    def median(self, what, runs, limit, unit, scale=1, note=""):
        cpu = statistics.median(r.cpu for r in runs) * scale
        seconds = statistics.median(r.seconds for r in runs) * scale
        self.line(what, seconds, limit, unit, f"{cpu:.2f} {unit} of CPU{note}")

    def start(self):
        runs = [self.run([self.crossdock, "plugins"]) for _ in range(21)]
        self.median("crossdock plugins", runs, 30, "ms", scale=1000)

    def index(self):
        source = models.make(self.work / "index", lambda: models.many_tensors(100_000), shards=64, data=False)
        runs = [self.run([self.crossdock, "inspect", source]) for _ in range(7)]
        self.median("inspect, 100,000 tensors", runs, 0.5, "s")

    def dry_run(self):
        source = models.make(self.work / "deepseek-v3", models.deepseek_v3, shards=163, data=False, config=models.DEEPSEEK)
        command = [self.crossdock, "convert", source, self.out("dry"), "--to", "universal", "--dry-run"]
        runs = [self.run(command) for _ in range(7)]
        self.median("convert --dry-run, 45,395 tensors, 671e9 elements", runs, 2.0, "s",
                    note=f", {max(r.peak for r in runs) / MiB:.0f} MiB")

    def peer(self):
        """What is common today: a Python script with torch that also writes the moments' zeros out."""
        if not self.has_torch("peer"):
            return
        source, files = self.llama()
        self.cat_to_nothing(files)
        script = Path(__file__).with_name("naive_peer.py")
        theirs, ours = [], []
        for _ in range(min(self.rounds, 3)):
            theirs.append(self.run([self.python, script, source, self.out("naive")]))
            ours.append(self.convert(source))
        for who, runs in ("Python with torch", theirs), ("crossdock", ours):
            seconds = statistics.median(r.seconds for r in runs)
            print(f"{who}: {seconds:.1f} s, {max(r.peak for r in runs) / GB:.2f} GB of memory")

    def bin(self):
        """The same tensors from PyTorch's files."""
        if not self.has_torch("bin"):
            return
        source, files = self.llama()
        folder = self.work / "llama-bin"
        if not (folder / "pytorch_model.bin.index.json").exists():
            self.run([self.python, Path(__file__).with_name("make_bin.py"), source, folder])
        self.cat_to_nothing(files + sorted(folder.glob("*.bin")))
        times = self.paired({
            "bin": lambda: self.convert(folder).seconds,
            "safetensors": lambda: self.convert(source).seconds,
        })
        self.ratio("convert from .bin / from safetensors", times, "bin", "safetensors", 1.1)
        peak = self.convert(folder, "--memory", "256MiB").peak
        self.memory_line("from .bin", peak)
        runs = [self.run([self.crossdock, "inspect", folder]) for _ in range(21)]
        self.median("inspect of 2.2 GB of .bin", runs, 50, "ms", scale=1000)

    def gguf(self):
        """A model of 4-bit blocks to fp32, and the decoders of all types beside gguf-py's."""
        source = models.write_gguf(self.work / "llama-q4_k.gguf", models.tiny_llama(), heads=32, kv_heads=4)
        _, files = self.llama()
        self.cat_to_nothing([source, *files])
        times = self.paired({
            "gguf": lambda: self.convert(source).seconds,
            "cat": lambda: self.cat(files + files),
        })
        self.ratio("convert from GGUF Q4_K / one cat of the output's bytes", times, "gguf", "cat", 1.5)
        self.memory_line("from GGUF Q4_K", self.convert(source, "--memory", "256MiB").peak)
        for name, ours, theirs in self.rates("bench_gguf_types", "gguf", "gguf_peer.py"):
            beside = ""
            if theirs:
                verdict = "OK" if ours >= 5 * theirs else "UNDER"
                beside = f", gguf-py {theirs:5.2f}: {ours / theirs:6.1f} x, at least 5 {verdict}"
            print(f"  {name:<8} {ours:6.2f} GB/s{beside}")

    def dequantise(self):
        """A model of FP8 codes in blocks to fp32, and all schemes beside the libraries that they are compared with."""
        source = models.make(self.work / "llama-fp8", models.fp8_llama, shards=4, data=True, config=models.FP8_LLAMA)
        _, files = self.llama()
        self.cat_to_nothing([*source.glob("*.safetensors"), *files])
        times = self.paired({
            "fp8": lambda: self.convert(source).seconds,
            "cat": lambda: self.cat(files + files),
        })
        self.ratio("convert from FP8 / one cat of the output's bytes", times, "fp8", "cat", 1.0)
        self.memory_line("from FP8", max(self.convert(source, "--memory", "256MiB").peak for _ in range(2)))
        for name, ours, theirs, loops in self.rates("bench_dequantise", "bitsandbytes", "dequantise_peer.py",
                                                    "dequantise_peer.py --reuse"):
            least = max(8 * theirs, 0 if ">" in name else 3)
            verdict = "OK" if ours >= least else "UNDER"
            print(f"  {name:<19} {ours:6.2f} GB/s, its library {theirs:5.2f}: {ours / theirs:5.1f} x, "
                  f"at least {least:5.2f} GB/s {verdict:<5} (without new memory {loops:5.2f}: {ours / loops:4.1f} x)")

    def ways_back(self):
        """Checkpoints of ZeRO stage 3 to safetensors and to universal, beside DeepSpeed's own scripts."""
        source, _ = self.llama()
        trained = {ranks: self.work / f"llama-zero3-{ranks}" for ranks in (2, 64)}
        for ranks, folder in trained.items():
            if not folder.exists():
                self.run([self.crossdock, "convert", source, folder, "--to", "zero3", "--world-size", ranks, "--lr", 2e-5,
                          "--weight-decay", 0, "--progress", "none"])
                models.in_child(lambda: [models.fill_holes(f) for f in folder.glob("*/*optim_states.pt")])  # moments as after training
        states = sorted(trained[2].glob("*/*optim_states.pt"))
        plain = self.work / "llama-fp32"
        if not plain.exists():
            self.run([self.crossdock, "convert", trained[2], plain, "--to", "safetensors", "--progress", "none"])
        # Two at a time: of more, the disk's cache has no room.
        to_plain = lambda ranks: self.convert(trained[ranks], to="safetensors").seconds
        times = self.paired({"two": lambda: to_plain(2), "cat": lambda: self.cat(sorted(plain.glob("*.safetensors")))})
        self.ratio("ZeRO-3 of 2 ranks to safetensors / one cat of the output", times, "two", "cat", 1.0)
        times = self.paired({"two": lambda: to_plain(2), "many": lambda: to_plain(64)})
        self.ratio("ZeRO-3 of 64 ranks to safetensors / of 2 ranks", times, "many", "two", 1.2)
        self.memory_line("ZeRO-3 of 64 ranks to safetensors",
                         self.convert(trained[64], "--memory", "256MiB", to="safetensors").peak)
        shutil.rmtree(trained[64])  # 13 GB
        times = self.paired({
            "universal": lambda: self.convert(trained[2]).seconds,
            "cat": lambda: self.cat(states),
        })
        self.ratio("ZeRO-3 of 2 ranks to universal / one cat of the output", times, "universal", "cat", 1.0)
        self.memory_line("ZeRO-3 of 2 ranks to universal", self.convert(trained[2], "--memory", "256MiB").peak)
        if subprocess.run([self.python, "-c", "import deepspeed"], capture_output=True).returncode != 0:
            return print(f"DeepSpeed's own scripts: left out, {self.python} has no deepspeed (--python)")
        module = lambda name, *flags: self.run([self.python, "-m", f"deepspeed.{name}", *flags])
        tag = trained[2] / "global_step0"
        peers = (("safetensors", "utils.zero_to_fp32", (trained[2],), ("--safe_serialization",), 10),
                 ("universal", "checkpoint.ds_to_universal", ("--input_folder", tag, "--output_folder"),
                  ("--num_extract_workers", 1, "--num_merge_workers", 1, "--inject_missing_state"), 15))
        for to, name, before, after, least in peers:
            theirs = module(name, *before, self.out("theirs"), *after)
            ours = statistics.median(self.convert(trained[2], to=to).seconds for _ in range(3))
            ratio = theirs.seconds / ours
            verdict = "OK" if ratio >= least else "UNDER"
            print(f"  to {to}: {name} {theirs.seconds:.1f} s, {theirs.peak / GB:.1f} GB of memory; crossdock {ours:.2f} s: "
                  f"{ratio:.1f} x, at least {least} {verdict}")

    def verify(self):
        """Files against their digests, and values against the source, beside reading the same files and no more."""
        source, files = self.llama()
        folder = self.work / "llama-verified"
        shutil.rmtree(folder, ignore_errors=True)  # another version's report may be another
        self.run([self.crossdock, "convert", source, folder, "--to", "safetensors", "--shard-size", "50GB", "--progress", "none"])
        written = sorted(folder.glob("*.safetensors"))
        self.cat_to_nothing([*files, *written])
        verify = lambda *flags: self.run([self.crossdock, "verify", folder, "--progress", "none", *flags])
        times = self.paired({
            "verify": lambda: verify().seconds,
            "cat": lambda: self.run(["cat", *written]).seconds,
        })
        self.ratio("verify / cat to nothing of the same file", times, "verify", "cat", 1.25)
        times = self.paired({
            "against": lambda: verify("--quick", "--against", source).seconds,
            "cat": lambda: self.run(["cat", *files, *written]).seconds,
        })
        self.ratio("verify --quick --against / cat to nothing of both", times, "against", "cat", 2.0)
        self.memory_line("verify", verify("--memory", "256MiB", "--against", source).peak)

    # ---- helpers
    def rates(self, tool, package, *peers):
        """[(name, GB/s of our tool, GB/s of each peer's script or None)]; none when one of them is missing."""
        tool = Path(self.crossdock).parents[1] / "tests" / tool
        has_peer = subprocess.run([self.python, "-c", f"import {package}"], stderr=subprocess.DEVNULL).returncode == 0
        if not tool.exists() or not has_peer:
            print(f"{tool.name}: left out, {tool} or the package {package} in {self.python} is missing (--python)")
            return []

        def read(*command):
            done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, text=True)
            return {name: float(rate) for name, rate in map(str.split, done.stdout.splitlines())}

        ours = read(tool, 0.2)
        theirs = [read(self.python, Path(__file__).with_name(peer.split()[0]), *peer.split()[1:]) for peer in peers]
        return [(name, rate, *(them.get(name) for them in theirs)) for name, rate in ours.items()]

    def has_torch(self, name):
        if subprocess.run([self.python, "-c", "import torch, safetensors"], stderr=subprocess.DEVNULL).returncode == 0:
            return True
        print(f"{name}: left out, {self.python} has no torch and safetensors (--python)")
        return False

    def llama(self):
        source = models.make(self.work / "llama", models.tiny_llama, shards=4, data=True)
        return source, sorted(source.glob("*.safetensors"))

    def cat_to_nothing(self, files):
        for _ in range(2):
            self.run(["cat", *files])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--crossdock", default=ROOT / "build/release/bin/crossdock",
                        help="default: build/release/bin/crossdock")
    parser.add_argument("--work", default=ROOT / "build/bench",
                        help="a folder on the disk to measure (default: build/bench)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs (default: 5)")
    parser.add_argument("--large", action="store_true", help="also convert a model ten times larger (writes 22 GB)")
    parser.add_argument("--peer", action="store_true", help="also run a plain Python script with torch")
    parser.add_argument("--python", default=sys.executable, help="the Python that has torch, for bin and --peer")
    parser.add_argument("--only", nargs="+", choices=[*DEFAULT, "large", "peer"])
    parser.add_argument("--clean", action="store_true", help="remove the work folder's models afterwards")
    args = parser.parse_args()
    if not Path(args.crossdock).is_file():
        parser.error(f"{args.crossdock} is not there: run scripts/build.sh first, or say --crossdock PATH")
    bench = Bench(args)
    names = args.only or DEFAULT.copy()
    names += [n for n, wanted in (("large", args.large), ("peer", args.peer)) if wanted and n not in names]
    free = shutil.disk_usage(bench.work).free / GB
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {free:.0f} GB free in {bench.work}")
    if os.getloadavg()[0] > 0.5:
        print("other programs are running: believe the ratios and the CPU times more than the rest")
    print()
    print(f"{'':<58} {'measured':>8} {'limit':>8}")
    for name in names:
        getattr(bench, name)()
    shutil.rmtree(bench.work / "out", ignore_errors=True)
    if args.clean:
        shutil.rmtree(bench.work)


if __name__ == "__main__":
    main()
