# SPDX-License-Identifier: Apache-2.0
"""Trains small models on ranks that share a model, and lets DeepSpeed save them: what the zero reader puts together.

    torchrun --nproc_per_node=W parallel_job.py CASES.json OUT

A case is a dict; all but name may be left out:
    name        OUT/NAME is its checkpoint, OUT/NAME.truth.pt what the job itself had
    tensor      ranks that share each layer (AutoTP)
    stages      ranks that hold some layers each (PipelineModule, with ZeRO 1)
    shares      of a pipeline: ranks that share each layer, as in Megatron: each has shares of its own, and
                universal_checkpoint_info says how they are one parameter
    stage       ZeRO 1, 2 or 3
    dtype       bf16 or fp32
    groups      optimizer groups: 1, or 2 (without weight decay for biases and norms)
    model       changes of the config of the small Llama; `model_type` chooses another of transformers
    frozen      parameters with one of these in their names do not train
    tied        of a pipeline: whether the head is the embedding, on another rank
    config      more of DeepSpeed's config
    steps       optimizer steps before the save; 0: the model as it began

The truth: what the whole model was before it was shared out, and the names of its parameters in their order. Of a pipeline also
each layer's state as its rank has it after training. All cases of a world size share a process.
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
from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
from deepspeed.utils import logger as deepspeed_logger

from job_end import leave

DTYPE = {"bf16": torch.bfloat16, "fp32": torch.float32}
WORDS = 30
LLAMA = {"vocab_size": WORDS, "hidden_size": 24, "intermediate_size": 22, "num_hidden_layers": 2, "num_attention_heads": 6,
         "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 32, "attention_bias": True, "tie_word_embeddings": False}


def is_plain(name):
    return name.endswith("bias") or "norm" in name


def optimizer_groups(named, case):
    if case.get("groups", 1) == 1:
        return [{"params": [p for _, p in named]}]
    return [{"params": [p for n, p in named if not is_plain(n)]}, {"params": [p for n, p in named if is_plain(n)], "weight_decay": 0.0}]


def config_of(case):
    zero = {"stage": case["stage"]}
    if case["stage"] == 3:
        zero["stage3_param_persistence_threshold"] = 20
    return {"train_micro_batch_size_per_gpu": 2, "zero_optimization": zero, "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False, "steps_per_print": 10**9, "bf16": {"enabled": case.get("dtype", "bf16") == "bf16"},
            **case.get("config", {})}


# ---- layers that ranks share

def new_llama(case):
    from transformers import AutoConfig, AutoModelForCausalLM
    torch.manual_seed(11)
    changes = dict(case.get("model", {}))
    kind = changes.pop("model_type", "llama")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **({**LLAMA, **changes} if kind == "llama" else changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_plain(name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in case.get("frozen", [])))
    return model.to(DTYPE[case.get("dtype", "bf16")]).train()


def tensor_parallel(case, out):
    model = new_llama(case)
    truth = {"before": {n: p.detach().clone() for n, p in model.named_parameters()}, "order": [n for n, _ in model.named_parameters()],
             "all": [n for n, _ in model.named_parameters(remove_duplicate=False)]}
    if "model_type" not in case.get("model", {}):
        model.config.architectures = [type(model).__name__]  # of others a rule changes names
    model.config.save_pretrained(out / case["name"])
    # DeepSpeed makes its groups of ranks once in a process.
    deepspeed.utils.groups._TENSOR_MODEL_PARALLEL_GROUP = deepspeed.utils.groups._DATA_PARALLEL_GROUP = None
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = optimizer_groups(named, case)
    optimizer = torch.optim.AdamW(groups, lr=3e-3, weight_decay=0.01)
    config = {**config_of(case), "tensor_parallel": {"autotp_size": case["tensor"], **case.get("tensor_config", {})}}
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    data_rank = dist.get_rank() // case["tensor"]
    tokens = torch.randint(0, WORDS, (2, 16), generator=torch.Generator().manual_seed(7 + data_rank))
    for _ in range(case.get("steps", 2)):
        engine.backward(engine(input_ids=tokens, labels=tokens).loss)
        engine.step()
    engine.save_checkpoint(str(out / case["name"]))
    return truth


# ---- layers that ranks have

class Embed(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, 8)

    def forward(self, tokens):
        return self.words(tokens)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(8, 11), nn.Linear(11, 8), nn.LayerNorm(8)
        self.register_buffer("scale", torch.tensor(0.75))

    def forward(self, x):
        return x + self.scale.to(x.dtype) * self.down(torch.relu(self.up(self.norm(x))))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(8, WORDS, bias=False)

    def forward(self, x):
        return self.out(x)


def to_words(module, x):
    return x @ module.words.weight.t()


# ---- layers that ranks share by themselves: each rank trains its shares without the others, for what counts here is the files
SHARES_INFO = {
    "universal_checkpoint_version": 0.2, "original_vocab_size": WORDS, "padded_vocab_size": 32,
    "vocabulary_parameter_patterns": [r"0\.words\.weight"],
    "tp_replicated_parameter_patterns": [r"\d+\.same"],
    "parameter_to_average_patterns": [r"\d+\.mean$"],
    "parameter_with_row_parallelism_patterns": [r"\d+\.row$"],
    "parameter_with_2_sub_params_cat_dim_0": [r"\d+\.glu$"],
    "parameter_with_sub_params": [{"patterns": [r"\d+\.qkv$"], "shape": [(8, 4, 4), 8], "partition_dim": 0},
                                  {"patterns": [r"\d+\.wide$"], "shape": [8, (6, 4)], "partition_dim": 1}]}


class SharedEmbed(nn.Module):
    def __init__(self, rank):
        super().__init__()
        self.words = nn.Embedding(16, 8)  # of 32 words, two of them padding

    def forward(self, tokens):
        return self.words(tokens % 16)


class SharedBlock(nn.Module):
    def __init__(self, rank):
        super().__init__()
        values = torch.Generator().manual_seed(100 + rank)
        new = lambda *shape: nn.Parameter(torch.randn(shape, generator=values) * 0.1)
        self.column, self.row, self.glu, self.qkv, self.wide, self.mean = new(5, 8), new(8, 6), new(6, 8), new(8, 8), new(8, 5), new(8)
        self.same = nn.Parameter(torch.linspace(-1, 1, 8))
        self.register_buffer("scale", torch.tensor(0.75))

    def forward(self, x):
        used = [x @ self.column.t(), x @ self.row, x @ self.glu.t(), x @ self.qkv.t(), x @ self.wide]
        return self.scale * x + sum(u.mean(-1, keepdim=True) for u in used) + self.mean + 0 * self.same


class SharedHead(nn.Module):
    def __init__(self, rank):
        super().__init__()
        self.out = nn.Linear(8, 15, bias=False)

    def forward(self, x):
        return self.out(x)


def layers_of(case):
    if "shares" in case:
        rank = dist.get_rank() % case["shares"]
        return [LayerSpec(SharedEmbed, rank), LayerSpec(SharedBlock, rank), LayerSpec(SharedBlock, rank), LayerSpec(SharedBlock, rank),
                LayerSpec(SharedHead, rank)]
    tied = case.get("tied", False)
    return [TiedLayerSpec("embed", Embed, tied_weight_attr="words.weight") if tied else LayerSpec(Embed),
            LayerSpec(Block), lambda x: x * 1.5, LayerSpec(Block), LayerSpec(Block), nn.LayerNorm(8),
            TiedLayerSpec("embed", Embed, forward_fn=to_words, tied_weight_attr="words.weight") if tied else LayerSpec(Head)]


def pipeline(case, out):
    torch.manual_seed(11)
    shares = case.get("shares", 1)
    n_data = dist.get_world_size() // (case["stages"] * shares)
    where = {"num_stages": case["stages"]}
    if "shares" in case:
        where = {"topology": PipeModelDataParallelTopology(num_pp=case["stages"], num_mp=shares, num_dp=n_data)}
    loss = lambda x, y: nn.functional.cross_entropy(x.float().flatten(0, 1), (y % x.shape[-1]).flatten())
    model = PipelineModule(layers_of(case), **where, loss_fn=loss, partition_method="uniform", base_seed=5, seed_layers=True)
    model = model.to(DTYPE[case.get("dtype", "bf16")])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in case.get("frozen", [])))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(optimizer_groups(named, case), lr=3e-3, weight_decay=0.01)
    config = {"gradient_accumulation_steps": 2, "pipeline": {"pipe_partitioned": False, "grad_partitioned": False}, **config_of(case)}
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    tokens = torch.randint(0, WORDS, (2, 16), generator=torch.Generator().manual_seed(7 + engine.grid.get_data_parallel_rank()))
    batches = iter([(tokens, tokens.roll(-1, 1))] * 100)
    for _ in range(case.get("steps", 2)):
        engine.train_batch(batches)
    client = {**case.get("client", {}), **({"universal_checkpoint_info": SHARES_INFO} if "shares" in case else {})}
    engine.save_checkpoint(str(out / case["name"]), client_state=client)
    mine = {"rank": engine.grid.get_model_parallel_rank(), "model": {n: t.detach().clone() for n, t in engine.module.state_dict().items()},
            "master": {n: deepspeed.utils.safe_get_full_fp32_param(p) for n, p in engine.module.named_parameters() if p.requires_grad}}
    everyones = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, mine)
    return {"ranks": everyones}


def main():
    cases, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    deepspeed_logger.setLevel("ERROR")
    deepspeed.init_distributed(dist_backend="gloo")
    for case in sorted(cases, key=lambda case: case["stage"]):
        try:
            truth = tensor_parallel(case, out) if "tensor" in case else pipeline(case, out)
        except Exception:
            print(f"case {case['name']}, rank {dist.get_rank()}:\n{traceback.format_exc()}", flush=True)
            os._exit(1)  # the other ranks may wait for this one for ever: the launcher ends them
        if dist.get_rank() == 0:
            torch.save(truth, out / f"{case['name']}.truth.pt")
    leave()


if __name__ == "__main__":
    main()
