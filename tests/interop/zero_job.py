# SPDX-License-Identifier: Apache-2.0
"""Trains small models under ZeRO and lets DeepSpeed save them: what the zero reader reads.

    torchrun --nproc_per_node=W zero_job.py CASES.json OUT

A case is a dict; all but name and stage may be left out:
    name        OUT/NAME is its checkpoint, OUT/NAME.truth.pt what the job itself had
    stage       ZeRO 1, 2 or 3
    dtype       bf16 or fp32 (DeepSpeed refuses fp16 on a CPU)
    groups      optimizer groups: 1, or 2 (without weight decay for biases and norms)
    frozen      parameters with one of these in their names do not train
    unowned     parameters with one of these in their names are in no group of the optimizer
    tied        whether head.weight is embed.weight
    sub_group   elements of a sub-group, for stage 3
    optimizer   adamw, sgd (with momentum), plain_sgd (without), cpu_adam (DeepSpeed's), or config: DeepSpeed makes one of its config
    zero, config    more of DeepSpeed's config: of zero_optimization, and of the top
    steps       optimizer steps before the save
    client      the client_state
    hf          a Hugging Face folder whose model it is, in place of the small one
    class       that model's class in transformers; AutoModelForCausalLM without
    exclude     exclude_frozen_parameters of save_checkpoint

The truth: step, and by name the parameters as the module has them, masters, moments and buffers. All cases of a world size
share a process; stage 3 goes last, since it replaces torch.nn.functional.linear.
"""
import json
import os
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

torch.set_num_threads(1)

import deepspeed
from deepspeed.utils import logger as deepspeed_logger
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

from job_end import leave

DTYPE = {"bf16": torch.bfloat16, "fp32": torch.float32}
WORDS = 23


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(7, 11), nn.Linear(11, 7), nn.LayerNorm(7)
        self.register_buffer("scale", torch.tensor(0.75))

    def forward(self, x):
        return x + self.scale * self.down(torch.relu(self.up(self.norm(x))))


class Small(nn.Module):
    """Sizes that hardly any number of ranks divides, and a parameter of one element."""

    def __init__(self, tied):
        super().__init__()
        self.embed = nn.Embedding(WORDS, 7)
        self.gain = nn.Parameter(torch.tensor([1.25]))
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(7, WORDS, bias=False)
        self.register_buffer("seen", torch.tensor([3, 1, 4]))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens) * self.gain
        for block in self.blocks:
            x = block(x)
        return nn.functional.cross_entropy(self.head(x).float().flatten(0, 1), tokens.roll(-1, 1).flatten())


def new_model(case):
    torch.manual_seed(31)
    if case.get("hf"):
        import transformers
        model = getattr(transformers, case.get("class", "AutoModelForCausalLM")).from_pretrained(case["hf"], dtype=DTYPE[case.get("dtype", "bf16")])
    else:
        model = Small(case.get("tied", False)).to(DTYPE[case.get("dtype", "bf16")])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in case.get("frozen", [])))
    return model.train()


def new_engine(case):
    model = new_model(case)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad and not any(part in n for part in case.get("unowned", []))]
    plain = lambda name: name.endswith("bias") or "norm" in name
    groups = [{"params": [p for _, p in named]}]
    if case.get("groups", 1) == 2:
        groups = [{"params": [p for n, p in named if not plain(n)]},
                  {"params": [p for n, p in named if plain(n)], "weight_decay": 0.0, "lr": 2e-3}]
    zero = {"stage": case["stage"], **case.get("zero", {})}
    if case["stage"] == 3:
        zero["stage3_param_persistence_threshold"] = 20
        if case.get("sub_group"):
            zero["sub_group_size"] = case["sub_group"]
    config = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": zero, "zero_allow_untested_optimizer": True,
              "zero_force_ds_cpu_optimizer": False, "steps_per_print": 10**9, "bf16": {"enabled": case.get("dtype", "bf16") == "bf16"},
              **case.get("config", {})}
    make = {"adamw": lambda: torch.optim.AdamW(groups, lr=3e-3, weight_decay=0.01, betas=(0.8, 0.95)),
            "sgd": lambda: torch.optim.SGD(groups, lr=3e-2, momentum=0.9), "plain_sgd": lambda: torch.optim.SGD(groups, lr=3e-2),
            "cpu_adam": lambda: deepspeed.ops.adam.DeepSpeedCPUAdam(groups, lr=3e-3, weight_decay=0.01, betas=(0.8, 0.95)),
            "config": lambda: None}[case.get("optimizer", "adamw")]
    optimizer = make()
    return deepspeed.initialize(model=model, optimizer=optimizer, model_parameters=None if optimizer else groups, config=config)[0]


def train(engine, case):
    tokens = torch.randint(0, WORDS, (2, 16), generator=torch.Generator().manual_seed(7 + dist.get_rank()))
    for _ in range(case.get("steps", 3)):
        loss = engine(input_ids=tokens, labels=tokens).loss if case.get("hf") else engine(tokens)
        engine.backward(loss)
        engine.step()


def truth_of(engine, case):
    """As the job itself has it. Masters and moments are gathered by adding zeros, which loses the sign of -0.0."""
    out = {"model": {}, "master": {}, "exp_avg": {}, "exp_avg_sq": {}, "buffers": {}, "order": [], "steps": case.get("steps", 3)}
    if case["stage"] < 3:  # DeepSpeed links a group's moments in the first step of all, before later groups have any
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    for name, parameter in engine.module.named_parameters(remove_duplicate=False):
        out["order"].append(name)
        with deepspeed.zero.GatheredParameters([parameter], enabled=case["stage"] == 3):
            out["model"][name] = parameter.detach().clone()
        if not parameter.requires_grad or any(part in name for part in case.get("unowned", [])):
            continue
        out["master"][name] = safe_get_full_fp32_param(parameter)
        for kind in ("exp_avg", "exp_avg_sq") if case.get("optimizer", "adamw") in ("adamw", "cpu_adam", "config") and out["steps"] else ():
            out[kind][name] = safe_get_full_optimizer_state(parameter, kind)
    out["buffers"] = {name: b for name, b in engine.module.state_dict().items() if name in dict(engine.module.named_buffers())}
    return out


def main():
    cases, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    deepspeed_logger.setLevel("ERROR")
    deepspeed.init_distributed(dist_backend="gloo")
    for case in sorted(cases, key=lambda case: case["stage"]):
        try:
            engine = new_engine(case)
            train(engine, case)
            engine.save_checkpoint(str(out / case["name"]), client_state=case.get("client", {}),
                                   exclude_frozen_parameters=case.get("exclude", False))
            truth = truth_of(engine, case)
        except Exception:
            print(f"case {case['name']}, rank {dist.get_rank()}:\n{traceback.format_exc()}", flush=True)
            os._exit(1)  # the other ranks may wait for this one for ever: the launcher ends them
        if dist.get_rank() == 0:
            torch.save(truth, out / f"{case['name']}.truth.pt")
    leave()


if __name__ == "__main__":
    main()
