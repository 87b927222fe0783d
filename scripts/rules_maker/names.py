# SPDX-License-Identifier: Apache-2.0
"""Names of tensors and the numbers in them."""

import re

NUMBER = re.compile(r"(?:(?<=\.)|^)\d+(?=\.|$)")
VARIABLE = re.compile(r"(?:(?<=\.)|^)(#+)([+-]1)?(?=\.|$)")
# The format has no sign for more.
MOST_VARIABLES = 3


def split(name):
    """("layers.*.w", (3,)) of "layers.3.w"."""
    return NUMBER.sub("*", name), tuple(int(x) for x in NUMBER.findall(name))


def join(template, texts):
    """The stars of a template replaced, in order."""
    texts = iter(texts)
    return re.sub(r"(?:(?<=\.)|^)\*(?=\.|$)", lambda _: str(next(texts)), template)


def numbered(name):
    """Every number and every variable as "#": the place in the tree of modules."""
    return VARIABLE.sub("#", NUMBER.sub("#", name))


def fill(template, numbers):
    """The name for these numbers of '#', '##' and '###'; None where a number would be negative."""
    values = [numbers[len(sign) - 1] + int(shift or 0) for sign, shift in VARIABLE.findall(template)]
    if any(value < 0 for value in values):
        return None
    values = iter(values)
    return VARIABLE.sub(lambda _: str(next(values)), template)


def layer_prefix(template):
    """The part of a template up to its last variable, or None: "model.layers.#" of "model.layers.#.mlp.weight"."""
    matches = list(VARIABLE.finditer(template))
    return template[: matches[-1].end()] if matches else None


class Pattern:
    """Finds the numbers of '#', '##' and '###' in names."""

    def __init__(self, template):
        self.template = template
        self.variables = [(len(sign), int(shift or 0)) for sign, shift in VARIABLE.findall(template)]
        pieces = VARIABLE.split(template)[::3]
        self.regex = re.compile(r"(\d+)".join(map(re.escape, pieces)) + r"\Z")

    def numbers(self, name):
        """{1: number of '#', 2: of '##' ...}, or None for another name."""
        match = self.regex.match(name)
        if not match:
            return None
        out = {}
        for (variable, shift), text in zip(self.variables, match.groups()):
            if out.setdefault(variable, int(text) - shift) != int(text) - shift:
                return None
        return out


class Tree:
    """The modules that templates of parameters name. A literal number beside '#' stands in one row with the numbers
    of '#'."""

    def __init__(self, templates):
        self.counted = {t[: m.start()] for t in templates for m in VARIABLE.finditer(t)}
        self.place = {}
        for n, template in enumerate(templates):
            parts = self.parts(template)
            for i in range(len(parts)):
                self.place.setdefault(tuple(parts[: i + 1]), n)

    def parts(self, template):
        """The template's path, with the same part for all members of a row."""
        parts, out = template.split("."), []
        for i, part in enumerate(parts):
            row = part.startswith("#") or part.isdigit() and "".join(p + "." for p in parts[:i]) in self.counted
            out.append("#" if row else part)
        return out

    def key(self, name, template):
        """By which names are sorted as named_parameters() has them: a module's own parameters, then those of its
        members in the order in which the templates name them, numbered ones ascending."""
        parts, plain = name.split("."), self.parts(template)
        return [
            (i < len(parts) - 1, self.place[tuple(plain[: i + 1])], int(p) if plain[i] == "#" else 0)
            for i, p in enumerate(parts)
        ]


def merge_orders(sequences, templates):
    """The templates in one order that keeps that of each sequence [(name, template)], as far as there is one."""
    tree, members = Tree(templates), {}
    for sequence in sequences:
        own = {}
        for name, template in sequence:
            parts, plain = name.split("."), tree.parts(template)
            for i in range(len(parts)):
                own.setdefault(tuple(parts[:i]), (tuple(plain[:i]), {}))[1].setdefault((i == len(parts) - 1, plain[i]))
        for node, keys in own.values():
            orders = members.setdefault(node, [])
            if list(keys) not in orders:
                orders.append(list(keys))
    place = {}

    def walk(node):
        for _, member in merged(members[node]):
            path = (*node, member)
            place.setdefault(path, len(place))
            if path in members:
                walk(path)

    walk(())
    number = lambda part: int(part) if part.isdigit() else 0
    key = lambda t: [(place[tuple(tree.parts(t)[: i + 1])], number(p)) for i, p in enumerate(t.split("."))]
    return sorted(templates, key=key)


def merged(orders):
    """One order of all elements that keeps that of each list, as far as there is one."""
    todo, after, out = list(dict.fromkeys(x for order in orders for x in order)), {}, []
    for order in orders:
        for a, b in zip(order, order[1:]):
            after.setdefault(a, set()).add(b)
    while todo:
        free = [x for x in todo if not any(x in after.get(y, ()) for y in todo if y != x)]
        chosen = free[0] if free else todo[0]
        todo.remove(chosen)
        out.append(chosen)
    return out
