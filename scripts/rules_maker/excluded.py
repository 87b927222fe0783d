# SPDX-License-Identifier: Apache-2.0
"""Tensors of files that a class has not: buffers that it computes, names that transformers ignores, heads of sibling
classes."""

import re

from rules_maker.names import NUMBER

# Buffers that files of transformers 4 hold and the classes of today compute, or have no more. Their classes cannot
# tell.
OLD_BUFFERS = {
    r"\.attn\.(bias|masked_bias)$": ("a mask that the class makes", "gpt2 imagegpt decision_transformer gptj codegen"),
    r"\.attn\.attention\.(bias|masked_bias)$": ("a mask that the class makes", "gpt_neo"),
    r"\.attention\.(bias|masked_bias)$": ("a mask that the class makes", "gpt_neox gpt_neox_japanese"),
    r"rotary_emb\.inv_freq$": ("a buffer that the class computes", "gpt_neox gpt_neox_japanese"),
}
# What ECMAScript's regular expressions cannot say.
PYTHON_ONLY = re.compile(r"\(\?[<Pimsx#]|\\[AZ]")


def suffix(name):
    """The last parts of a buffer's name that are no numbers, at most two, as a regular expression."""
    parts = []
    for part in reversed(name.split(".")):
        if NUMBER.fullmatch(part) or len(parts) == 2:
            break
        parts.insert(0, re.escape(part))
    # A single name must stand alone, or behind a number.
    return (r"(^|\.)" if len(parts) == 1 else "") + r"\.".join(parts) + "$"


def ignored_reason(pattern, cls):
    if "mtp" in pattern:
        return "a head for multi-token prediction, which the class has not"
    return f"transformers does not load it into {cls.__name__}"


def exclusions(cls, modules, model_type, taken):
    """[{"name", "reason"}]. taken: names of parameters, buffers and tensors of files, which no regular expression may
    match."""
    found = dict.fromkeys((suffix(name) for m in modules for name in m.computed), "a buffer that the class computes")
    for pattern in cls._keys_to_ignore_on_load_unexpected or []:
        found.setdefault(pattern, ignored_reason(pattern, cls))
    for pattern, (reason, types) in OLD_BUFFERS.items():
        if model_type in types.split():
            found.setdefault(pattern, reason)
    return [{"name": p, "reason": reason} for p, reason in found.items() if usable(p, taken)]


def usable(pattern, taken):
    if PYTHON_ONLY.search(pattern):
        return False
    regex = re.compile(pattern)
    return not any(regex.search(name) for name in taken)


def sibling_heads(own, siblings, prefix):
    """What other classes of the same config have beside the base class and this one has not, as exclusions.

    own, siblings: facts. A head's own members count where both classes have the head: "cls.seq_relationship"."""
    mine = {".".join(n.split(".")[:depth]) for n in own["taken"] for depth in (1, 2)}
    heads = set()
    for sibling in siblings:
        base = sibling.get("base", {}).get("prefix")
        # A class without the base class's member is the base class: its members are no heads.
        if not base or base not in sibling["members"]:
            continue
        for name in sibling["taken"]:
            parts = name.split(".")
            path = parts[0] if parts[0] not in mine else ".".join(parts[:2])
            inside = name[len(path) :]
            if (
                parts[0] not in (base, prefix[:-1])
                and path not in mine
                and not parts[-1].isdigit()
                and (inside or "." not in path)
            ):
                heads.add(re.escape(path) + (r"\." if inside else "$"))
    plain = sorted(h[:-2] for h in heads if h.endswith(r"\."))
    patterns = ["^(" + "|".join(plain) + r")\."] if len(plain) > 1 else [f"^{p}" + r"\." for p in plain]
    patterns += [f"^{h}" for h in sorted(heads) if h.endswith("$")]
    return [{"name": p, "reason": "heads of other classes of this model"} for p in patterns]
