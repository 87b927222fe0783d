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


def in_order(names, templates):
    """Names as named_parameters() has them: a module's own parameters, then those of its members in the order in which the
    templates name them, numbered ones ascending."""
    place = {}
    for n, template in enumerate(templates):
        parts = numbered(template).split(".")
        for i in range(len(parts)):
            place.setdefault(".".join(parts[:i + 1]), n)

    def key(name):
        parts, plain = name.split("."), numbered(name).split(".")
        return [(i < len(parts) - 1, place.get(".".join(plain[:i + 1]), len(place)), int(p) if p.isdigit() else 0)
                for i, p in enumerate(parts)]
    return sorted(names, key=key)


def merge_orders(sequences):
    """One order of the places (numbered names) that keeps that of each sequence of names, as far as there is one."""
    members, leaves = {}, set()
    for sequence in sequences:
        own = {}
        for name in sequence:
            parts = name.split(".")
            for i in range(len(parts)):
                own.setdefault(".".join(parts[:i]), {}).setdefault(numbered(parts[i]))
            leaves.add(numbered(name))
        for node, keys in own.items():
            orders = members.setdefault(numbered(node), [])
            if list(keys) not in orders:
                orders.append(list(keys))

    def merged(orders):
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

    def walk(node):
        for member in merged(members[node]):
            path = f"{node}.{member}" if node else member
            if path in leaves:
                yield path
            if path in members:
                yield from walk(path)
    return list(walk(""))
