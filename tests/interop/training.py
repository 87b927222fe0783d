# SPDX-License-Identifier: Apache-2.0
"""The steps that the judges of DeepSpeed jobs train."""
import torch

STEPS = 5


def train(engine):
    """Trains on tokens that are the same in every job; gives the loss of each step."""
    tokens = torch.randint(0, engine.module.config.get_text_config().vocab_size, (2, 16), generator=torch.Generator().manual_seed(7))
    torch.manual_seed(5)  # of dropout
    losses = []
    for _ in range(STEPS):
        loss = engine(input_ids=tokens, labels=tokens).loss
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    return losses
