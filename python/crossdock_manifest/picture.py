# SPDX-License-Identifier: Apache-2.0
"""A plan as an SVG picture: a row for each precision, a panel for each ZeRO stage, a bar for each world size."""

import math
from html import escape

from .page import amount, in_bytes
from .plan import COMPONENTS, PRECISIONS, STAGES, need

COLOURS = dict(zip(COMPONENTS, ("#2f5d8a", "#8fb4d9", "#d9822b", "#f2c48d", "#3f8f6b", "#a3d3bc")))
INK, FAINT, LIMIT = "#222222", "#d9dde2", "#c0392b"
LEFT, TOP, BETWEEN, PANEL_HEIGHT, ROW_GAP, RIGHT, FOOT = 74, 118, 18, 230, 94, 24, 16
BAR, BAR_GAP = 34, 12


class Svg:
    def __init__(self, width, height):
        self.size = (width, height)
        self.parts = []

    def rect(self, x, y, width, height, fill):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>')

    def line(self, x1, y1, x2, y2, stroke, dash=""):
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dashes}/>')

    def text(self, x, y, text, size=12, anchor="start", fill=INK, weight="normal", halo=False):
        """halo: a white edge, to be read across a line; written twice, for few programs know paint-order."""
        for edge in ([' stroke="#ffffff" stroke-width="4"'] if halo else []) + [""]:
            self.parts.append(
                f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
                f'font-weight="{weight}"{edge}>{escape(text)}</text>'
            )

    def __str__(self):
        width, height = self.size
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">\n'
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def unit_of(top):
    """The unit in which sizes up to `top` are short numbers: (its name, its bytes)."""
    return next(
        (name, size)
        for name, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))
        if top >= size or size == 1
    )


def ticks(top):
    """Up to six round numbers of bytes from 0, the last at or above `top`."""
    unit = unit_of(top)[1]
    step = next(
        step for step in (0.2, 0.25, 0.5, 1, 2, 2.5, 5, 10, 20, 25, 50, 100, 200, 250, 500) if step * 5 * unit >= top
    )
    count = math.ceil(top / (step * unit))
    return [step * unit * i for i in range(count + 1)]


def picture(title, p, precisions, world_sizes, offload, gpu_bytes, gpus_per_node):
    """The text of the SVG."""
    panel = len(world_sizes) * (BAR + BAR_GAP) + BAR_GAP
    width = max(LEFT + len(STAGES) * (panel + BETWEEN) + RIGHT, 840)
    svg = Svg(width, TOP + len(precisions) * (PANEL_HEIGHT + ROW_GAP) + FOOT)
    svg.text(LEFT, 30, f"Memory of each GPU: {title}", 17, weight="bold")
    moved = "" if offload == "none" else f", offload of {offload}"
    svg.text(
        LEFT,
        50,
        f"{amount(p.total)} parameters, {amount(p.trainable)} trained with Adam{moved}; activations come on top",
        12,
        fill="#555555",
    )
    x = LEFT
    for name in COMPONENTS:
        svg.rect(x, 64, 12, 12, COLOURS[name])
        svg.text(x + 17, 74, name, 12)
        x += 38 + 6.4 * len(name)
    if gpu_bytes:
        svg.line(x, 70, x + 24, 70, LIMIT, "5 3")
        svg.text(x + 29, 74, f"a GPU of {in_bytes(gpu_bytes)}", 12, fill=LIMIT)
    for row, name in enumerate(precisions):
        needs = {
            stage: [need(p, PRECISIONS[name], stage, n, offload, gpus_per_node) for n in world_sizes]
            for stage in STAGES
        }
        draw_row(svg, TOP + row * (PANEL_HEIGHT + ROW_GAP), name, needs, panel, gpu_bytes)
    svg.text(
        LEFT,
        svg.size[1] - 16,
        "Number of GPUs below each bar; the same bytes for a parameter as in DeepSpeed's own estimators.",
        11,
        fill="#555555",
    )
    return str(svg)


def draw_row(svg, top, name, needs, panel, gpu_bytes):
    most = max(one.gpu for ones in needs.values() for one in ones)
    # A bar that no GPU could hold is cut, so that those that fit stay to be seen.
    shown = min(most, 3 * gpu_bytes) if gpu_bytes else most
    marks = ticks(shown * 1.06)
    unit, unit_size = unit_of(marks[-1])
    scale, bottom = PANEL_HEIGHT / marks[-1], top + 30 + PANEL_HEIGHT
    svg.text(LEFT, top - 12, name, 13, fill="#555555")
    for stage, ones in needs.items():
        left = LEFT + stage * (panel + BETWEEN)
        svg.text(left, top + 8, f"ZeRO {stage}", 13, weight="bold")
        for mark in marks:
            y = bottom - mark * scale
            svg.line(left, y, left + panel, y, INK if mark == 0 else FAINT)
            if stage == 0:
                svg.text(left - 8, y + 4, f"{mark / unit_size:g} {unit}" if mark else "0", 11, "end", "#555555")
        tops = [
            draw_bar(svg, left + BAR_GAP + i * (BAR + BAR_GAP), bottom, one, scale, marks[-1])
            for i, one in enumerate(ones)
        ]
        if gpu_bytes and gpu_bytes <= marks[-1]:
            y = bottom - gpu_bytes * scale
            svg.line(left, y, left + panel, y, LIMIT, "5 3")
        for i, (one, y) in enumerate(zip(ones, tops)):
            middle, size = left + BAR_GAP + i * (BAR + BAR_GAP) + BAR / 2, one.gpu / unit_size
            svg.text(
                middle,
                y - 4,
                f"{size:.0f}" if size >= 100 else f"{size:.2g}" if size < 10 else f"{size:.3g}",
                11,
                "middle",
                halo=True,
            )
            svg.text(middle, bottom + 15, str(one.world_size), 11, "middle")


def draw_bar(svg, x, bottom, one, scale, most):
    """Returns the y of its top."""
    height = 0
    for name in COMPONENTS:
        size = min(one.components[name], most - height)
        if size > 0:
            svg.rect(x, bottom - (height + size) * scale, BAR, size * scale, COLOURS[name])
            height += size
    y = bottom - height * scale
    if one.gpu > most:  # cut: two white strokes across the bar
        for dy in (8, 13):
            svg.line(x - 2, y + dy + 4, x + BAR + 2, y + dy - 4, "#ffffff")
    return y
