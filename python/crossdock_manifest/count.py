# SPDX-License-Identifier: Apache-2.0
"""How many parameters a model has: in all, trained, of embeddings, of experts and of its largest module."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from .errors import ManifestError
from .schema import Training

# Modules that are lookup tables, by the names that Hugging Face's models and GGUF give them.
EMBEDDING = re.compile(
    r"(^|[._])(embed_tokens|embed_positions|embed_in|embeddings?|tok_embeddings|token_embd|wte|wpe|shared)"
    r"(\.[^.]+)?\.weight$"
)
EXPERT = re.compile(r"(^|\.)experts\.")
ONE_OF_EXPERTS = re.compile(r"((?:^|\.)experts)\.\d+\..*$")
EXPERTS_IN_ALL = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
EXPERTS_AT_ONCE = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_topk",
    "moe_k",
    "top_k_experts",
    "num_selected_experts",
)


@dataclass
class Parameters:
    total: int
    trainable: int
    embedding: int
    experts: int  # of routed experts; they are in total
    active: int | None  # that a token meets; None: config.json does not say how many experts it picks
    largest: int  # of the module that has most of its own: what ZeRO-3 gathers at once
    largest_module: str
    by_dtype: dict  # {element type: parameters}
    stored_bytes: int  # of parameters and buffers in the source's types
    buffer_bytes: int
    count: int  # tensors that are parameters


def parameters(manifest, trainable=None, frozen=None):
    """The Parameters of a manifest.

    A tied name counts once. trainable, frozen: regular expressions of names, as of `crossdock convert`: only those are
    trained, or all but those.
    """
    others = {i for group in manifest.alias_groups for i in group.tensors[1:]}
    tensors = [t for i, t in enumerate(manifest.tensors) if not t.excluded and i not in others]
    tied = tied_head(manifest, tensors)
    ours = [t for t in tensors if t.is_parameter and t is not tied]
    buffers = sum(t.value_bytes for t in tensors if not t.is_parameter and t.role != 3)
    if not ours:
        raise ManifestError("expected a model with parameters, found no tensor of floating point")
    total = sum(t.elements for t in ours)
    experts = sum(t.elements for t in ours if EXPERT.search(t.target))
    modules, dtypes = Counter(), Counter()
    for t in ours:
        modules[module_of(t.target)] += t.elements
        dtypes[t.dtype.name] += t.elements
    largest_module, largest = max(modules.items(), key=lambda item: item[1])
    return Parameters(
        total,
        sum(t.elements for t in ours if is_trained(t, trainable, frozen)),
        sum(t.elements for t in ours if EMBEDDING.search(t.target)),
        experts,
        active(manifest.config, total, experts),
        largest,
        largest_module,
        dict(dtypes),
        sum(t.value_bytes for t in ours) + buffers,
        buffers,
        len(ours),
    )


def is_trained(tensor, trainable, frozen):
    try:
        if trainable and not re.search(trainable, tensor.target):
            return False
        return tensor.train != Training.FROZEN and not (frozen and re.search(frozen, tensor.target))
    except re.error as error:
        raise ManifestError(f"expected a regular expression of names, found {trainable or frozen}: {error}") from None


def tied_head(manifest, tensors):
    """An output embedding that config.json ties to the input's, where files hold both: the job has one of them."""
    if not (isinstance(manifest.config, dict) and manifest.config.get("tie_word_embeddings") is True):
        return None
    heads = [t for t in tensors if t.target.endswith(("lm_head.weight", "embed_out.weight"))]
    twins = [t for t in tensors if EMBEDDING.search(t.target)]
    return next((head for head in heads if any(twin.shape == head.shape for twin in twins)), None)


def module_of(name):
    """The module that a parameter belongs to. Experts one by one are one module, as transformers 5 stacks them."""
    if ONE_OF_EXPERTS.search(name):
        return ONE_OF_EXPERTS.sub(r"\1", name)
    return name.rpartition(".")[0]


def active(config, total, experts):
    """Of a model without experts all."""
    if not experts:
        return total
    configs = [config] if isinstance(config, dict) else []
    configs += [inner for outer in configs for inner in outer.values() if isinstance(inner, dict)]
    for one in configs:
        in_all, at_once = (
            next((one[key] for key in keys if type(one.get(key)) is int), 0)
            for keys in (EXPERTS_IN_ALL, EXPERTS_AT_ONCE)
        )
        if 0 < at_once <= in_all:
            return total - experts + experts * at_once // in_all
    return None
