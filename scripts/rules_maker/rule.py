# SPDX-License-Identifier: Apache-2.0
"""Puts a class's rule together from what its instances have in common."""

import collections

from rules_maker import dims, presence, ties
from rules_maker.expression import Stored, Unclear, expression
from rules_maker.generalise import generalise
from rules_maker.inherit import base_member
from rules_maker.names import Pattern, merge_orders, numbered

FIELDS = ("name", "dim", "optional", "kind", "no_decay", "from")


class NoRule(Exception):
    """The class gets no rule, for this reason."""


def expressions_of(instance):
    """{parameter or buffer: expression}."""
    names, out = list(instance.file), {}
    for name in [*instance.order, *instance.buffers]:
        if name in instance.trace.integers:
            source = instance.trace.integers[name] or name
            if source not in instance.others:
                raise NoRule(f"the buffer {name} comes from nowhere")
            out[name] = Stored(source, ())
            continue
        numbers, places = instance.trace.of[name]
        if not numbers.size and name in instance.file:
            out[name] = Stored(name, ())
            continue
        try:
            out[name] = expression(numbers, places, names, instance.file)
        except Unclear as e:
            raise NoRule(f"{name}: {e}") from e
    return out


def literal_in(instances):
    """literal(star template, slot): whether that number is one of different members (nn.Sequential), not of layers."""
    places = {}
    for x in instances:
        for place, seen in x.containers.items():
            places.setdefault(place, set()).update(seen)

    def literal(template, slot):
        parts = template.split(".")
        at = [i for i, part in enumerate(parts) if part == "*"][slot]
        seen = places.get(numbered(".".join("0" if p == "*" else p for p in parts[:at])), set())
        # The same number of members everywhere, each of another class, are no layers even in a list.
        different = {distinct for _, distinct, _ in seen} == {True} and len({n for _, _, n in seen}) == 1
        return different or any(not layers for layers, _, _ in seen)

    return literal


# What else there is to make a rule from. tied: modules that tell when names are tied; present: modules that tell which
# parameters there are; begin: what the base class's rule says, or None.
Evidence = collections.namedtuple("Evidence", "tied present begin")


def rule_of(cls, instances, sizes, evidence):
    """The rule as fields. sizes: dims.Sizes over the instances, perhaps with more modules behind them."""
    begin = evidence.begin
    inside = base_member(instances[0].model)[1] + "." if begin else None
    own = lambda name: inside is None or not name.startswith(inside)
    trees = {x.tag: expressions_of(x) for x in instances}
    ties.tied_sources(instances, trees)
    cases = [(name, tree, x.integers) for x in instances for name, tree in trees[x.tag].items() if own(name)]
    rules, unclear = generalise(cases, literal_in(instances))
    if unclear:
        more = f" (and {len(unclear) - 1} more)" if len(unclear) > 1 else ""
        raise NoRule(f"{unclear[0][0]}: {unclear[0][1]}{more}")
    tied, failed = ties.tied_rules([*instances, *evidence.tied], type(instances[0].model.config)(), own)
    if failed:
        raise NoRule(f"no key of config.json says when {failed[0]} is tied")
    every = {numbered(n) for x in instances for n in x.order}
    in_module = dict(rule for rule in rules if numbered(rule[0]) in every)
    parameters = [with_from(name, in_module[name]) for name in in_order(instances, list(in_module))]
    choices = describe(parameters, instances, sizes, evidence.present)
    buffers = [with_from(*rule) for rule in rules if rule[0] not in in_module]
    for buffer in buffers:
        pattern = Pattern(buffer["name"])
        having = [{n for n in m.buffers if pattern.numbers(n) is not None} for m in sizes.modules]
        buffer["dim"] = dims.dims(having, sizes)
    found = {
        "parameter": [ordered(p) for p in parameters],
        "buffer": [ordered(b) for b in buffers],
        "choice": [{"kind": kinds} for kinds in choices],
        "tied": tied,
        "layers": dims.layer_counts(sizes, [p["name"] for p in parameters]),
    }
    if begin:
        found = {field: begin[field] + [one for one in found[field] if one not in begin[field]] for field in found}
    return {"model_type": instances[0].config["model_type"], "architecture": cls.__name__, **found}


def in_order(instances, templates):
    """The templates in the order of named_parameters()."""
    present = presence.Presence(templates, instances)
    sequences = []
    for i, x in enumerate(instances):
        template = {name: t for t in templates for name in present.having[t][i]}
        sequences.append([(name, template[name]) for name in x.order if name in template])
    return merge_orders(sequences, templates)


def with_from(name, part):
    return {"name": name} if part == {"from": name} else {"name": name, "from": [part]}


def ordered(parameter):
    return {k: parameter[k] for k in FIELDS if parameter.get(k)}


def describe(parameters, instances, sizes, more_present):
    """Adds dim, optional, kind and no_decay to the parameters, and gives the choices."""
    templates = [p["name"] for p in parameters]
    present = presence.Presence(templates, [*instances, *more_present])
    everywhere = presence.Presence(templates, sizes.modules)
    optional = presence.optional_texts(present)
    kinds, choices = presence.kind_texts(present, set(optional.values()))
    exempt = set().union(*(x.decay_exempt for x in instances))
    for parameter in parameters:
        name = parameter["name"]
        parameter["dim"] = dims.dims(everywhere.having[name], sizes)
        parameter["optional"], parameter["kind"] = optional.get(name), kinds.get(name)
        parameter["no_decay"] = any(names & exempt for names in present.having[name])
    return choices
