# SPDX-License-Identifier: Apache-2.0
"""What one parameter is made of, read off its elements: an expression of stored tensors.

    Stored(name, ops)                a tensor of the file, then operations
    Join(kind, dim, parts, ops)      "concat" along dim, or "stack" along a new first dimension; then operations

Operations, with the numbers of this one model: ("part", dim, begin, size, of), ("split", dim, sizes), ("merge", dim,
count), ("permute", dims), ("squeeze", dim), ("unsqueeze", dim), ("reshape", sizes); of a concat alone ("sizes", of
its parts, rank).
"""

import collections

import numpy as np

from rules_maker.codes import CHANGED, NOWHERE

Stored = collections.namedtuple("Stored", "name ops")
Join = collections.namedtuple("Join", "kind dim parts ops")


class Unclear(Exception):
    """No expression of the kinds above gives these elements."""


def nested_steps(values):
    """A sequence that starts at 0 as nested arithmetic progressions [(count, step)], outermost first."""
    n = len(values)
    if n == 1:
        return []
    step, inner = values[1], 1
    while inner < n and values[inner] == inner * step:
        inner += 1
    while n % inner:
        inner -= 1
    if inner == 1 or not np.array_equal(values.reshape(-1, inner), values[::inner][:, None] + values[:inner]):
        raise Unclear("its elements are in an irregular order")
    return nested_steps(values[::inner]) + [(inner, int(step))]


