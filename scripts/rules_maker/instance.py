# SPDX-License-Identifier: Apache-2.0
"""One tiny checkpoint of a class, and what from_pretrained makes of it."""

import json
import os
import shutil

import torch
from transformers import Trainer

from rules_maker.codes import Trace, aliases, kept_buffers, parameters, read_folder
from rules_maker.names import NUMBER, numbered


def flat(values, prefix=""):
    """{dotted key: value} of config.json."""
    out = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out


def integers(config):
    """The keys of config.json that may be sizes: 0 and 1 say too little."""
    return {k: v for k, v in flat(config).items() if type(v) is int and v > 1}


def containers(model):
    """{place of a module with numbered members: {(whether they may be layers, whether each is of another class, their
    number)}}."""
    out = {}
    for name, module in model.named_modules():
        members = [
            (int(k), m) for k, m in module.named_children() if k.isdigit() and next(m.parameters(), None) is not None
        ]
        if members:
            classes = len({type(m) for _, m in members})
            counted = [n for n, _ in members] == list(range(len(members)))
            layers = counted and (classes == 1 or not isinstance(module, torch.nn.Sequential))
            out.setdefault(numbered(name), set()).add((layers, classes == len(members) > 1, len(members)))
    return out


def without_decay(model):
    """Parameters that the Trainer exempts because of their module's class: a module that has the same names alone
    keeps them."""
    decay = lambda m: set(Trainer.get_decay_parameter_names(None, m))
    twin = torch.nn.Module()
    for name, _ in model.named_parameters():
        *path, last = name.split(".")
        module = twin
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_parameter(last, torch.nn.Parameter(torch.empty(0)))
    return decay(twin) - decay(model)


class Module:
    """What of a module the rules speak of, without its values."""

    def __init__(self, model, config):
        self.config, self.integers = config, integers(config)
        self.order, self.aliases = list(parameters(model)), aliases(model)
        self.names = [*self.order, *self.aliases]
        self.shapes = {k: tuple(v.shape) for k, v in model.named_parameters(remove_duplicate=False)}
        self.buffers = {k: tuple(v.shape) for k, v in kept_buffers(model).items()}
        self.computed = [k for k, _ in model.named_buffers() if k not in self.buffers]
        self.containers = containers(model)

    def shape(self, name):
        """Of a parameter or a buffer."""
        return self.shapes.get(name) or self.buffers.get(name) or ()

    def layers(self):
        """{place before a number: {name before it: numbers}}."""
        out = {}
        for name in [*self.names, *self.buffers]:
            for match in NUMBER.finditer(name):
                prefix = name[: match.start()]
                out.setdefault(numbered(prefix), {}).setdefault(prefix, set()).add(int(match[0]))
        return out


class Instance(Module):
    """A checkpoint as save_pretrained writes it, with where each element of the loaded module came from."""

    def __init__(self, tag, cls, model, folder):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        model.save_pretrained(folder)
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
            config = json.load(f)
        super().__init__(model, config)
        self.tag, self.folder, self.model = tag, folder, model
        file = read_folder(folder)
        self.values = {k: v.float() for k, v in file.items() if v.is_floating_point()}
        self.others = {k: v for k, v in file.items() if not v.is_floating_point()}
        self.file = {k: tuple(v.shape) for k, v in self.values.items()}
        self.same = equal_tensors(self.values)
        self.decay_exempt = without_decay(model)
        self.trace = Trace(cls, folder, self.file, self.others, self.same)
        loaded = self.trace.model
        if list(parameters(loaded)) != self.order:
            raise ValueError("the loaded module has other parameters than the saved one")


def equal_tensors(values):
    """{name: earlier name} of tensors that are stored twice: of tied parameters. Constants are no evidence."""
    first, out = {}, {}
    for name, tensor in values.items():
        if tensor.numel() > 1 and (tensor != tensor.flatten()[0]).any():
            earlier = first.setdefault((tuple(tensor.shape), tensor.numpy().tobytes()), name)
            if earlier != name:
                out[name] = earlier
    return out
