# SPDX-License-Identifier: Apache-2.0
"""Makes one rule of the expressions that all layers and all models have for a kind of parameter.

An expression is split into its form, which must be the same everywhere, and its numbers, for each of which a text is
found that gives them all: a constant, a number of the parameter's name ('#'), a value of config.json.
"""

import collections
import itertools
import re

from rules_maker.expression import Stored, Unclear
from rules_maker.names import MOST_VARIABLES, join, split

# A parameter of one model: numbers are those of its name, config the integers of its config.json by key.
Case = collections.namedtuple("Case", "numbers form slots config")


def flatten(tree):
    """(form, slots) of an expression; a slot is (kind, value)."""
    if isinstance(tree, Stored):
        template, numbers = split(tree.name)
        op_forms, op_slots = flatten_ops(tree.ops)
        return ("stored", template, op_forms), [("name", n) for n in numbers] + op_slots
    children = [flatten(part) for part in tree.parts]
    op_forms, op_slots = flatten_ops(tree.ops)
    repeated = repetition(children)
    if repeated:
        if tree.kind == "concat":
            # `concat` takes no '##': they are stacked, and the new dimension is merged with the one that they are
            # joined along.
            dim, rank = tree.dim, tree.ops[0][2]
            order = (*range(1, dim + 1), 0, *range(dim + 1, rank + 1))
            op_forms = (() if dim == 0 else (("permute", order),)) + (("merge", dim, 2),)
            op_slots = []
        return ("each", repeated[0], op_forms), repeated[1] + op_slots
    slots = [slot for _, own in children for slot in own]
    return (tree.kind, tree.dim, tuple(form for form, _ in children), op_forms), slots + op_slots


def flatten_ops(ops):
    forms, slots = [], []
    for op in ops:
        kind = op[0]
        if kind == "part":
            forms.append(("part", op[1]))
            slots.append(("part", op[2:]))
        elif kind == "split":
            forms.append(("split", op[1], len(op[2])))
            slots += [("size", n) for n in op[2]]
        elif kind == "reshape":
            forms.append(("reshape", len(op[1])))
            slots += [("size", n) for n in op[1]]
        elif kind == "sizes":
            forms.append(("sizes", len(op[1])))
            slots += [("size", n) for n in op[1]]
        else:
            forms.append(op)
    return tuple(forms), slots


def repetition(children):
    """(form, slots) of one of them when they differ only in numbers of names that count 0, 1, 2 ...: these become a
    star."""
    if len(children) < 2 or len({form for form, _ in children}) > 1:
        return None
    slots, stars = [], 0
    for column in zip(*(own for _, own in children)):
        if column[0][0] == "name" and [value for _, value in column] == list(range(len(children))):
            slots.append(("star", 0))
            stars += 1
        elif len(set(column)) == 1:
            slots.append(column[0])
        else:
            return None
    return (children[0][0], slots) if stars else None


def size_texts(values, configs, most_keys=2):
    """Texts over keys of config.json that give these values, the best first."""
    keys = [k for k in configs[0] if all(type(c.get(k)) is int for c in configs)]
    rank = lambda key: (bool(re.search("kv|key_value", key)), "head" not in key, key.count("."), len(key), key)
    direct = sorted((k for k in keys if all(c[k] == v for c, v in zip(configs, values))), key=rank)
    if direct or most_keys < 2:
        return ["{config." + k + "}" for k in direct]
    out = []
    for a, b in itertools.combinations(sorted(keys, key=rank), 2):
        if all(c[a] * c[b] == v for c, v in zip(configs, values)):
            out.append("{config." + a + "}*{config." + b + "}")
    for a, b in itertools.permutations(sorted(keys, key=rank), 2):
        if all(c[b] and c[b] * v == c[a] for c, v in zip(configs, values)):
            out.append("{config." + a + "}/{config." + b + "}")
    heads = [k for k in keys if "head" in k]
    for a, b, c in itertools.permutations(sorted(heads, key=rank), 3) if not out else ():
        for n, times in ((1, ""), (2, "2*")):
            if all((x[a] + n * x[b]) * x[c] == v for x, v in zip(configs, values)):
                out.append(f"{{config.{a}}}*{{config.{c}}}+{times}{{config.{b}}}*{{config.{c}}}")
    for a in sorted(keys, key=rank):
        out += [f"{n}*{{config.{a}}}" for n in (2, 3, 4) if all(n * c[a] == v for c, v in zip(configs, values))]
    return out


