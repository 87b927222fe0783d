# SPDX-License-Identifier: Apache-2.0
"""Which keys of config.json say how large the dimensions are, and how many layers there are.

A key whose value is the size in every instance is a candidate. It counts when the class follows it: made anew with
the key doubled, the size doubles too.
"""

import copy
import json
import re

from rules_maker.instance import Module, flat
from rules_maker.names import numbered
from rules_maker.tiny import Config, fresh, skeleton

FACTORS = (1, 2, 3, 4)
# Numbers that say nothing of sizes.
NO_SIZE = re.compile(
    r"token|_eps|epsilon|drop|_std|theta|_range$|label|loss|_prob|coef|window|chunk|scale|init|beam|penalty|temperature|"
    r"layers|_index$|factor|_rate|_tp$"
)
OPEN_SIZE = re.compile(r"size|dim|inner|heads|rank|width|(^|_)d_")
# No other size of a tiny model.
OPEN_VALUE = 28


def set_key(config, key, value):
    """Sets a dotted key of a config with configs in it."""
    *path, last = key.split(".")
    for part in path:
        config = getattr(config, part) if isinstance(config, Config) else config[part]
    if isinstance(config, dict):
        config[last] = value
    else:
        setattr(config, last, value)


class Probe:
    """A class made anew from one config with one key changed."""

    def __init__(self, cls, config):
        self.cls, self.config, self.seen = cls, config, {}
        self.values = {
            k: v
            for k, v in flat(json.loads(config.to_json_string(use_diff=False))).items()
            if isinstance(v, (int, float)) and not isinstance(v, bool)
        }

    def doubled(self, key):
        """The Module with this key doubled, or None where the class cannot be made so."""
        if key not in self.seen:
            value = 2 * self.values[key] if key in self.values else None
            # Nothing doubled is nothing.
            made = None if value is None else made_with(self.cls, self.config, [(key, value or 4)])
            self.seen[key] = made
        return self.seen[key]

    def hidden_in(self, factor):
        """Other keys that may be what a factor is, or a part of it; and those that are 0: they may be added to a
        size."""
        return [k for k, v in self.values.items() if (v in (0, 1) or factor % v == 0) and not NO_SIZE.search(k)]


def changed_config(config, changed):
    """A config with options [(key, value)] changed; raises where the config does not allow it.

    {"second": word} is a list in which the second layer is of another kind."""
    config = copy.deepcopy(config)
    for key, value in changed:
        if isinstance(value, dict):
            part = config
            for name in key.split("."):
                part = getattr(part, name)
            value = [part[0], value["second"], *part[2:]]
        set_key(config, key, value)
    return config


def made_with(cls, config, changed):
    """The Module of the class with options changed, or None where the class cannot be made so."""
    try:
        return module_of(cls, changed_config(config, changed))
    except Exception:
        return None


def module_of(cls, config):
    """The Module of a config, without memory for its tensors."""
    config = fresh(config)
    return Module(skeleton(cls, config), json.loads(config.to_json_string(use_diff=True)))


def filled(cls, config):
    """Modules with a size that the config leaves open (head_dim: null) set: what is derived without it may be
    otherwise with it."""
    values = flat(json.loads(config.to_json_string(use_diff=False)))
    keys = [k for k, v in values.items() if v is None and OPEN_SIZE.search(k.split(".")[-1])]
    # Many classes take a head_dim that their configs do not name.
    parts = [k.rpartition("num_attention_heads")[0] for k in values if re.search(r"(^|\.)num_attention_heads$", k)]
    keys += [part + "head_dim" for part in parts if part + "head_dim" not in values]
    return [m for m in (made_with(cls, config, [(key, OPEN_VALUE)]) for key in keys) if m is not None]


class Sizes:
    """Finds keys for sizes. instances: which can be made anew; others: modules that only tell their sizes."""

    def __init__(self, cls, instances, others):
        self.modules = [*instances, *others]
        self.probes = [Probe(cls, x.model.config) for x in instances]
        self.keys = {}
        for key in sorted({k for m in self.modules for k in m.integers}):
            values = tuple(m.integers.get(key) for m in self.modules)
            for factor in FACTORS:
                self.keys.setdefault(tuple(v and factor * v for v in values), []).append((factor, key))

    def candidates(self, values):
        """Factors and keys that give these sizes; None among them stands for a module that has no such tensor."""
        if None not in values:
            return self.keys.get(tuple(values), [])
        known = [i for i, v in enumerate(values) if v is not None]
        return [c for own, found in self.keys.items() if all(own[i] == values[i] for i in known) for c in found]

    def key(self, values, follows):
        """ "KEY" or "2*KEY" for these sizes, or None. follows(module) -> its size."""
        if len({v for v in values if v is not None}) < 2:
            return None
        at = next((i for i in range(len(self.probes)) if values[i] is not None), None)
        if at is None:
            return None
        probe, size, verdicts = self.probes[at], values[at], {}
        candidates = self.candidates(values)
        for factor, key in candidates:
            module = probe.doubled(key)
            found = None if module is None else follows(module)
            verdicts[factor, key] = None if found is None else found == 2 * size
        sure = [c for c in candidates if verdicts[c]] or [
            c for c in candidates if verdicts[c] is None and len(candidates) == 1
        ]
        for factor, key in sorted(sure, key=lambda c: (c[0], c[1].count("."), len(c[1]), c[1])):
            hidden = (probe.doubled(other) for other in probe.hidden_in(factor) if other != key)
            if all(module is None or follows(module) in (size, None) for module in hidden):
                return key if factor == 1 else f"{factor}*{key}"
        return None


def dims(having, sizes):
    """The `dim` texts of a template. having: its names in each of the modules of sizes."""
    shapes = [{m.shape(n) for n in names} for m, names in zip(sizes.modules, having)]
    ranks = {len(shape) for own in shapes for shape in own}
    if len(ranks) != 1:
        return []
    out = []
    for dim in range(ranks.pop()):
        own = [{shape[dim] for shape in s} for s in shapes]
        # In each module all layers have one size, or it is no key's.
        values = [next(iter(s)) if s else None for s in own]
        name = next((min(having[i]) for i in range(len(sizes.probes)) if having[i]), None)
        one = name and all(len(s) <= 1 for s in own)
        follows = lambda module, dim=dim: (module.shape(name) or {dim: None})[dim]
        out.append(one and sizes.key(values, follows) or "?")
    return out


def layer_counts(sizes, templates):
    """[{"prefix", "count"}] of numbered modules whose number is a key of config.json in all instances."""
    out, seen = [], [m.layers() for m in sizes.modules]
    places = dict.fromkeys(
        numbered(t[:i]) for t in templates for i in range(len(t)) if t[i] == "#" and t[:i].endswith(".")
    )
    for place in places:
        if any(place not in s for s in seen):
            continue
        counts = [{len(n) if n == set(range(len(n))) else None for n in s[place].values()} for s in seen]
        if any(len(c) > 1 or None in c for c in counts):
            continue
        number = lambda module: next((len(n) for n in module.layers().get(place, {}).values()), None)
        key = sizes.key([next(iter(c)) for c in counts], number)
        if key and "*" not in key:
            out.append({"prefix": variables(place), "count": key})
    return out


def variables(place):
    """The second '#' of a place is '##', the third '###'."""
    count, out = 0, []
    for part in place.split("."):
        count += part == "#"
        out.append("#" * count if part == "#" else part)
    return ".".join(out)
