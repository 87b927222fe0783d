# SPDX-License-Identifier: Apache-2.0
"""What the judges of quantised checkpoints share: a case, and codes and scales that are the same in every run."""
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Quantised:
    name: str
    tensors: dict[str, torch.Tensor]  # what the file holds
    config: dict  # the quantization_config of config.json
    expected: Callable[[torch.dtype], dict[str, torch.Tensor]]  # by the reference, under the names of the plain model


class Random:
    """Codes and scales from a seed that the case's name gives."""

    def __init__(self, name):
        self.generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    def pick(self, values, shape):
        """Elements of values in random order; each at least once if they fit."""
        count = torch.Size(shape).numel()
        rest = torch.randint(len(values), (max(0, count - len(values)),), generator=self.generator)
        index = torch.cat([torch.randperm(len(values), generator=self.generator)[:count], rest])
        return values[index[torch.randperm(count, generator=self.generator)]].reshape(shape)

    def codes(self, shape, bits=8, without=()):
        """Unsigned codes, each at least once but those without."""
        return self.pick(torch.tensor([c for c in range(1 << bits) if c not in without]), shape)

    def bytes(self, shape, without=()):
        return self.codes(shape, without=without).to(torch.uint8)

    def words(self, shape):
        """int32 words of any bits."""
        return torch.randint(-(1 << 31), 1 << 31, shape, generator=self.generator).to(torch.int32)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def scales(self, shape, dtype=torch.float32, extreme=()):
        """Positive scales of many magnitudes, and each of the extreme ones somewhere."""
        count = torch.Size(shape).numel()
        exponents = torch.rand(count, generator=self.generator) * 16 - 14
        scales = torch.exp2(exponents.double())
        extreme = torch.tensor(extreme[:max(0, count - 1)], dtype=torch.float64)
        scales[torch.randperm(count, generator=self.generator)[:len(extreme)]] = extreme
        return scales.float().to(dtype).reshape(shape)


def plain(random, dtype=torch.bfloat16):
    """What no method quantises."""
    shapes = {"model.embed_tokens.weight": (40, 8), "model.norm.weight": (8,)}
    return {name: random.normal(*shape).to(dtype) for name, shape in shapes.items()}


def judged(tensors, reference):
    """expected() of a case: the plain tensors as they are, and what reference(dtype) gives for the quantised ones."""
    return lambda dtype: {name: t.to(dtype) for name, t in tensors.items()} | reference(dtype)
