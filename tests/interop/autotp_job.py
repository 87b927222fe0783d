# SPDX-License-Identifier: Apache-2.0
"""Trains a small Llama that DeepSpeed's AutoTP cuts over all ranks, and saves it.

    torchrun --nproc_per_node=W autotp_job.py STAGE OUT

OUT/begun.pt is its state dict before the first step.
"""
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)

import deepspeed
from transformers import LlamaConfig, LlamaForCausalLM

from job_end import leave

LR, STEPS = 1e-3, 2


def main():
    stage, out = int(sys.argv[1]), Path(sys.argv[2])
    deepspeed.init_distributed(dist_backend="gloo")
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                         num_key_value_heads=2, tie_word_embeddings=False))
    if torch.distributed.get_rank() == 0:
        out.mkdir()
        torch.save(model.state_dict(), out / "begun.pt")
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}, "zero_force_ds_cpu_optimizer": False,
              "tensor_parallel": {"autotp_size": torch.distributed.get_world_size()},
              "optimizer": {"type": "AdamW", "params": {"lr": LR, "torch_adam": True, "weight_decay": 0.0}}}
    engine = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)[0]
    tokens = torch.arange(16).view(1, 16)
    for _ in range(STEPS):
        engine.backward(engine(input_ids=tokens, labels=tokens).loss)
        engine.step()
    engine.save_checkpoint(str(out))
    leave()


if __name__ == "__main__":
    main()
