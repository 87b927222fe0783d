# SPDX-License-Identifier: Apache-2.0
"""Which parameters not every model of a class has (optional), and which not every layer has (kind, choice)."""

import itertools
import re

from rules_maker.instance import flat
from rules_maker.names import Pattern, VARIABLE, layer_prefix, split


class Presence:
    """Of which template each name of each instance is."""

    def __init__(self, templates, instances):
        self.instances, self.templates = instances, templates
        stars = {}
        for template in templates:
            stars.setdefault(split(VARIABLE.sub("0", template))[0], []).append(Pattern(template))
        self.having = {template: [set() for _ in instances] for template in templates}
        for i, instance in enumerate(instances):
            for name in instance.names:
                for pattern in stars.get(split(name)[0], []):
                    numbers = pattern.numbers(name)
                    if numbers is not None:
                        self.having[pattern.template][i].add(name)
                        break

    def layers(self, prefix):
        """[{name up to the layer's number}] for each instance."""
        pattern = Pattern(prefix + ".x")
        out = []
        for instance in self.instances:
            depth = len(prefix.split("."))
            own = {".".join(name.split(".")[:depth]) for name in instance.names if name.count(".") >= depth}
            out.append({layer for layer in own if pattern.numbers(layer + ".x") is not None})
        return out


def common_path(members):
    """The longest path that all members share, without their last part."""
    paths = [member.split(".")[:-1] for member in members]
    return ".".join(a[0] for a in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths)))


def unique(text, fallback, used):
    """The text, or the fallback, or that with a number: no two groups share one."""
    for candidate in itertools.chain([text, fallback], (f"{fallback} {n}" for n in itertools.count(2))):
        if candidate and candidate not in used:
            used.add(candidate)
            return candidate


def deciding_key(have, instances):
    """The key of config.json that is true (or a number, or a text) exactly where the parameters are, or the other way
    round."""
    configs = [flat(instance.config) for instance in instances]
    keys = sorted({k for config in configs for k in config}, key=lambda k: (k.count("."), len(k), k))
    flipped = {instance.tag.removeprefix("flip ") for instance in instances}
    found = [
        key
        for key in keys
        for wanted in (True, False)
        if all((config.get(key) not in (None, False)) == (h == wanted) for config, h in zip(configs, have))
    ]
    found.sort(key=lambda key: key not in flipped)
    return found[0] if found else ""


def optional_texts(presence):
    """{template: text} of parameters that some instance lacks wholly."""
    groups, out, used = {}, {}, set()
    for template, names in presence.having.items():
        have = tuple(bool(n) for n in names)
        if not all(have):
            groups.setdefault(have, []).append(template)
    for have, templates in groups.items():
        members = [re.sub(r".*(^|\.)\d+\.", "", VARIABLE.sub("0", t)) for t in templates]
        last = {member.split(".")[-1] for member in members}
        shared = common_path(members) or (last.pop() if len(last) == 1 and last != {"weight"} else "")
        first = members[0].rpartition(".")[0] or members[0]
        text = unique(deciding_key(have, presence.instances), shared or first, used)
        out.update(dict.fromkeys(templates, text))
    return out


def kind_texts(presence, used):
    """({template: text} of parameters that some layers lack, [kinds of which each layer is exactly one])."""
    groups, out, choices = {}, {}, []
    layers = {}
    for template, names in presence.having.items():
        prefix = layer_prefix(template)
        if not prefix:
            continue
        if prefix not in layers:
            layers[prefix] = presence.layers(prefix)
        depth = len(prefix.split("."))
        have = tuple(frozenset(".".join(n.split(".")[:depth]) for n in own) for own in names)
        if any(own and own != every for own, every in zip(have, layers[prefix])):
            # Members that are in the same layers of these models need not be in those of others: attention and MLPs.
            member = template[len(prefix) + 1 :].split(".")[0]
            groups.setdefault((prefix, member, have), []).append(template)
    texts = {}
    for key, templates in groups.items():
        prefix = key[0]
        members = [template[len(prefix) + 1 :] for template in templates]
        first = members[0].rpartition(".")[0] or members[0]
        texts[key] = unique(common_path(members) or first, first, used)
        out.update(dict.fromkeys(templates, texts[key]))
    for prefix in dict.fromkeys(key[0] for key in groups):
        choices += exact_covers([(texts[key], key[2]) for key in groups if key[0] == prefix], layers[prefix])
    return out, choices


def exact_covers(kinds, layers):
    """Sets of kinds, as few as possible, of which each layer of each instance has exactly one."""
    out, taken = [], set()
    for size in (2, 3, 4):
        for some in itertools.combinations(kinds, size):
            if taken & {text for text, _ in some}:
                continue
            if all(
                sorted(layer for _, have in some for layer in have[i]) == sorted(every)
                for i, every in enumerate(layers)
            ):
                out.append([text for text, _ in some])
                taken |= set(out[-1])
    return out
