# SPDX-License-Identifier: Apache-2.0
"""A plan as tables, and as JSON."""

import os
from dataclasses import asdict

from .errors import printable
from .page import amount, in_bytes
from .plan import OFFLOADS, PRECISIONS, STAGES, checkpoints, need, smallest

ON_TOP = (
    "Counted are weights, gradients and Adam's states, as DeepSpeed's own estimators count them. Activations,\n"
    "communication buffers and the CUDA context come on top."
)


def title_of(manifest, source):
    names = (manifest.config.get("architectures") if isinstance(manifest.config, dict) else None) or []
    first = names[0] if isinstance(names, list) and names else manifest.source.format or "described module"
    return f"{printable(os.path.basename(os.path.normpath(source)), 60)}, {printable(first, 60)}"


def page(title, p, precisions, world_sizes, offload, gpu_bytes, gpus_per_node):
    lines = [
        title,
        "",
        f"parameters   {p.total:,} ({amount(p.total)})",
        f"trained      {p.trainable:,} ({amount(p.trainable)})",
        f"embeddings   {p.embedding:,} ({amount(p.embedding)})",
    ]
    if p.experts:
        said = (
            f"{p.active:,} ({amount(p.active)}) active for a token"
            if p.active is not None
            else "how many are active is not known"
        )
        lines.append(f"experts      {p.experts:,} ({amount(p.experts)}); {said}")
    lines += [
        f"largest      {p.largest:,} ({amount(p.largest)}): {printable(p.largest_module)}",
        "",
        f"checkpoint, training in {precisions[0]}",
    ]
    lines += [f"  {what:<42}{in_bytes(size):>10}" for what, size in checkpoints(p, PRECISIONS[precisions[0]])]
    for name in precisions:
        lines += ["", *table(p, name, world_sizes, offload, gpu_bytes, gpus_per_node)]
    return "\n".join([*lines, "", ON_TOP])


def table(p, name, world_sizes, offload, gpu_bytes, gpus_per_node):
    precision = PRECISIONS[name]
    moved = "" if offload == "none" else f", offload of {offload} to memory of nodes of {gpus_per_node} GPUs"
    lines = [
        f"memory of each GPU, {name}{moved}",
        f"  {precision.text}",
        "  GPUs"
        + "".join(f"{f'ZeRO {stage}':>12}" for stage in STAGES)
        + ("" if offload == "none" else "    each node's memory"),
    ]
    for n in world_sizes:
        needs = [need(p, precision, stage, n, offload, gpus_per_node) for stage in STAGES]
        cells = [
            in_bytes(one.gpu) + (" *" if gpu_bytes and one.gpu <= gpu_bytes else "  " if gpu_bytes else "")
            for one in needs
        ]
        host = "" if offload == "none" else "    " + " / ".join(dict.fromkeys(in_bytes(one.host) for one in needs[1:]))
        lines.append(f"  {n:>4}" + "".join(f"{cell:>12}" for cell in cells) + host)
    if gpu_bytes:
        fits = smallest(p, precision, gpu_bytes, world_sizes, offload, gpus_per_node)
        said = [f"ZeRO {stage} from {n} GPU{'s' if n > 1 else ''}" for stage, n in fits.items() if n]
        lines.append(
            f"  * fits in {in_bytes(gpu_bytes)}: " + (", ".join(said) or f"nothing up to {world_sizes[-1]} GPUs")
        )
    return lines


def as_json(title, p, precisions, world_sizes, offload, gpu_bytes, gpus_per_node):
    assert offload in OFFLOADS
    out = {
        "model": title,
        "parameters": asdict(p),
        "offload": offload,
        "gpus_per_node": gpus_per_node,
        "gpu_memory": gpu_bytes,
        "precisions": {},
    }
    for name in precisions:
        needs = [need(p, PRECISIONS[name], stage, n, offload, gpus_per_node) for n in world_sizes for stage in STAGES]
        out["precisions"][name] = {
            "checkpoints": dict(checkpoints(p, PRECISIONS[name])),
            "memory": [
                {
                    "stage": one.stage,
                    "world_size": one.world_size,
                    "gpu": one.gpu,
                    "host": one.host,
                    "components": one.components,
                    **({"fits": one.gpu <= gpu_bytes} if gpu_bytes else {}),
                }
                for one in needs
            ],
        }
    return out
