# SPDX-License-Identifier: Apache-2.0
"""Whether a module is what its rule says: which parameters it has, their sizes, how many layers there are."""

from rules_maker.evaluate import File, look_up
from rules_maker.names import NUMBER, Pattern, layer_prefix, numbered


def faults(rule, names, shapes, config):
    """What is not so, in words. names: of named_parameters() and of those tied to them; shapes: of the former."""
    patterns = [Pattern(p["name"][0]) for p in rule.get("parameter", [])]
    having = {p.template: {n for n in names if p.numbers(n) is not None} for p in patterns}
    return [
        *of_sizes(rule, having, shapes, config),
        *of_optional(rule, having),
        *of_kinds(rule, having, names),
        *of_counts(rule, names, config),
        *of_gaps(rule, having),
    ]


def of_sizes(rule, having, shapes, config):
    file = File({}, config)
    for parameter in rule.get("parameter", []):
        for name in having[parameter["name"][0]]:
            if name in shapes and not file.dims_hold(parameter.get("dim", []), shapes[name]):
                yield f"{name}: its shape is {shapes[name]}, not {parameter['dim']}"


def of_optional(rule, having):
    groups = {}
    for parameter in rule.get("parameter", []):
        name = parameter["name"][0]
        for text in parameter.get("optional", []):
            groups.setdefault(text, set()).add(bool(having[name]))
        if not having[name] and "optional" not in parameter and "#" not in name:
            yield f"{name}: the module has it not"
    yield from (f"{text}: the module has some of these parameters" for text, have in groups.items() if len(have) > 1)


def of_kinds(rule, having, names):
    """The parameters of one kind are in the same layers, and each layer is one kind of a choice."""
    kinds = {}
    for parameter in rule.get("parameter", []):
        name = parameter["name"][0]
        # Of an optional one that the module has nowhere no layer says anything.
        if "kind" in parameter and (having[name] or "optional" not in parameter):
            prefix = layer_prefix(name)
            depth = prefix.count(".") + 1
            have = frozenset(".".join(n.split(".")[:depth]) for n in having[name])
            kinds.setdefault((prefix, parameter["kind"][0]), set()).add(have)
    yield from (f"{text}: a layer has some of these parameters" for (_, text), have in kinds.items() if len(have) > 1)
    for choice in rule.get("choice", []):
        chosen = [(prefix, have) for (prefix, text), sets in kinds.items() if text in choice["kind"] for have in sets]
        pattern = Pattern(chosen[0][0] + ".x") if chosen else None
        depth = chosen[0][0].count(".") + 1 if chosen else 0
        layers = {".".join(n.split(".")[:depth]) for n in names if n.count(".") >= depth}
        layers = {layer for layer in layers if pattern and pattern.numbers(layer + ".x") is not None}
        if sorted(layer for _, have in chosen for layer in have) != sorted(layers):
            yield f"{choice['kind']}: a layer is not exactly one of them"


def of_counts(rule, names, config):
    layers = {}
    for name in names:
        for match in NUMBER.finditer(name):
            prefix = name[: match.start()]
            layers.setdefault(numbered(prefix), {}).setdefault(prefix, set()).add(int(match[0]))
    for layer in rule.get("layers", []):
        count = look_up(config, layer["count"][0])
        for prefix, found in layers.get(numbered(layer["prefix"][0]), {}).items():
            if type(count) is int and found != set(range(count)):
                yield f"{prefix}: there are {len(found)} layers, not {count}"


def of_gaps(rule, having):
    """What is numbered has all numbers from 0 on, for those who look for what is missing."""
    rows = {}
    for parameter in rule.get("parameter", []):
        name = parameter["name"][0]
        if "kind" in parameter:
            continue
        pattern = Pattern(name)
        for own in having[name]:
            numbers = pattern.numbers(own)
            for variable in sorted(numbers):
                row = name[: name.index("#" * variable)], tuple(numbers[v] for v in range(1, variable))
                rows.setdefault(row, set()).add(numbers[variable])
    for (prefix, _), numbers in rows.items():
        if numbers != set(range(len(numbers))):
            yield f"{prefix}: its numbers have gaps"
