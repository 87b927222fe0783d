# SPDX-License-Identifier: Apache-2.0
"""The judge of --ds-config: the job that runs the very same JSON file, begun with from_pretrained and begun with the shards.

    torchrun --nproc_per_node=N ds_config_judge.py CASES.json VERDICTS.json

A case is a dict:
    name     its key in the verdicts
    hf       the Hugging Face folder with the truth
    config   the DeepSpeed config; deepspeed.initialize gets this path, or what the HF Trainer makes of the file
    trainer  the arguments with which the HF Trainer fills in what is "auto"; null: not its job
    dtype    of the module: bf16 or fp32
    script   the class and arguments of an optimizer that the job's script makes; null: DeepSpeed makes it of the config
    groups   the parameters in groups: [[substrings of names, {own values}], ...], a group without substrings takes the rest
    folder   the shards

A verdict tells, for both jobs, what the optimizer is before the first step (`job`, `loaded`: class, groups, sub-groups,
loss scaler, scheduler), and how far the losses of five steps are apart.
"""
import json
import math
import os
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

torch.set_num_threads(1)

import deepspeed
import transformers
from deepspeed.utils import logger as deepspeed_logger
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from job_end import leave
from training import train

DTYPE = {"bf16": torch.bfloat16, "fp32": torch.float32}


def new_engine(case, from_hf):
    dtype = DTYPE[case["dtype"]]
    if from_hf:
        model = AutoModelForCausalLM.from_pretrained(case["hf"], dtype=dtype)
    else:
        torch.manual_seed(99)  # not the seed of the originals: what is not loaded shows
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(case["hf"]), dtype=dtype)
    groups = [{"params": [], **own} for _, own in case["groups"]]
    for name, parameter in model.named_parameters():
        found = [i for i, (parts, _) in enumerate(case["groups"]) if any(part in name for part in parts)]
        groups[found[0] if found else [not parts for parts, _ in case["groups"]].index(True)]["params"].append(parameter)
    config = case["config"]
    if case["trainer"]:
        filled = HfTrainerDeepSpeedConfig(config)
        filled.trainer_config_process(SimpleNamespace(
            world_size=dist.get_world_size(), per_device_train_batch_size=2, gradient_accumulation_steps=1, max_grad_norm=1.0,
            save_on_each_node=False, fp16=False, fp16_full_eval=False, bf16_full_eval=False, **case["trainer"]))
        config = filled.config
    optimizer = None
    if case["script"]:
        name, values = case["script"]
        optimizer = {"AdamW": torch.optim.AdamW, "DeepSpeedCPUAdam": deepspeed.ops.adam.DeepSpeedCPUAdam}[name](groups, **values)
    return deepspeed.initialize(model=model.train(), optimizer=optimizer, model_parameters=groups, config=config)[0]


def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if torch.is_tensor(value) else value


def state(engine):
    """What the job has before its first step, as JSON has it."""
    zero, scheduler = engine.optimizer, engine.lr_scheduler
    return {
        "class": type(zero.optimizer).__name__,
        "groups": [{k: plain(v) for k, v in g.items() if k not in ("params", "initial_lr")} for g in zero.optimizer.param_groups],
        "sub_group_size": zero.sub_group_size,
        "sub_groups": [[list(p.ds_shape) for p in group] for group in zero.fp16_groups],
        "loss_scaler": {"class": type(zero.loss_scaler).__name__, **zero.loss_scaler.__dict__},
        "scheduler": scheduler and [type(scheduler).__name__, scheduler.last_batch_iteration, plain(getattr(scheduler, "_last_lr", None))],
    }


def judge(case):
    engine = new_engine(case, from_hf=True)
    job, losses = state(engine), train(engine)
    engine = new_engine(case, from_hf=False)
    path, _ = engine.load_checkpoint(case["folder"])
    loaded = state(engine)
    differences = [abs(a - b) for a, b in zip(train(engine), losses, strict=True)]
    return {"path": path is not None, "job": job, "loaded": loaded, "losses": losses,
            "loss_difference": max(differences) if all(map(math.isfinite, differences)) else 1e30}


def main():
    cases, verdicts_path = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    deepspeed_logger.setLevel("ERROR")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    deepspeed.init_distributed(dist_backend="gloo")
    verdicts = {}
    for case in cases:
        try:
            verdict = judge(case)
        except Exception:
            # The other ranks may wait for this one for ever: leave, and the launcher ends them.
            print(f"case {case['name']}, rank {dist.get_rank()}:\n{traceback.format_exc()}", flush=True)
            os._exit(1)
        ranks = [None] * dist.get_world_size()
        dist.all_gather_object(ranks, verdict)
        verdicts[case["name"]] = ranks
        if dist.get_rank() == 0:
            verdicts_path.write_text(json.dumps(verdicts, indent=1))
    leave()


main()
