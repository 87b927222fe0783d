# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning with Hugging Face's Trainer on DeepSpeed stage 2, as a user writes it, twice:

    torchrun --nproc_per_node=N trainer_job.py HF_FOLDER UNIVERSAL_FOLDER RESULT.json

once from from_pretrained(HF_FOLDER), and once from random weights with resume_from_checkpoint=UNIVERSAL_FOLDER. RESULT.json
gets the losses of both, and the names of the weights that differ at the end.
"""
import json
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments, set_seed

from job_end import leave

STEPS = 5


class Tokens(torch.utils.data.Dataset):
    """Always the same batch, so that the order in which a resumed job reads its data plays no part."""

    def __len__(self):
        return 64

    def __getitem__(self, _):
        tokens = torch.randint(0, 259, (16,), generator=torch.Generator().manual_seed(7))
        return {"input_ids": tokens, "labels": tokens}


class KeepLosses(Trainer):
    """The Trainer logs rounded averages; this keeps every loss as it is."""

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


def train(source, output, resume=None):
    """Returns the losses, and the weights after the last step."""
    deepspeed = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": 2},
        "zero_allow_untested_optimizer": True,
        "checkpoint": {"load_universal": resume is not None},
    }
    arguments = TrainingArguments(output_dir=output, deepspeed=deepspeed, max_steps=STEPS, use_cpu=True, bf16=True,
                                  per_device_train_batch_size=2, learning_rate=3e-3, weight_decay=0.01,
                                  lr_scheduler_type="constant", optim="adamw_torch", logging_steps=1, save_strategy="no",
                                  report_to=[], disable_tqdm=True)
    set_seed(5)
    if resume:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source), dtype=torch.bfloat16)
    else:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    trainer = KeepLosses(model=model, args=arguments, train_dataset=Tokens())
    trainer.train(resume_from_checkpoint=resume)
    return trainer.losses, dict(trainer.model.named_parameters())


def main(source, universal, result):
    torch.set_num_threads(1)
    fresh, first = train(source, f"{result}.fresh")
    resumed, second = train(source, f"{result}.resumed", resume=universal)
    if torch.distributed.get_rank() == 0:
        different = [name for name in first if not torch.equal(first[name], second[name])]
        with open(result, "w") as file:
            json.dump({"fresh": fresh, "resumed": resumed, "different": different}, file)
    leave()


main(*sys.argv[1:])
