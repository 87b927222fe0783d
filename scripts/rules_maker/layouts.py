# SPDX-License-Identifier: Apache-2.0
"""Other layouts of files that from_pretrained takes for a class, beside the one of save_pretrained and the module's
own names.

Transformers does not tell which there are, so likely ones are tried: each is counted when every parameter arrives
unchanged.
"""

import re

import numpy as np
from transformers import PreTrainedModel

from rules_maker.codes import Trace
from rules_maker.names import Pattern

# Old names of two kinds of parameters, and how the module of today spells them.
OLD_SPELLINGS = [
    {r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"},
    {r"\.weight_g$": ".parametrizations.weight.original0", r"\.weight_v$": ".parametrizations.weight.original1"},
]
# How the models that hold a text model begin its names, where its own begin with "model.".
WHOLE_MODELS = ("model.language_model.", "language_model.model.")
# Members that towers of vision and text once had around all others.
OLD_WRAPPERS = ("vision_model", "text_model")


def arrives(cls, instance, rename):
    """Whether a file with other names is loaded as the instance's own; None if no name is another."""
    names = [*instance.file, *instance.others]
    new = {name: rename(name) for name in names}
    if all(name == to for name, to in new.items()) or len(set(new.values())) < len(names):
        return None
    try:
        trace = Trace(
            cls,
            instance.folder,
            {new[k]: shape for k, shape in instance.file.items()},
            {new[k]: t for k, t in instance.others.items()},
            {new[k]: new[v] for k, v in instance.same.items()},
        )
    except Exception:
        return False
    own = instance.trace.of
    return trace.of.keys() == own.keys() and all(np.array_equal(trace.of[k][i], own[k][i]) for k in own for i in (0, 1))


def old_spellings(cls, instance):
    """LayerNorm.gamma and the like, where the class takes them."""
    out = []
    for spellings in OLD_SPELLINGS:

        def rename(name, spellings=spellings):
            for old, today in spellings.items():
                name = re.sub(re.escape(today) + "$", old[:-1].replace("\\", ""), name)
            return name

        if arrives(cls, instance, rename):
            names = [*instance.file, *instance.others]
            used = {old: today for old, today in spellings.items() if any(name.endswith(today) for name in names)}
            out += [{"from": old, "to": today} for old, today in used.items()]
    return out


def plain_sources(rule):
    """{parameter template: name in the file} of those that the file has as the module, perhaps under another name;
    else None."""
    out = {}
    for parameter in rule["parameter"]:
        part = (parameter.get("from") or [{"from": parameter["name"]}])[0]
        out[parameter["name"]] = part["from"] if set(part) == {"from"} else None
    return out


def towers(instance):
    """Paths of members that are models of their own: "model.vision_tower"."""
    return [name for name, module in instance.model.named_modules() if name and isinstance(module, PreTrainedModel)]


def old_wrappers(cls, instance, rule):
    """vision_tower.vision_model.x for vision_tower.x, where the class takes it."""
    out, sources = [], plain_sources(rule)
    for tower in towers(instance):
        own = {t: s for t, s in sources.items() if t.startswith(tower + ".")}
        if not own or None in own.values():
            continue
        # Where the file has the tower: under the module's path, or under one of its own.
        rest = {
            source.removesuffix(template[len(tower) :]) if source.endswith(template[len(tower) :]) else None
            for template, source in own.items()
        }
        if len(rest) != 1 or not (path := rest.pop()) or path == tower.rpartition(".")[0]:
            continue
        for wrapper in OLD_WRAPPERS:
            begin = path + "."
            if arrives(
                cls, instance, lambda name: begin + wrapper + name[len(path) :] if name.startswith(begin) else name
            ):
                for place in dict.fromkeys((path, tower)):
                    out.append({"from": f"^{re.escape(place)}" + rf"\.{wrapper}\.", "to": tower + "."})
    return out


def of_whole_models(cls, instance):
    """A text class that takes files of the whole model, of which it is a part."""
    out = []
    for begin in WHOLE_MODELS:
        if arrives(cls, instance, lambda name: re.sub(r"^model\.", begin, name)):
            out.append({"from": "^" + re.escape(begin), "to": "model."})
    return out


def renamed(cls, instance, rule):
    """[{"from", "to"}] of old names that the class takes."""
    return old_spellings(cls, instance) + old_wrappers(cls, instance, rule) + of_whole_models(cls, instance)


def add_transposed(rule, cls, instance):
    """Adds to parameters of three dimensions that the class also takes with the last two swapped how they are read
    then."""
    every = {n: s for n, s in instance.file.items() if len(s) == 3 and s[1] != s[2]}
    candidates = [
        p for p in rule["parameter"] if "from" not in p and len(p.get("dim", [])) == 3 and "?" not in p["dim"]
    ]
    named = [(p, [n for n in every if Pattern(p["name"]).numbers(n) is not None]) for p in candidates]
    swapped = {n for _, names in named for n in names}
    if not swapped:
        return
    shapes = {n: (s[0], s[2], s[1]) if n in swapped else s for n, s in instance.file.items()}
    try:
        trace = Trace(cls, instance.folder, shapes, instance.others, instance.same, any_shape=True)
    except Exception:
        return
    numbers = {name: n for n, name in enumerate(shapes)}
    for parameter, names in named:
        if names and all(n in trace.of and is_transposed(trace.of[n], numbers[n], shapes[n]) for n in names):
            parameter["from"] = [{"from": parameter["name"], "op": [{"permute": {"dim": [0, 2, 1]}}]}]


def is_transposed(traced, number, shape):
    """Whether a parameter has all elements of its stored tensor with the last dimensions swapped."""
    places = np.arange(int(np.prod(shape))).reshape(shape).swapaxes(1, 2)
    return (traced[0] == number).all() and np.array_equal(traced[1], places)
