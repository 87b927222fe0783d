# SPDX-License-Identifier: Apache-2.0
"""The judge: does an unpatched DeepSpeed train on from a converted folder exactly as it would from the original weights?

    torchrun --nproc_per_node=N deepspeed_judge.py CASES.json VERDICTS.json

A case is a dict:
    name       its key in the verdicts
    hf         the Hugging Face folder with the truth
    kind       of the folder made from it: universal or zero3
    folder     the folder
    stage      ZeRO 1, 2 or 3
    dtype      of the job: bf16 or fp32 (DeepSpeed refuses fp16 on a CPU)
    groups     optimizer groups: 1, or 2 (without weight decay for biases and norms)
    sub_group  elements of a sub-group of the optimizer, for stage 3; 0 for DeepSpeed's default
    buffer     whether the model has a buffer that is saved
    trainable  substrings of the only parameters that train; [] for all
    moments    whether the folder holds moments
    weights    cases with the same value start from the same weights, and share a baseline

A verdict says, over all ranks: which parameters are not bitwise the original after loading (`wrong_weights`: the model's
copy, `wrong_masters`: the fp32 one), which moments are not zero (`wrong_moments`), and how far the losses of five steps
are from those of a job that began with from_pretrained (`loss_difference`).

All cases of one world size share a process, since starting DeepSpeed takes longer than judging. Stage 3 goes last: it
replaces torch.nn.functional.linear for the rest of the process, which would change what other stages compute.
"""
import contextlib
import json
import math
import os
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

torch.set_num_threads(1)

import deepspeed
import transformers
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from deepspeed.utils import logger as deepspeed_logger
from transformers import AutoConfig

from job_end import leave
from recipes import read_folder
from training import train

DTYPE = {"bf16": torch.bfloat16, "fp32": torch.float32}


def same_bits(a, b):
    integer = {2: torch.int16, 4: torch.int32}
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(integer[a.element_size()]),
                                                                     b.contiguous().view(integer[b.element_size()]))


def true_weights(case, model):
    """{parameter name: the tensor the file holds for it}; a tied parameter may be stored under its other name. Of a file
    that has other tensors (experts one by one) what from_pretrained makes of them."""
    stored = read_folder(case["hf"])
    names = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    if any(not set(aliases) & set(stored) for aliases in names.values()):
        stored = {name: p.detach() for name, p in class_of(case).from_pretrained(case["hf"]).named_parameters()}
    return {aliases[0]: next(stored[name] for name in aliases if name in stored) for aliases in names.values()}


def class_of(case):
    return getattr(transformers, AutoConfig.from_pretrained(case["hf"]).architectures[0])


def new_model(case, from_hf):
    dtype = DTYPE[case["dtype"]]
    if from_hf:
        model = class_of(case).from_pretrained(case["hf"], dtype=dtype)
    else:
        torch.manual_seed(99)  # not the seed of the originals: what is not loaded shows
        model = class_of(case)._from_config(AutoConfig.from_pretrained(case["hf"]), dtype=dtype)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not case["trainable"] or any(part in name for part in case["trainable"]))
    if case["buffer"]:
        model.model.register_buffer("seen", torch.tensor([3, 1, 4] if from_hf else [0, 0, 0]))
    return model.train()


def new_engine(case, model, universal):
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [{"params": [p for _, p in named]}]
    if case["groups"] == 2:
        plain = lambda name: name.endswith("bias") or "norm" in name
        groups = [{"params": [p for name, p in named if not plain(name)]},
                  {"params": [p for name, p in named if plain(name)], "weight_decay": 0.0}]
    zero = {"stage": case["stage"]}
    if case["stage"] == 3:
        zero["stage3_param_persistence_threshold"] = 100  # else nothing this small is ever partitioned
        if case["sub_group"]:
            zero["sub_group_size"] = case["sub_group"]
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": 0.0,  # DeepSpeed clips at 1.0 unless told otherwise
        "steps_per_print": 10**9,
        "bf16": {"enabled": case["dtype"] == "bf16"},
        "checkpoint": {"load_universal": universal},
    }
    make = {"adamw": lambda: torch.optim.AdamW, "adam": lambda: torch.optim.Adam, "fused-adam": lambda: deepspeed.ops.adam.FusedAdam,
            "cpu-adam": lambda: deepspeed.ops.adam.DeepSpeedCPUAdam}[case.get("optimizer", "adamw")]()
    optimizer = make(groups, lr=3e-3, weight_decay=0.01)
    return deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]


