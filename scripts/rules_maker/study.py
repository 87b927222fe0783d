"""Studies one class: tiny instances of it, the rule that they have in common, and whether the rule's text is exact."""

import os

import numpy as np
from transformers import PreTrainedModel

from rules_maker import evaluate, layouts, textproto
from rules_maker.codes import kept_buffers, parameters
from rules_maker.dims import Sizes, filled
from rules_maker.excluded import exclusions
from rules_maker.faults import faults
from rules_maker.instance import Instance
from rules_maker.rule import NoRule, rule_of
from rules_maker.tiny import build, first_working
from rules_maker.variants import changed_config, default_skeleton, made_with, options, tied_variants

# Another instance takes seconds where a model has many tensors.
FEW_TENSORS, FEW_ELEMENTS = 900, 8_000_000


def short(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:110]}"


def maker(cls, folder):
    return lambda tag: lambda model: Instance(tag, cls, model, os.path.join(folder, tag.replace(" ", "_")))


def instances_of(cls, folder, known_options):
    """(A and B of other sizes; A tied otherwise; A with options changed; modules of B with these changed; the
    options)."""
    use = maker(cls, folder)
    try:
        first = first_working(cls, "A", use("A"))
    except Exception as e:
        raise NoRule(f"no small model of it can be made, saved and loaded: {short(e)}") from e
    try:
        second = first_working(cls, "B", use("B"))
    except Exception as e:
        raise NoRule(f"no second size of it can be made, saved and loaded: {short(e)}") from e
    few = len(first.file) < FEW_TENSORS and sum(v.numel() for v in first.values.values()) < FEW_ELEMENTS
    chosen = (options(cls, first.model.config) if known_options is None else known_options) if few else []
    tied = [
        made(cls, use, tag, lambda: config)
        for tag, config in list(tied_variants(first.model.config))[: None if few else 1]
    ]
    changed = [
        made(cls, use, "flip " + "+".join(key for key, _ in one), lambda: changed_config(first.model.config, one))
        for one in chosen
    ]
    modules = [made_with(cls, second.model.config, one) for one in chosen]
    drop_none = lambda found: [x for x in found if x is not None]
    return [first, second, *drop_none(tied)], drop_none(changed), drop_none(modules), chosen


def made(cls, use, tag, config):
    """The instance of a config, or None where the class does not allow it."""
    try:
        return use(tag)(build(cls, config()))
    except Exception:
        return None


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
    if list(got) != instance.order:
        missing, more = [n for n in instance.order if n not in got], [n for n in got if n not in parameters_]
        what = f"it lacks {missing[0]}" if missing else f"it has {more[0]}" if more else ""
        return what or "its parameters are in another order"
    for name, value in [*got.items(), *((n, v) for n, v in got_buffers.items() if n in buffers)]:
        expected = parameters_[name] if name in parameters_ else buffers[name]
        if value.shape != expected.shape or not np.array_equal(value, expected):
            return f"{name} differs"
    lost = [n for n in buffers if n not in got_buffers]
    if lost:
        return f"it lacks the buffer {lost[0]}"
    found = faults(rule, instance.names, instance.shapes, instance.config)
    return found[0] if found else None


def study(cls, folder, known_options=None):
    """What is known of the class, as JSON: its rule, and what its family needs to know.

    known_options: those that a class of the same config has found to change its parameters."""
    instances, changed, modules, chosen = instances_of(cls, folder, known_options)
    first, held_out = instances[0], held(cls, folder)
    others = [*([m] if (m := default_skeleton(cls)) else []), *filled(cls, first.model.config)]
    try:
        rule = judged(cls, [*instances, *changed], [*others, *modules], held_out)
        instances += changed
    except NoRule:
        if not changed:
            raise
        # One of the options may have no rule: without them the class has one all the same.
        rule = judged(cls, instances, others, held_out)
    everything = [*instances, held_out]
    taken = sorted({n for x in everything for n in [*x.names, *x.buffers, *x.file, *x.others]})
    base = getattr(first.model, first.model.base_model_prefix or "-", None)
    # A member that is no model, as some classes have under that name, is no base class.
    base = base if isinstance(base, PreTrainedModel) and base is not first.model else None
    return {
        "rule": rule,
        "config_class": type(first.model.config).__name__,
        "taken": taken,
        "excluded": exclusions(cls, everything, rule["model_type"], taken),
        "members": sorted({n.split(".")[0] for x in everything for n in [*x.names, *x.buffers]}),
        "base": {
            "class": type(base).__name__ if base is not None else None,
            "module": type(base).__module__,
            "prefix": first.model.base_model_prefix or "",
        },
        "instances": [x.tag for x in everything],
        "options": chosen,
    }


def judged(cls, instances, modules, held_out):
    """The rule of these instances, whose text is exact for them and for the held-out one."""
    rule = rule_of(cls, instances, Sizes(cls, instances, modules))
    layouts.add_transposed(rule, cls, instances[0])
    rule["renamed"] = layouts.renamed(cls, instances[0], rule)
    parsed = textproto.parse(textproto.lines(rule))
    for x in [*instances, held_out]:
        wrong = judge(parsed, x)
        if wrong:
            raise NoRule(f"{'other sizes' if x is held_out else x.tag}: {wrong}")
    return rule


def held(cls, folder):
    """The instance that the rule is not made from."""
    try:
        return first_working(cls, "H", maker(cls, folder)("H"))
    except Exception as e:
        raise NoRule(f"no third size of it can be made, to judge the rule: {short(e)}") from e
