# SPDX-License-Identifier: Apache-2.0
"""Which names are one parameter, and the key of config.json that says so."""

import itertools

from rules_maker.evaluate import look_up
from rules_maker.expression import Stored
from rules_maker.generalise import generalise
from rules_maker.instance import flat
from rules_maker.names import Pattern, split


def default_truths(config):
    """{dotted key: boolean} of a config made without arguments: save_pretrained need not write what has its default
    value."""
    values = {k: v for k, v in flat(config.to_dict()).items() if isinstance(v, bool)}
    parts = [("", config), *((f"{k}.", v) for k, v in vars(config).items() if hasattr(v, "to_dict"))]
    for prefix, part in parts:
        tied = getattr(part, "tie_word_embeddings", None)
        if isinstance(tied, bool) or not prefix:
            values.setdefault(prefix + "tie_word_embeddings", bool(tied))
    return values


def truth(config, key, by_default):
    value = look_up(config, key)
    return by_default if value is None else bool(value)


def deciding(state, truths):
    """The keys of which at least one is true exactly where the names are tied, as few as possible; None where there
    are none.

    state: [(instance, whether the names are tied in it)]."""
    keys = sorted(truths, key=lambda k: ("tie" not in k, k.count("."), len(k), k))
    tying = [k for k in keys if "tie" in k]
    for some in [(), *((k,) for k in keys), *itertools.combinations(tying, 2)]:
        if all(is_tied == (not some or any(truth(x.config, k, truths[k]) for k in some)) for x, is_tied in state):
            return some
    return None


def tied_rules(instances, default, own):
    """([Tied as fields], [later names for which no key is found]). Of two entries for one name either is enough.

    own(later name): whether its entry is not the base class's."""
    cases = [(later, Stored(first, ()), {}) for x in instances for later, first in x.aliases.items() if own(later)]
    numbers = {}
    for later, _, _ in cases:
        template, own = split(later)
        numbers.setdefault(template, []).append(own)
    # A number that is the same wherever the names are tied is no layer's.
    rules, unclear = generalise(cases, lambda template, slot: len({own[slot] for own in numbers[template]}) == 1)
    out, failed, truths = [], [name for name, _ in unclear], default_truths(default)
    for later, part in rules:
        pattern, state = Pattern(later), []
        for x in instances:
            names = [n for n in x.names if pattern.numbers(n) is not None]
            if names:
                state.append((x, any(n in x.aliases for n in names)))
        keys = deciding(state, truths)
        if keys is None:
            # No config.json has the key in one part alone, though transformers would understand it.
            keys = deciding([(x, is_tied) for x, is_tied in state if not x.tag.startswith("flip tied part")], truths)
        if keys is None:
            failed.append(later)
        elif not keys:
            out.append({"name": later, "to": part["from"]})
        else:
            out += [
                {"name": later, "to": part["from"], "when": key, **({"by_default": True} if truths[key] else {})}
                for key in keys
            ]
    return out, failed


def tied_sources(instances, expressions):
    """Gives each tied parameter's expression to the name that an untied instance reads the same tensor as.

    expressions: {tag: {parameter: expression}}, changed in place: of a tied embedding the file may have the head's
    name alone."""
    of_untied, known = {}, {name for x in instances for name in x.order}
    for x in instances:
        for name, tree in expressions[x.tag].items():
            if isinstance(tree, Stored) and name not in x.aliases.values():
                of_untied[tree.name] = name
    for x in instances:
        groups = {}
        for later, first in x.aliases.items():
            groups.setdefault(first, {first}).add(later)
        for first, group in groups.items():
            tree = expressions[x.tag].get(first)
            if isinstance(tree, Stored):
                name = of_untied.get(tree.name)
                name = name if name in group else tree.name if tree.name in group and tree.name in known else first
                expressions[x.tag][name] = expressions[x.tag].pop(first)
