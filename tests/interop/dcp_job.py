# SPDX-License-Identifier: Apache-2.0
"""What a job on several ranks does with a distributed checkpoint, as its users write it:

    torchrun --nproc_per_node=N dcp_job.py load HF_FOLDER RESULT.json PREFIX=FOLDER...
    torchrun --nproc_per_node=N dcp_job.py save HF_FOLDER OUT_FOLDER
    torchrun --nproc_per_node=N dcp_job.py mesh OUT_FOLDER
    torchrun --nproc_per_node=N dcp_job.py accelerate HF_FOLDER CHECKPOINT OUT_FOLDER

load: an FSDP2 model of random weights loads each folder, whose state dict has the model below the keys PREFIX, and RESULT.json
gets for each the names that differ from from_pretrained(HF_FOLDER). save: trains two steps and saves model and optimizer, and
the whole tensors of both to OUT_FOLDER/whole.pt. mesh: tensors spread over two dimensions of ranks, and the same as safetensors in OUT_FOLDER/hf. accelerate: a model of
random weights loads CHECKPOINT as accelerate's load_state does, trains a step, and saves to OUT_FOLDER as save_state does;
whole.pt has the loaded weights, and both states in the end.
"""
import json
import sys
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from transformers import AutoConfig, AutoModelForCausalLM

from job_end import leave

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def fsdp_model(config, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for layer in model.model.layers:
        fully_shard(layer)
    return fully_shard(model)


def nested(prefix, state):
    for key in reversed([key for key in prefix.split(".") if key]):
        state = {key: state}
    return state


def train(model, optimizer, steps):
    tokens = torch.randint(0, 259, (2, 16), generator=torch.Generator().manual_seed(7))
    for _ in range(steps):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def load(source, result, *folders):
    want = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).state_dict()
    model = fsdp_model(AutoConfig.from_pretrained(source, dtype=torch.float32), seed=1)
    differing = {}
    for folder in folders:
        prefix, path = folder.split("=", 1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        state = get_model_state_dict(model)
        dcp.load(nested(prefix, state), checkpoint_id=path)
        set_model_state_dict(model, state)
        whole = get_model_state_dict(model, options=WHOLE)
        differing[path] = [] if dist.get_rank() else [
            name for name in want.keys() | whole.keys()
            if name not in whole or name not in want or not torch.equal(whole[name], want[name])]
    if dist.get_rank() == 0:
        with open(result, "w") as file:
            json.dump({"names": list(want), "differing": differing}, file)


def save(source, out):
    model = fsdp_model(AutoConfig.from_pretrained(source, dtype=torch.float32), seed=2)
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.125},
              {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0, "lr": 0.25}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.875, 0.95))
    train(model, optimizer, steps=2)
    state, optimizer_state = get_state_dict(model, optimizer)
    dcp.save({"app": {"model": state, "optim": optimizer_state}, "note": "x"}, checkpoint_id=out)
    whole = get_state_dict(model, optimizer, options=WHOLE)
    if dist.get_rank() == 0:
        torch.save(whole, f"{out}/whole.pt")


def mesh(out):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    ranks = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("a", "b"))
    generator = torch.Generator().manual_seed(5)
    whole, state = {}, {}
    for name, shape, placements in [("rows.columns", (7, 9), (Shard(0), Shard(1))), ("columns.rows", (9, 7), (Shard(1), Shard(0))),
                                    ("columns.twice", (5, 11), (Shard(1), Shard(1))), ("rows.few", (1, 6), (Shard(0), Shard(1))),
                                    ("middle.last", (3, 5, 4), (Shard(1), Shard(2))), ("copied.rows", (6, 3), (Replicate(), Shard(0))),
                                    ("copied.whole", (4, 4), (Replicate(), Replicate()))]:
        whole[name] = torch.randn(shape, generator=generator)
        state[name] = distribute_tensor(whole[name], ranks, placements)
    dcp.save(state, checkpoint_id=out)
    files = {name: 1 + i % 2 for i, name in enumerate(state)}
    dcp.save(state, storage_writer=dcp.HuggingFaceStorageWriter(f"{out}/hf", files, save_distributed=True))
    if dist.get_rank() == 0:
        torch.save(whole, f"{out}/whole.pt")


def accelerate(source, checkpoint, out):
    from accelerate import FullyShardedDataParallelPlugin, PartialState
    from accelerate.utils import load_fsdp_model, save_fsdp_model, save_fsdp_optimizer

    PartialState(cpu=True)  # which accelerate's log asks for
    # What accelerate's own functions ask of an Accelerator, which itself does not shard on CPUs.
    accelerator = SimpleNamespace(is_fsdp2=True, num_processes=dist.get_world_size(), process_index=dist.get_rank(),
                                  is_main_process=dist.get_rank() == 0, wait_for_everyone=dist.barrier)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type="SHARDED_STATE_DICT")
    model = fsdp_model(AutoConfig.from_pretrained(source, dtype=torch.float32), seed=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    load_fsdp_model(plugin, accelerator, model, checkpoint)
    loaded = get_model_state_dict(model, options=WHOLE)
    train(model, optimizer, steps=1)
    save_fsdp_model(plugin, accelerator, model, out)
    save_fsdp_optimizer(plugin, accelerator, optimizer, model, out)
    whole = get_state_dict(model, optimizer, options=WHOLE)
    if dist.get_rank() == 0:
        torch.save((loaded, *whole), f"{out}/whole.pt")


if __name__ == "__main__":
    dist.init_process_group("gloo")
    {"load": load, "save": save, "mesh": mesh, "accelerate": accelerate}[sys.argv[1]](*sys.argv[2:])
    leave()
