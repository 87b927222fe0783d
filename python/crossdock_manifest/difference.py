# SPDX-License-Identifier: Apache-2.0
"""How two manifests differ: tensors by their names, config.json by its keys; `crossdock diff` compares values too."""

from dataclasses import dataclass, field

from .errors import printable


@dataclass
class Difference:
    added: list = field(default_factory=list)  # names that only b has
    removed: list = field(default_factory=list)  # names that only a has
    changed: list = field(default_factory=list)  # (name, "dtype", "shape" or "encoding", of a, of b)
    config: list = field(
        default_factory=list
    )  # (key as in "rope_parameters.rope_theta", of a, of b); ABSENT where there is none

    def __bool__(self):
        """Whether there is any."""
        return bool(self.added or self.removed or self.changed or self.config)

    def __str__(self):
        lines = [f"- {printable(name)}" for name in self.removed] + [f"+ {printable(name)}" for name in self.added]
        lines += [f"~ {printable(name)}: {what} {printable(a)} -> {printable(b)}" for name, what, a, b in self.changed]
        lines += [
            f"~ config.json {printable(key)}: {printable(shown(a))} -> {printable(shown(b))}"
            for key, a, b in self.config
        ]
        return "\n".join(lines or ["no difference in tensors and config.json"])

    def to_json(self):
        return {
            "added": self.added,
            "removed": self.removed,
            "changed": [{"name": name, "what": what, "a": a, "b": b} for name, what, a, b in self.changed],
            "config": [
                {"key": key, **({} if a is ABSENT else {"a": a}), **({} if b is ABSENT else {"b": b})}
                for key, a, b in self.config
            ],
        }


class Absent:
    def __repr__(self):
        return "(none)"


ABSENT = Absent()


def shown(value):
    return value if value is ABSENT else repr(value)


def diff(a, b):
    """The Difference from manifest a to manifest b; false when there is none."""
    ours, theirs = ({tensor.name: tensor for tensor in m.tensors} for m in (a, b))
    out = Difference(
        added=[name for name in theirs if name not in ours], removed=[name for name in ours if name not in theirs]
    )
    for name, x in ours.items():
        if (y := theirs.get(name)) is None:
            continue
        if x.dtype != y.dtype:
            out.changed.append((name, "dtype", x.dtype.name, y.dtype.name))
        if x.shape != y.shape:
            out.changed.append((name, "shape", x.shape, y.shape))
        if x.encoding != y.encoding:
            out.changed.append((name, "encoding", x.encoding or "plain", y.encoding or "plain"))
    before, after = flat(a.config), flat(b.config)
    for key in [*before, *(key for key in after if key not in before)]:
        x, y = before.get(key, ABSENT), after.get(key, ABSENT)
        # 1 and 1.0 are one number in JSON, True is none.
        if x is ABSENT or y is ABSENT or x != y or isinstance(x, bool) != isinstance(y, bool):
            out.config.append((key, x, y))
    return out


def flat(value, prefix=""):
    """{"a.b": value} of nested dicts."""
    if value is None and not prefix:
        return {}
    if not isinstance(value, dict) or (prefix and not value):
        return {prefix: value}
    return {
        key: leaf
        for name, inner in value.items()
        for key, leaf in flat(inner, f"{prefix}.{name}" if prefix else name).items()
    }