def picked(coordinates, shape):
    """(operations that pick the part of a stored tensor in which these elements lie, shape of the part)."""
    ops, part, shift = [], [], 0
    for dim, (coordinate, of) in enumerate(zip(coordinates, shape)):
        used = np.unique(coordinate)
        step = int(used[1] - used[0]) if len(used) > 1 else 1
        if len(used) > 1 and not (np.diff(used) == step).all():
            raise Unclear("its elements are an irregular part of a tensor")
        if step > 1:
            if of % step or len(used) != of // step:
                raise Unclear("its elements are rows of a tensor at an irregular distance")
            ops += [
                ("split", dim + shift, (of // step, step)),
                ("part", dim + shift + 1, int(used[0]), 1, step),
                ("squeeze", dim + shift + 1),
            ]
        elif len(used) < of:
            ops.append(("part", dim + shift, int(used[0]), len(used), of))
        part.append(len(used))
    return ops, part


def runs_of_digits(sizes, digits):
    """For each size the indexes of the digits whose product it is, in order; None where they do not nest."""
    out, at = [], 0
    for size in sizes:
        begin, product = at, 1
        while product < size and at < len(digits):
            product *= digits[at]
            at += 1
        if product != size:
            return None
        out.append(range(begin, at))
    return out if at == len(digits) else None


def without_ones(shape, op):
    """Operations that take dimensions of size 1 away ("squeeze"), or put them in ("unsqueeze")."""
    ones = [dim for dim, size in enumerate(shape) if size == 1]
    return [(op, dim) for dim in (reversed(ones) if op == "squeeze" else ones)]


def reordered(order, part, shape):
    """Operations that bring the elements of a part (of that shape) into this order and shape. order: their places in
    the part."""
    if np.array_equal(order.ravel(), np.arange(order.size)):
        if list(shape) == list(part):
            return []
        if [n for n in shape if n != 1] == [n for n in part if n != 1]:
            return without_ones(part, "squeeze") + without_ones(shape, "unsqueeze")
        return [("reshape", tuple(shape))]
    if order.flat[0] != 0:
        raise Unclear("its elements are reversed")
    steps, total = [], np.zeros_like(order)
    for dim in range(order.ndim):
        line = order[tuple(slice(None) if d == dim else 0 for d in range(order.ndim))]
        total = total + line.reshape([-1 if d == dim else 1 for d in range(order.ndim)])
        steps += nested_steps(line)
    if not np.array_equal(total, order):
        raise Unclear("its elements are in an irregular order")
    # The steps of the parameter, sorted by their distance in the stored tensor, are the digits of a place there.
    stored = sorted(range(len(steps)), key=lambda i: -steps[i][1])
    digits, permutation, expected = [steps[i][0] for i in stored], [stored.index(i) for i in range(len(steps))], 1
    for i in reversed(stored):
        if steps[i][1] != expected:
            raise Unclear("its elements are no permutation of dimensions")
        expected *= steps[i][0]
    return digit_operations(digits, permutation, part, shape)


def digit_operations(digits, permutation, part, shape):
    """Split the stored dimensions into digits, permute them, merge them into the parameter's dimensions."""
    sources, targets = [n for n in part if n != 1], [n for n in shape if n != 1]
    splits, merges = runs_of_digits(sources, digits), runs_of_digits(targets, [digits[i] for i in permutation])
    permute = ("permute", tuple(permutation))
    if splits is None or merges is None:
        return [("reshape", tuple(digits)), permute, ("reshape", tuple(shape))]
    if (
        all(len(r) == 1 for r in splits)
        and all(len(r) == 1 for r in merges)
        and len(part) == len(sources) == len(shape)
    ):
        return [permute]
    ops = without_ones(part, "squeeze")
    ops += [
        ("split", dim, tuple(digits[i] for i in run)) for dim, run in reversed(list(enumerate(splits))) if len(run) > 1
    ]
    ops.append(permute)
    ops += [("merge", dim, len(run)) for dim, run in enumerate(merges) if len(run) > 1]
    return ops + without_ones(shape, "unsqueeze")


def stored(name, places, shape):
    """The expression of a parameter all of whose elements come from one tensor."""
    if not shape:
        return Stored(name, () if places.ndim == 0 else (("unsqueeze", 0),) * places.ndim)
    whole = places.size == int(np.prod(shape)) and np.array_equal(places.ravel(), np.arange(places.size))
    if whole:                  # Most are: no need to look closer.
        return Stored(name, tuple(reordered(places, shape, places.shape)))
    coordinates = np.unravel_index(places.ravel(), shape)
    ops, part = picked(coordinates, shape)
    if int(np.prod(part)) != places.size:
        raise Unclear("it has some elements of a tensor twice or not at all")
    local = [np.searchsorted(np.unique(c), c) for c in coordinates]
    order = np.ravel_multi_index(local, part).reshape(places.shape)
    return Stored(name, tuple(ops + reordered(order, part, places.shape)))


def expression(numbers, places, names, shapes):
    """The expression of a parameter. numbers, places: of its elements, as Trace has them; names, shapes: of the
    file's tensors."""
    if numbers.size == 0:
        raise Unclear("it has no elements")
    first = numbers.flat[0]
    if (numbers == first).all():
        if first in (NOWHERE, CHANGED):
            raise Unclear("it comes from nowhere" if first == NOWHERE else "its values are changed")
        return stored(names[first], places, tuple(shapes[names[first]]))
    for dim in range(numbers.ndim):
        rows = np.moveaxis(numbers, dim, 0).reshape(numbers.shape[dim], -1)
        if not (rows == rows[:1]).all():
            return joined(numbers, places, names, shapes, dim, rows)


def joined(numbers, places, names, shapes, dim, rows):
    """The expression of a parameter whose sources change along this dimension."""
    count = len(rows)
    cuts = [0, *(int(i) + 1 for i in np.nonzero((rows[1:] != rows[:-1]).any(1))[0]), count]
    seen = [rows[i].tobytes() for i in cuts[:-1]]
    piece = lambda x, begin, end: x[tuple(slice(begin, end) if d == dim else slice(None) for d in range(x.ndim))]
    if len(set(seen)) < len(seen):  # sources come back: their rows take turns
        period = cuts[seen.index(seen[0], 1)]
        if count % period or not (rows.reshape(count // period, period, -1) == rows[:period]).all():
            raise Unclear("the rows of its tensors take turns irregularly")
        turns = numbers.shape[:dim] + (count // period, period) + numbers.shape[dim + 1 :]
        n, p = numbers.reshape(turns), places.reshape(turns)
        parts = tuple(expression(n.take(i, dim + 1), p.take(i, dim + 1), names, shapes) for i in range(period))
        order = (*range(1, dim + 2), 0, *range(dim + 2, numbers.ndim + 1))
        return Join("stack", 0, parts, (("permute", order), ("merge", dim, 2)))
    runs = list(zip(cuts, cuts[1:]))
    lower = all(len(shapes[names[n]]) < numbers.ndim for n in np.unique(numbers) if n >= 0)
    if lower and all(end - begin == 1 for begin, end in runs):
        parts = tuple(expression(numbers.take(i, dim), places.take(i, dim), names, shapes) for i, _ in runs)
        order = (*range(1, dim + 1), 0, *range(dim + 1, numbers.ndim))
        return Join("stack", 0, parts, () if dim == 0 else (("permute", order),))
    parts = tuple(expression(piece(numbers, *r), piece(places, *r), names, shapes) for r in runs)
    return Join("concat", dim, parts, (("sizes", tuple(end - begin for begin, end in runs), numbers.ndim),))
