# SPDX-License-Identifier: Apache-2.0
"""Gives every element of a file an identity, so that a loaded module tells where each of its elements came from.

fp32 holds integers up to 2^24 exactly. One load has in each element the number of its tensor, another its place in
the tensor; both lie far from the values that transformers initialises with, so that an element from nowhere is known
as such.
"""

import collections
import os

import numpy as np
import torch
from safetensors.torch import load_file, save_file

TENSOR_BASE, TENSOR_STEP = 1 << 20, 64
PLACE_BASE = -(1 << 24)
INTEGER_BASE = 1000
NOWHERE, CHANGED = -1, -2


def codes(shapes, what, same):
    """{name: tensor of codes}. what: "tensor" or "place". same: names whose tensor is another one's too (tied in the
    file)."""
    names, out = list(shapes), {}
    for number, (name, shape) in enumerate(shapes.items()):
        number = names.index(same[name]) if name in same else number
        size = int(np.prod(shape)) if shape else 1
        if size > -2 * PLACE_BASE - number:
            raise ValueError("a tensor of more than 32 million elements")
        if what == "tensor":
            out[name] = torch.full((size,), TENSOR_BASE + TENSOR_STEP * number, dtype=torch.float32).reshape(shape)
        else:
            begin = PLACE_BASE + number
            out[name] = torch.arange(begin, begin + size, dtype=torch.float64).float().reshape(shape)
    return out


def decode(tensor_codes, place_codes, count):
    """(number of the tensor, or NOWHERE, or CHANGED; place in it) of each element."""
    tensors, places = tensor_codes.double().numpy(), place_codes.double().numpy()
    number = np.round((tensors - TENSOR_BASE) / TENSOR_STEP)
    distance = np.abs(tensors - TENSOR_BASE - number * TENSOR_STEP)
    near = (number >= 0) & (number < count) & (distance < TENSOR_STEP / 4)
    place = places - PLACE_BASE - number
    exact = near & (distance == 0) & (place >= 0) & (place == np.round(place))
    number = np.where(exact, number, np.where(near, CHANGED, NOWHERE)).astype(np.int32)
    return number, np.where(number >= 0, place, 0).astype(np.int64)


def read_folder(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            out.update(load_file(os.path.join(folder, name)))
    return out


def load(cls, folder, tensors, any_shape=False):
    """(model, loading info) of from_pretrained with these tensors beside the folder's config.json.

    any_shape: a tensor whose shape does not fit is left out. Without it, that is an error."""
    for name in os.listdir(folder):
        if name.endswith((".safetensors", ".index.json")):
            os.remove(os.path.join(folder, name))
    save_file(
        {k: v.contiguous() for k, v in tensors.items()},
        os.path.join(folder, "model.safetensors"),
        metadata={"format": "pt"},
    )
    torch.manual_seed(3)
    return cls.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=any_shape)


def parameters(model):
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


def kept_buffers(model):
    """The persistent ones, which are in files."""
    kept = model.state_dict().keys()
    return {name: tensor.detach() for name, tensor in model.named_buffers() if name in kept}


def floats(model):
    return {k: v for k, v in {**parameters(model), **kept_buffers(model)}.items() if v.is_floating_point()}


def aliases(model):
    """{later name: name in named_parameters()} of parameters with several names."""
    first = {id(tensor): name for name, tensor in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: first[id(tensor)] for name, tensor in every if first[id(tensor)] != name}


def numbered_integers(integers):
    """Tensors of integers have their number as all their values; booleans and bytes stay what they are."""
    wide = {torch.int64, torch.int32, torch.int16}
    return {
        name: torch.full_like(t, INTEGER_BASE + n) if t.dtype in wide else t
        for n, (name, t) in enumerate(integers.items())
    }


class Trace:
    """Where the elements of a loaded module come from: of: {parameter or buffer: (numbers, places)}, integers:
    {buffer: tensor of the file}."""

    def __init__(self, cls, folder, shapes, integers, same, any_shape=False):
        got = collections.defaultdict(list)
        for what in ("tensor", "place"):
            tensors = {**codes(shapes, what, same), **numbered_integers(integers)}
            self.model, self.info = load(cls, folder, tensors, any_shape)
            for name, tensor in floats(self.model).items():
                got[name].append(tensor)
        self.of = {name: decode(*pair, len(shapes)) for name, pair in got.items()}
        names = list(integers)
        self.integers = {}
        for name, tensor in kept_buffers(self.model).items():
            if not tensor.is_floating_point():
                value = int(tensor.flatten()[0]) - INTEGER_BASE if tensor.numel() else -1
                self.integers[name] = names[value] if 0 <= value < len(names) else None