def compare_state(case, engine, truth):
    """Lists every trainable parameter whose weights, fp32 master or moments are not what they must be."""
    wrong = {"wrong_weights": [], "wrong_masters": [], "wrong_moments": []}
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad and case["kind"] == "universal":
            continue
        whole = deepspeed.zero.GatheredParameters([parameter]) if case["stage"] == 3 else contextlib.nullcontext()
        with whole:
            if not same_bits(parameter.detach(), truth[name].to(DTYPE[case["dtype"]])):
                wrong["wrong_weights"].append(name)
        if not parameter.requires_grad:
            continue
        master = safe_get_full_fp32_param(parameter)
        # Equal values, not bits: DeepSpeed gathers a master by adding the ranks' pieces to zeros, which loses the sign of -0.0
        if master is None or not torch.equal(master, truth[name].float()):
            wrong["wrong_masters"].append(name)
        for moment in ("exp_avg", "exp_avg_sq") if case["moments"] else ():
            value = safe_get_full_optimizer_state(parameter, moment)
            if value is None or value.shape != truth[name].shape or value.count_nonzero():
                wrong["wrong_moments"].append(f"{name}.{moment}")
    return wrong


def judge(case, baselines):
    key = tuple(str(case.get(k)) for k in ("weights", "stage", "dtype", "groups", "sub_group", "trainable", "optimizer", "buffer"))
    if key not in baselines:
        engine = new_engine(case, new_model(case, from_hf=True), universal=False)
        own = case.get("save") and case["save"] + "-own"
        if own:  # nothing in it comes from our folder; but the optimizer has no state yet
            engine.save_checkpoint(own, tag="global_step0")
        baselines[key] = train(engine), own
    losses, own = baselines[key]
    # Frozen weights are never restored by a universal load, so a job that has them starts from the originals. Then only
    # what trains is made wrong first, for the load to put right.
    is_universal = case["kind"] == "universal"
    model = new_model(case, from_hf=is_universal and bool(case["trainable"]))
    truth = true_weights(case, model)
    with torch.no_grad():
        for parameter in model.parameters():
            if is_universal and parameter.requires_grad and case["trainable"]:
                parameter.fill_(0.5)
    engine = new_engine(case, model, universal=is_universal)
    path, _ = engine.load_checkpoint(case["folder"])
    verdict = {"loaded": path is not None, **compare_state(case, engine, truth)}
    if case["buffer"]:
        verdict["loaded"] &= engine.module.model.seen.tolist() == [3, 1, 4]
    if case.get("save"):
        engine.save_checkpoint(case["save"], tag="global_step0")
        verdict["own"] = own
    differences = [abs(a - b) for a, b in zip(train(engine), losses, strict=True)]
    # strict JSON has no infinity, and max() hides a NaN
    verdict["loss_difference"] = max(differences) if all(map(math.isfinite, differences)) else 1e30
    return verdict


def over_ranks(verdicts):
    """One verdict for all ranks: loaded if all did, wrong what is wrong anywhere, the largest difference."""
    merge = {bool: all, float: max, list: lambda lists: sorted(set(sum(lists, []))), str: max}
    return {key: merge[type(value)]([verdict[key] for verdict in verdicts]) for key, value in verdicts[0].items()}


def main():
    cases, verdicts_path = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    deepspeed_logger.setLevel("ERROR")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    deepspeed.init_distributed(dist_backend="gloo")
    baselines, verdicts = {}, {}
    for case in sorted(cases, key=lambda case: case["stage"]):
        try:
            verdict = judge(case, baselines)
        except Exception:
            # The other ranks may wait for this one for ever: leave, and the launcher ends them.
            print(f"case {case['name']}, rank {dist.get_rank()}:\n{traceback.format_exc()}", flush=True)
            os._exit(1)
        ranks = [None] * dist.get_world_size()
        dist.all_gather_object(ranks, verdict)
        verdicts[case["name"]] = over_ranks(ranks)
        if dist.get_rank() == 0:
            verdicts_path.write_text(json.dumps(verdicts, indent=1))
    leave()


main()
