# SPDX-License-Identifier: Apache-2.0
"""Applies a rule's text to the tensors of a file: what the module's parameters are then, in order. Tests hold it
against transformers."""

import itertools
import re

import numpy as np

from rules_maker.names import Pattern, Tree, VARIABLE, fill


class Wrong(Exception):
    """The rule does not fit the file."""


def look_up(config, key):
    """The value of a key of config.json; a dot leads into a map. A plain key is also looked for in text_config."""
    value = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None and "." not in key and isinstance(config.get("text_config"), dict):
        value = config["text_config"].get(key)
    return value


def number(text, config):
    """A size: a number, or a sum of products and quotients of numbers and variables."""
    return sum(product(part, config) for part in text.split("+"))


def product(text, config):
    pieces = re.split(r"([*/])", text)
    value = 1
    for operator, piece in zip(["*", *pieces[1::2]], pieces[::2]):
        n = look_up(config, piece[8:-1]) if piece.startswith("{config.") else int(piece)
        if type(n) is not int:
            raise Wrong(f"config.json has no number {piece}")
        value = value * n if operator == "*" else value // n
    return value


def sizes(texts, config):
    return [-1 if text == "?" else number(text, config) for text in texts]


def operate(tensor, op, config):
    """One operation, on a numpy array."""
    ((kind, (arg,)),) = op.items()
    first = lambda name: arg.get(name, [0])[0]
    if kind == "transpose":
        return tensor.T
    if kind == "permute":
        return tensor.transpose(arg["dim"])
    if kind == "squeeze":
        return tensor.squeeze(arg)
    if kind == "unsqueeze":
        return np.expand_dims(tensor, arg)
    if kind == "reshape":
        return tensor.reshape(sizes(arg["size"], config))
    if kind == "chunk":
        if tensor.shape[first("dim")] % first("of"):
            raise Wrong("a chunk is no equal part")
        return np.split(tensor, first("of"), first("dim"))[first("index")]
    if kind == "slice":
        begin, size = number(first("begin"), config), number(first("size"), config)
        return tensor.take(range(begin, begin + size), first("dim"))
    if kind == "split":
        dim = first("dim")
        return tensor.reshape(
            [*tensor.shape[:dim], *expand(tensor.shape[dim], sizes(arg["size"], config)), *tensor.shape[dim + 1 :]]
        )
    if kind == "merge":
        dim, count = first("dim"), first("count")
        return tensor.reshape(
            [*tensor.shape[:dim], int(np.prod(tensor.shape[dim : dim + count])), *tensor.shape[dim + count :]]
        )
    if kind == "unpermute_rows":
        heads, shape = number(arg, config), tensor.shape
        return np.swapaxes(tensor.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]), 1, 2).reshape(shape)
    raise Wrong(f"unknown operation {kind}")


def expand(whole, parts):
    """Sizes with the open one (-1) filled in."""
    rest = int(np.prod([n for n in parts if n > 0]))
    return [whole // rest if n < 0 else n for n in parts]


def leaves(part):
    """The names of an expression's stored tensors."""
    return part["from"] if "from" in part else [name for inner in part["part"] for name in leaves(inner)]


def variable_count(name):
    return max((len(sign) for sign, _ in VARIABLE.findall(name)), default=0)


class File:
    """Stored tensors and config.json, to which rules are applied."""

    def __init__(self, tensors, config):
        self.tensors, self.config = tensors, config

    def value(self, part, numbers):
        """The tensor that a Part gives; None when the file lacks any of it."""
        if "from" in part:
            name = fill(part["from"][0], numbers)
            tensor = self.tensors.get(name)
        elif "stack" in part:
            tensor = self.stacked(part["part"], numbers)
        else:
            values = [self.value(inner, numbers) for inner in part["part"]]
            tensor = None if any(v is None for v in values) else np.concatenate(values, part["concat"][0])
        for op in part.get("op", []):
            tensor = None if tensor is None else operate(tensor, op, self.config)
        return tensor

    def stacked(self, parts, numbers):
        items = []
        for part in parts:
            if max(map(variable_count, leaves(part))) <= len(numbers):
                items.append(self.value(part, numbers))
                continue
            for expert in itertools.count():
                value = self.value(part, [*numbers, expert])
                if value is None:
                    break
                items.append(value)
        return None if not items or any(v is None for v in items) else np.stack(items)

    def numbers_of(self, template, part):
        """All numbers of the template for which the file may have the part: those of its first tensor."""
        pattern, count = Pattern(leaves(part)[0]), variable_count(template)
        found = (pattern.numbers(name) for name in self.tensors)
        return {
            tuple(n[i + 1] for i in range(count))
            for n in found
            if n is not None and all(i + 1 in n for i in range(count))
        }

    def dims_hold(self, dims, shape):
        """Whether the shape is what config.json says, where it says anything."""
        if len(dims) != len(shape):
            return not dims
        for text, size in zip(dims, shape):
            factor, _, key = text.rpartition("*")
            value = None if text == "?" else look_up(self.config, key)
            if type(value) is int and value * int(factor or 1) != size:
                return False
        return True

    def parameter(self, rule):
        """{name: tensor} of a Parameter or a buffer for all layers."""
        name, out = rule["name"][0], {}
        own = {"from": [name]}
        alternatives = rule.get("from", [])
        for numbers in sorted(set().union(*(self.numbers_of(name, part) for part in [*alternatives, own]))):
            same = self.value(own, numbers)
            for part in alternatives:
                value = self.value(part, numbers)
                if value is None:
                    continue
                relaid = leaves(part) == [name]  # its own name, but laid out otherwise
                if not relaid or not self.dims_hold(rule.get("dim", []), same.shape):
                    out[fill(name, numbers)] = value
                    break
            else:
                if same is not None:
                    out[fill(name, numbers)] = same
        return out


def tie(rule, values, config):
    """Parameters that are one are called by the first name. values: {name: (tensor, template)}."""
    for tied in rule.get("tied", []):
        when = tied.get("when", [None])[0]
        says = look_up(config, when) if when else True
        if not (tied.get("by_default", [False])[0] if says is None else says):
            continue
        pattern = Pattern(tied["name"][0])
        for name in list(values):
            numbers = pattern.numbers(name)
            first = numbers is not None and fill(tied["to"][0], [numbers[i + 1] for i in range(len(numbers))])
            if first:
                tensor, _ = values.pop(name)
                values.setdefault(first, (tensor, template_of(rule, first)))


def template_of(rule, name):
    return next(p["name"][0] for p in rule["parameter"] if Pattern(p["name"][0]).numbers(name) is not None)


def apply(rule, tensors, config):
    """({parameter: array} in the order of named_parameters(), {buffer: array}) of a parsed rule without a base
    architecture."""
    file = File(tensors, config)
    values, buffers = {}, {}
    for parameter in rule.get("parameter", []):
        values.update({name: (tensor, parameter["name"][0]) for name, tensor in file.parameter(parameter).items()})
    for buffer in rule.get("buffer", []):
        buffers.update(file.parameter(buffer))
    tie(rule, values, config)
    tree = Tree([p["name"][0] for p in rule.get("parameter", [])])
    return {name: values[name][0] for name in sorted(values, key=lambda n: tree.key(n, values[n][1]))}, buffers
