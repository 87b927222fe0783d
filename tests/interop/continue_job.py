# SPDX-License-Identifier: Apache-2.0
"""Goes on with jobs of zero_job.py from other checkpoints, perhaps of another stage or number of ranks.

    torchrun --nproc_per_node=W continue_job.py CASES.json OUT.json

A case is one of zero_job.py with `load`, the folder to load, and `universal`, whether it is a universal checkpoint. Every rank sees the
same tokens, so that losses do not depend on their number. OUT.json: {name: {losses, steps, lr, client}}, or {name: {error}}.
"""
import json
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

import deepspeed
from deepspeed.utils import logger as deepspeed_logger

from job_end import leave
from zero_job import WORDS, new_engine

STEPS = 4


def go_on(case):
    more = {"checkpoint": {"load_universal": True}} if case["universal"] else {}
    engine = new_engine(case | {"config": case.get("config", {}) | more})
    path, client = engine.load_checkpoint(case["load"])
    assert path is not None, case["load"]
    tokens = torch.randint(0, WORDS, (2, 16), generator=torch.Generator().manual_seed(77))
    losses = []
    for _ in range(STEPS):
        loss = engine(tokens)
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    return {"losses": losses, "steps": engine.global_steps, "lr": engine.get_lr(), "client": {k: client.get(k) for k in case.get("client", {})}}


def main():
    cases, out = json.loads(Path(sys.argv[1]).read_text()), {}
    deepspeed_logger.setLevel("ERROR")
    deepspeed.init_distributed(dist_backend="gloo")
    for case in sorted(cases, key=lambda case: case["stage"]):
        try:
            out[case["name"]] = go_on(case)
        except Exception:
            out[case["name"]] = {"error": traceback.format_exc()}
    if dist.get_rank() == 0:
        Path(sys.argv[2]).write_text(json.dumps(out))
    leave()


main()
