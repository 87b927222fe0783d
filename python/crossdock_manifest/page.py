# SPDX-License-Identifier: Apache-2.0
"""A manifest as a page of text."""

from collections import Counter

from .errors import ManifestError, printable
from .count import parameters
from .schema import Role


def amount(n):
    """12.3 B, 60.5 K: of parameters, in thousands."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if n >= size:
            return f"{n / size:.3g} {unit}" if n < 999.5 * size else f"{n / size:.0f} {unit}"
    return str(n)


def in_bytes(n):
    """1.5 GiB: in units of 1024, as memory is sold."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if n >= 1 << shift:
            size = n / (1 << shift)
            return f"{size:.0f} {unit}" if size >= 100 else f"{size:.1f} {unit}"
    return f"{n} B"


def summary(manifest, tensors=False):
    """What the checkpoint holds, for people; tensors=True: with a line for each tensor."""
    rows = [("format", manifest.source.format or "(a description of a module)")]
    for file in manifest.source.files[:20]:
        rows.append(("file", f"{file.name}, {in_bytes(file.size)}" + (f", {file.path}" if file.path else "")))
    if (more := len(manifest.source.files) - 20) > 0:
        rows.append(("", f"and {more} more, {in_bytes(sum(file.size for file in manifest.source.files))} in all"))
    rows.append(("tensors", of_tensors(manifest)))
    rows += of_parameters(manifest)
    if isinstance(manifest.config, dict):
        names = manifest.config.get("architectures")
        named = ", ".join(map(str, names)) if isinstance(names, list) else names
        rows.append(("class", f"{named or 'not named'} ({manifest.config.get('model_type', 'no model_type')})"))
    for group in manifest.alias_groups[:20]:
        rows.append(("one tensor", " = ".join(manifest.tensors[i].name for i in group.tensors[:8])))
    training = manifest.training
    if training.groups or training.moments or training.step:
        kinds = sorted({moment.kind for moment in training.moments})
        rows.append(
            (
                "training",
                f"{training.optimizer or 'optimizer not named'}, step {training.step}, "
                f"{len(training.groups)} groups, moments: {', '.join(kinds) or 'none'}",
            )
        )
    for file in manifest.aux_files[:20]:
        rows.append(("beside", file.name))
    for step in manifest.provenance:
        rows.append(("made by", " ".join(filter(None, (step.tool, step.plugin)))))
    lines = [f"{label:<12}{printable(line, 1000)}" for label, line in rows]
    if tensors:
        lines += ["", *(line_of(tensor) for tensor in manifest.tensors)]
    return "\n".join(lines)


def of_tensors(manifest):
    types = Counter(tensor.dtype.name for tensor in manifest.tensors if not tensor.excluded)
    left_out = sum(1 for tensor in manifest.tensors if tensor.excluded)
    return (
        f"{len(manifest.tensors)}: "
        + ", ".join(f"{n} x {name}" for name, n in types.most_common())
        + (f", {left_out} left out" if left_out else "")
    )


def of_parameters(manifest):
    try:
        p = parameters(manifest)
    except ManifestError:
        return [("parameters", "none")]
    rows = [
        (
            "parameters",
            f"{p.total} ({amount(p.total)}), {amount(p.trainable)} trained, {amount(p.embedding)} of embeddings",
        ),
        ("largest", f"{p.largest_module}, {amount(p.largest)}"),
    ]
    if p.experts:
        said = (
            f"{amount(p.active)} active for a token"
            if p.active is not None
            else "config.json does not say how many are active"
        )
        rows.insert(1, ("experts", f"{amount(p.experts)}, {said}"))
    return rows


def line_of(tensor):
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    marks = [
        mark
        for mark in (
            tensor.role.name.lower() if tensor.role > Role.PARAMETER else "",
            printable(tensor.encoding),
            f"left out: {printable(tensor.excluded)}" if tensor.excluded else "",
            f"= {printable(tensor.expression)}" if tensor.expression else "",
        )
        if mark
    ]
    return f"{tensor.dtype.name:<10} {shape:<20} {printable(tensor.name, 400)}" + (
        f"  ({'; '.join(marks)})" if marks else ""
    )
