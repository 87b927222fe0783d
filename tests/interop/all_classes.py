# SPDX-License-Identifier: Apache-2.0
"""Every class of transformers that a rule describes, one small model each: what crossdock writes of its files is the running class.

    all_classes.py CROSSDOCK [--only REGEX] [--mappings CAUSAL_LM,...] [--need 0.98]

A model of sizes that rules are not made from is saved by save_pretrained. Then the universal folder must hold exactly
named_parameters(), zero3 the same in order, and from files to the module's tensors and back (safetensors) each tensor must
be the saved one, bit for bit. Prints a line per class and the counts; exit code 1 below --need.
"""
import argparse
import collections
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import make_rules  # sets what keeps transformers silent and off the network

import torch
from rules_maker.tiny import first_working
from safetensors.torch import load_file

OPTIMIZER = ("--world-size", "1", "--dtype", "fp32", "--lr", "0.001", "--weight-decay", "0")
LIMIT = 180  # seconds for a class


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*(x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b)))


def rule_of(name):
    """The text of the class's rule; empty: it has none."""
    return next((file.read_text() for file in (ROOT / "rules").glob(f"*/{name}.textproto")), "")


class Judge:
    def __init__(self, crossdock, folder):
        self.crossdock, self.folder = crossdock, folder

    def run(self, source, out, *flags):
        command = [self.crossdock, "convert", str(source), str(out), *flags, "--no-sync", "--progress", "none"]
        return subprocess.run(command, capture_output=True, text=True)

    def convert(self, source, out, *flags):
        done = self.run(source, out, *flags)
        if done.returncode:
            raise AssertionError(f"{flags[1]}: " + done.stderr.strip().splitlines()[-1])
        return out

    def universal(self, model, source):
        out = self.convert(source, self.folder / "universal", "--to", "universal")
        zero = out / (out / "latest_universal").read_text().strip() / "zero"
        found = {str(file.parent.relative_to(zero)) for file in zero.rglob("fp32.pt")}
        want = dict(model.named_parameters())
        assert found == set(want), f"universal: names differ: {sorted(found ^ set(want))[:3]}"
        for name, parameter in want.items():
            assert torch.equal(torch.load(zero / name / "fp32.pt")["param"], parameter.detach().float()), f"universal: {name} differs"

    def zero3(self, model, source):
        if "unordered: true" in rule_of(type(model).__name__):
            done = self.run(source, self.folder / "zero3", "--to", "zero3", *OPTIMIZER)
            assert done.returncode == 1 and "in one order" in done.stderr, "zero3: not refused for its order"
            return
        out = self.convert(source, self.folder / "zero3", "--to", "zero3", *OPTIMIZER)
        states, optimizer = (torch.load(next(out.glob(f"*/zero_pp_rank_0*_{x}_states.pt")), weights_only=False) for x in ("model", "optim"))
        found = [(name, tuple(shape)) for shapes in states["param_shapes"] for name, shape in shapes.items()]
        want = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
        assert found == want, f"zero3: {next((pair for pair in zip(found, want) if pair[0] != pair[1]), 'other number of parameters')}"
        flat = torch.cat([x.reshape(-1) for x in optimizer["optimizer_state_dict"]["fp32_flat_groups"]])
        own = torch.cat([p.detach().reshape(-1).float() for p in model.parameters()])
        assert torch.equal(flat[:own.numel()], own), "zero3: values differ"

    def round_trip(self, source):
        module = self.convert(source, self.folder / "module", "--to", "safetensors", "--names", "module", "--keep-unmatched")
        back = self.convert(module, self.folder / "file", "--to", "safetensors", "--names", "file", "--keep-unmatched")
        saved, again = load_file(source / "model.safetensors"), load_file(back / "model.safetensors")
        dropped = {name for name in set(saved) - set(again) if name in self.left_out(module)}
        assert set(saved) - dropped == set(again), f"safetensors: names differ: {sorted(set(saved) - dropped ^ set(again))[:3]}"
        for name, tensor in again.items():
            assert same(tensor, saved[name]), f"safetensors: {name} differs"

    def left_out(self, folder):
        return {x["name"] for x in json.loads((folder / "crossdock.json").read_text())["tensors"] if x.get("excluded")}


def judge(cls, crossdock, folder):
    source = folder / "hf"

    def use(model):
        shutil.rmtree(source, ignore_errors=True)
        model.save_pretrained(source)
        return model.eval()

    try:
        model = first_working(cls, "H", use)
    except Exception as e:
        return "not built: " + " ".join(str(e).split())[:90]
    judge = Judge(crossdock, folder)
    said = []
    for check in (lambda: judge.universal(model, source), lambda: judge.zero3(model, source), lambda: judge.round_trip(source)):
        try:
            check()
        except AssertionError as e:
            said.append(str(e))
    return "; ".join(said) or "exact"


def in_child(cls, crossdock):
    """A class may crash, or hang."""
    folder = Path(tempfile.mkdtemp(prefix="class"))
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            said = judge(cls, crossdock, folder)
        except BaseException as e:
            said = f"{type(e).__name__}: {e}"
        os.write(write_end, said.encode()[:4000])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    shutil.rmtree(folder, ignore_errors=True)
    return said or "died, or took too long"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("crossdock")
    parser.add_argument("--only", default=".")
    parser.add_argument("--mappings", default="CAUSAL_LM,IMAGE_TEXT_TO_TEXT")
    parser.add_argument("--need", type=float, default=0.98)
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted = set(args.mappings.split(","))
    counts = collections.Counter()
    for name, mappings in sorted(make_rules.classes()[0].items()):
        cls = make_rules.find(name)
        if cls is None or not wanted & set(mappings) or not re.search(args.only, name):
            continue
        if not rule_of(name):  # docs/classes_without_rules.md says why
            counts["without a rule"] += 1
            continue
        said = in_child(cls, args.crossdock)
        counts["not built" if said.startswith("not built") else "exact" if said == "exact" else "wrong"] += 1
        print(f"{name:48} {said}", flush=True)
    judged = counts["exact"] + counts["wrong"]
    print(f"{counts['exact']} of {judged} classes exact, {counts['not built']} not built, {counts['without a rule']} without a rule")
    sys.exit(counts["exact"] < args.need * judged)


if __name__ == "__main__":
    main()
