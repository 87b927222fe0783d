# SPDX-License-Identifier: Apache-2.0
"""Studies one class: tiny instances of it, the rule that they have in common, and whether the rule's text is exact."""

import os
import re

import numpy as np

from rules_maker import evaluate, layouts, textproto
from rules_maker.codes import kept_buffers, parameters
from rules_maker.dims import Sizes, changed_config, filled, made_with, module_of
from rules_maker.excluded import exclusions
from rules_maker.faults import faults
from rules_maker.inherit import base_member, beginning
from rules_maker.instance import Instance
from rules_maker.rule import Evidence, NoRule, expressions_of, rule_of
from rules_maker.tiny import build, first_working
from rules_maker.variants import default_skeleton, options, tied_variants

# Operations of an expression that depend on sizes.
SIZED = re.compile(r"'(part|split|reshape|sizes)'")
# Another instance takes seconds where a model has many tensors.
FEW_TENSORS, FEW_ELEMENTS = 900, 8_000_000


OTHER_ORDER = "its parameters are in another order"


def short(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:110]}"


def maker(cls, folder):
    return lambda tag: lambda model: Instance(tag, cls, model, os.path.join(folder, tag.replace(" ", "_")))


class Material:
    """All that a class's rule is made from: instances with their files, and modules that only tell what they are.

    known_options: those that a class of the same config has found to change its parameters. find_rule(class name): the
    rule of a base class that is known, or None."""

    def __init__(self, cls, folder, known_options, find_rule):
        self.cls, self.use = cls, maker(cls, folder)
        first = self.of_profile("A")
        base, _ = base_member(first.model)
        self.begin = beginning(first, find_rule(base.__name__), identities(first)) if base else None
        second = self.of_profile("B")
        self.held_out = self.of_profile("H")
        few = len(first.file) < FEW_TENSORS and sum(v.numel() for v in first.values.values()) < FEW_ELEMENTS
        config = first.model.config
        # The base class has found its options; a head has few of its own.
        few = few and self.begin is None
        self.options = (options(cls, config) if known_options is None else known_options) if few else []
        self.tied = self.tied_otherwise(config)
        self.instances = [first, second, *self.instances_tied_otherwise(first, config)]
        self.modules = drop_none([default_skeleton(cls), *(filled(cls, config) if self.begin is None else [])])
        # One size of an optional parameter is not enough to tell which part of a stored tensor it is.
        flipped = [("flip ", first), *([("flip B ", second)] if takes_parts(first) else [])]
        self.changed = drop_none(
            self.made(tag + "+".join(key for key, _ in one), lambda x=x, one=one: changed_config(x.model.config, one))
            for tag, x in flipped
            for one in self.options
        )
        self.changed_modules = drop_none(made_with(cls, second.model.config, one) for one in self.options)

    def of_profile(self, name):
        try:
            return first_working(self.cls, name, self.use(name))
        except Exception as e:
            raise NoRule(f"no small model ({name}) of it can be made, saved and loaded: {short(e)}") from e

    def made(self, tag, config):
        """The instance of a config, or None where the class does not allow it."""
        try:
            return self.use(tag)(build(self.cls, config()))
        except Exception:
            return None

    def tied_otherwise(self, config):
        """[(tag, config, Module)] of the config with embeddings tied where they were not, and the other way round."""
        out = []
        for tag, changed in tied_variants(config):
            try:
                module = module_of(self.cls, changed)
                module.tag = tag
                out.append((tag, changed, module))
            except Exception:
                continue                                    # the class does not allow it
        return out

    def tied_modules(self):
        return [module for _, _, module in self.tied]

    def instances_tied_otherwise(self, first, config):
        """An instance for each way in which names are tied."""
        seen, out = [first.aliases], []
        for tag, changed, module in self.tied:
            if module.aliases not in seen:
                seen.append(module.aliases)
                out.append(self.made(tag, lambda changed=changed: changed))
        return drop_none(out)


def takes_parts(instance):
    """Whether any parameter is a part of a stored tensor, or is split by sizes."""
    try:
        return any(SIZED.search(str(tree)) for tree in expressions_of(instance).values())
    except NoRule:
        return False


def drop_none(found):
    return [x for x in found if x is not None]


def identities(instance):
    """Integer arrays of the file in which every element is itself."""
    out = {}
    for n, (name, shape) in enumerate(instance.file.items()):
        n = list(instance.file).index(instance.same[name]) if name in instance.same else n
        out[name] = (n << 32) + np.arange(int(np.prod(shape))).reshape(shape)
    return out | {name: np.asarray(tensor) for name, tensor in instance.others.items()}