class Fit:
    """Texts for the slots of one form over all its cases. free: the numbers of the parameter's name that are
    variables."""

    def __init__(self, cases, free):
        self.cases, self.free = cases, free
        self.configs = [case.config for case in cases]
        self.columns = iter(list(zip(*(case.slots for case in cases))))

    def column(self):
        column = next(self.columns)
        return column[0][0], [value for _, value in column]

    def name_number(self, position):
        """The text of a number in a name of the file: a variable, best the one at the same position in the
        parameter's name."""
        kind, values = self.column()
        if kind == "star":
            return "#" * (len(self.free) + 1)
        texts = []
        for n, slot in enumerate(self.free):
            shifts = {value - case.numbers[slot] for value, case in zip(values, self.cases)}
            if len(shifts) == 1 and abs(shift := shifts.pop()) <= 1:
                texts.append((shift != 0, slot != position, "#" * (n + 1) + (f"{shift:+d}" if shift else "")))
        if texts and (len(set(values)) > 1 or not min(texts)[0]):
            return min(texts)[2]
        if len(set(values)) == 1:
            return str(values[0])
        raise Unclear("a number in a name of the file has no rule")

    def part(self, dim):
        """Operations that pick a part of a dimension."""
        _, values = self.column()
        if all(begin % size == 0 and of % size == 0 for begin, size, of in values):
            chunks = {(begin // size, of // size) for begin, size, of in values}
            if len(chunks) == 1:
                index, of = chunks.pop()
                return [{"chunk": {"dim": dim, "index": index, "of": of}}]
        for of in (3, 4, 5, 6, 8):
            fractions = {(begin * of / whole, size * of / whole) for begin, size, whole in values}
            pair = fractions.pop()
            if not fractions and all(x == int(x) for x in pair):
                begin, size = (str(int(x)) for x in pair)
                return [
                    {"split": {"dim": dim, "size": [str(of), "?"]}},
                    {"slice": {"dim": dim, "begin": begin, "size": size}},
                    {"merge": {"dim": dim, "count": 2}},
                ]
        texts = [self.size_text([v[i] for v in values]) for i in (0, 1)]
        if "?" in texts:
            raise Unclear("a part of a tensor has no rule for its size")
        return [{"slice": {"dim": dim, "begin": texts[0], "size": texts[1]}}]

    def size_text(self, values):
        if len(set(values)) == 1:
            return str(values[0])
        texts = size_texts(values, self.configs)
        return texts[0] if texts else "?"

    def sizes(self, count):
        """Sizes of which at most one is "?"."""
        texts = [self.size_text(self.column()[1]) for _ in range(count)]
        if texts.count("?") > 1:
            raise Unclear("two sizes of a reshape have no rule")
        if "?" not in texts:
            worst = max(range(count), key=lambda i: ("{" in texts[i], len(texts[i]) if "{" in texts[i] else 0, i))
            texts[worst] = "?" if "{" in texts[worst] else texts[worst]
        return texts

    def operations(self, forms):
        out = []
        for form in forms:
            kind = form[0]
            if kind == "part":
                out += self.part(form[1])
            elif kind == "split":
                out.append({"split": {"dim": form[1], "size": self.sizes(form[2])}})
            elif kind == "reshape":
                out.append({"reshape": {"size": self.sizes(form[1])}})
            elif kind == "merge":
                out.append({"merge": {"dim": form[1], "count": form[2]}})
            elif kind == "permute":
                out.append({"transpose": True} if form[1] == (1, 0) else {"permute": {"dim": list(form[1])}})
            else:
                out.append({kind: form[1]})
        return rope(out)

    def part_of(self, form):
        """The rules' Part of a form, as fields."""
        kind = form[0]
        if kind == "stored":
            name = join(form[1], [self.name_number(i) for i in range(form[1].split(".").count("*"))])
            return with_ops({"from": name}, self.operations(form[2]))
        if kind == "each":
            inner = self.part_of(form[1])
            return with_ops({"stack": True, "part": [inner]}, self.operations(form[2]))
        parts = [self.part_of(child) for child in form[2]]
        if kind == "stack":
            return with_ops({"stack": True, "part": parts}, self.operations(form[3]))
        columns = [self.column()[1] for _ in parts]
        if any(len(set(own)) > 1 for own in zip(*columns)):
            texts = [self.size_text(values) for values in columns]
            if texts.count("?") <= 1:
                parts = [part if text == "?" else {**part, "size": text} for part, text in zip(parts, texts)]
        return {"concat": form[1], "part": parts}


def with_ops(part, ops):
    return {**part, "op": ops} if ops else part


def rope(ops):
    """split, permute, merge of a rotation's halves under its own name."""
    kinds = [next(iter(op)) for op in ops]
    if kinds == ["split", "permute", "merge"]:
        split_, permute, merge = (op[kind] for op, kind in zip(ops, kinds))
        swap = [0, 2, 1, *range(3, len(permute["dim"]))]
        if (
            split_["dim"] == merge["dim"] == 0
            and len(split_["size"]) == 3
            and split_["size"][1:] == ["?", "2"]
            and permute["dim"] == swap
            and merge["count"] == 3
        ):
            return [{"unpermute_rows": split_["size"][0]}]
    return ops


def generalise(cases, literal=lambda template, slot: False):
    """[(name with '#', Part)] and [(name, why)] of what has no rule.

    cases: [(name, expression, config)]. literal: whether a number of a template is one of different members, not of
    layers."""
    groups, rules, unclear = collections.defaultdict(list), [], []
    for name, tree, config in cases:
        template, numbers = split(name)
        groups[template].append(Case(numbers, *flatten(tree), config))

    def solve(template, group, fixed):
        free = [slot for slot in range(len(group[0].numbers)) if slot not in fixed]
        try:
            if len(free) > MOST_VARIABLES:
                raise Unclear("more than three numbers in its name")
            if len({case.form for case in group}) > 1:
                raise Unclear("its layers come from the file in different ways")
            fit = Fit(group, free)
            part = fit.part_of(group[0].form)
            signs = [str(fixed[s]) if s in fixed else "#" * (free.index(s) + 1) for s in range(len(group[0].numbers))]
            rules.append((join(template, signs), part))
        except Unclear as e:
            if not free or len({case.numbers for case in group}) == 1:
                unclear.append((join(template, [fixed.get(s, "#") for s in range(len(group[0].numbers))]), str(e)))
                return
            slot = min(free, key=lambda s: len({case.numbers[s] for case in group}))
            by_value(template, group, fixed, slot)

    def by_value(template, group, fixed, slot):
        for value in sorted({case.numbers[slot] for case in group}):
            start(template, [case for case in group if case.numbers[slot] == value], {**fixed, slot: value})

    def start(template, group, fixed):
        slot = next((s for s in range(len(group[0].numbers)) if s not in fixed and literal(template, s)), None)
        if slot is None:
            solve(template, group, fixed)
        else:
            by_value(template, group, fixed, slot)

    for template, group in groups.items():
        start(template, group, {})
    return rules, unclear
