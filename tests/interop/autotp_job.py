"""Trains a Hugging Face model cut over all ranks by DeepSpeed's AutoTP, and saves it.

    torchrun --nproc_per_node=W autotp_job.py MODEL STAGE OUT
"""
import sys

import torch

torch.set_num_threads(1)

import deepspeed
from transformers import AutoModelForCausalLM

from job_end import leave

LR, STEPS = 1e-3, 2


def main():
    folder, stage, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    deepspeed.init_distributed(dist_backend="gloo")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}, "zero_force_ds_cpu_optimizer": False,
              "tensor_parallel": {"autotp_size": torch.distributed.get_world_size()},
              "optimizer": {"type": "AdamW", "params": {"lr": LR, "torch_adam": True, "weight_decay": 0.0}}}
    engine = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)[0]
    tokens = torch.arange(16).view(1, 16)
    for _ in range(STEPS):
        engine.backward(engine(input_ids=tokens, labels=tokens).loss)
        engine.step()
    engine.save_checkpoint(out)
    leave()


if __name__ == "__main__":
    main()