def judge(rule, instance):
    """What is wrong with the parsed rule on an instance; None if nothing."""
    expected = {n: (a.astype(np.int64) << 32) + p for n, (a, p) in instance.trace.of.items()}
    wrong = differences(
        rule, identities(instance), instance, expected, {k: v for k, v in expected.items() if k in instance.buffers}
    )
    return wrong or differences(
        rule,
        arrays(instance.values | instance.others),
        instance,
        arrays(parameters(instance.model)),
        arrays(kept_buffers(instance.model)),
    )


def arrays(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def differences(rule, file, instance, parameters_, buffers):
    """The first difference of what the rule makes of the file from the module's own tensors. The order counts."""
    try:
        got, got_buffers = evaluate.apply(rule, file, instance.config)
    except Exception as e:
        return f"it cannot be applied: {short(e)}"
    in_order = sorted if "unordered" in rule else list
    if in_order(got) != in_order(instance.order):
        missing, more = [n for n in instance.order if n not in got], [n for n in got if n not in parameters_]
        what = f"it lacks {missing[0]}" if missing else f"it has {more[0]}" if more else ""
        return what or OTHER_ORDER
    for name, value in [*got.items(), *((n, v) for n, v in got_buffers.items() if n in buffers)]:
        expected = parameters_[name] if name in parameters_ else buffers[name]
        if value.shape != expected.shape or not np.array_equal(value, expected):
            return f"{name} differs"
    lost = [n for n in buffers if n not in got_buffers]
    if lost:
        return f"it lacks the buffer {lost[0]}"
    found = faults(rule, instance.names, instance.shapes, instance.config)
    return found[0] if found else None


def study(cls, folder, known_options=None, find_rule=lambda name: None):
    """What is known of the class, as JSON: its rule, and what its family needs to know."""
    material = Material(cls, folder, known_options, find_rule)
    try:
        return facts_of(material)
    except NoRule:
        if material.begin is None:
            raise
        return facts_of(Material(cls, folder, known_options, lambda name: None))


def facts_of(material):
    # One of the options may have no rule: without them the class has one all the same.
    attempts = [(material.changed, material.changed_modules, [])]
    # Or which parameters there are is other than these instances say: then the held-out one is one of them in this.
    attempts.append((material.changed, material.changed_modules, [material.held_out]))
    if material.changed:
        attempts.append(([], [], []))
    error = None
    for changed, changed_modules, present in attempts:
        try:
            rule = judged(material, changed, changed_modules, present)
            break
        except NoRule as e:
            error = error or e
    else:
        raise error
    everything = [*material.instances, *changed, material.held_out]
    first = material.instances[0]
    taken = sorted({n for x in everything for n in [*x.names, *x.buffers, *x.file, *x.others]})
    base, prefix = base_member(first.model)
    return {
        "rule": rule,
        "config_class": type(first.model.config).__name__,
        "taken": taken,
        "excluded": exclusions(material.cls, everything, rule["model_type"], taken),
        "members": sorted({n.split(".")[0] for x in everything for n in [*x.names, *x.buffers]}),
        "base": {
            "class": base.__name__ if base else None,
            "module": base.__module__ if base else None,
            "prefix": prefix,
        },
        "instances": [x.tag for x in everything],
        "options": material.options,
    }


def judged(material, changed, changed_modules, present):
    """The rule of these instances, whose text is exact for them and for the held-out one. present: modules that only
    tell which parameters there are."""
    instances = [*material.instances, *changed]
    sizes = Sizes(material.cls, instances, [*material.modules, *changed_modules])
    rule = rule_of(material.cls, instances, sizes, Evidence(material.tied_modules(), present, material.begin))
    layouts.add_transposed(rule, material.cls, instances[0])
    rule["renamed"] = layouts.renamed(material.cls, instances[0], rule)
    for x in [*instances, material.held_out]:
        wrong = judge(textproto.parse(textproto.lines(rule)), x)
        if wrong == OTHER_ORDER:
            # Layers of several kinds have their members in different orders: the names are known all the same.
            rule["unordered"] = True
            wrong = judge(textproto.parse(textproto.lines(rule)), x)
        if wrong:
            raise NoRule(f"{'other sizes' if x is material.held_out else x.tag}: {wrong}")
    return rule
