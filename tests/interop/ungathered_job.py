# SPDX-License-Identifier: Apache-2.0
"""Saves a model under ZeRO-3 without gathering it, as many a training script does by mistake.

    torchrun --nproc_per_node=1 ungathered_job.py HF_DIR OUT

Leaves OUT/pytorch_model.bin and OUT/ungathered.safetensors, whose parameters have no elements, and DeepSpeed's own checkpoint in
OUT/checkpoint.
"""
import sys

import deepspeed
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from job_end import leave

hf, out = sys.argv[1:]
deepspeed.init_distributed(dist_backend="gloo")
config = {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True},
          "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
          "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(hf), dtype=torch.bfloat16)
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
state = {name: t.detach().clone() for name, t in engine.module.state_dict().items()}
torch.save(state, f"{out}/pytorch_model.bin")
save_file(state, f"{out}/ungathered.safetensors")
engine.save_checkpoint(f"{out}/checkpoint")
leave()
