# SPDX-License-Identifier: Apache-2.0
"""What a class has of its base class's rule: a head's rule begins with it, and only the head's own is found anew."""

import copy
import re

import numpy as np
from transformers import PreTrainedModel

from rules_maker import evaluate, textproto

INHERITED = ("parameter", "buffer", "choice", "tied", "layers", "renamed")
# Fields with names of the module or of files, or with fields that have them.
NAMES = ("name", "to", "prefix", "from", "part")


def prefixed(value, prefix, field=None):
    """The fields with the prefix before each name of the module and of files; also of parsed text, all of lists."""
    if isinstance(value, list):
        return [prefixed(one, prefix, field) for one in value]
    if isinstance(value, dict):
        return {k: prefixed(v, prefix, k) if k in NAMES else v for k, v in value.items()}
    return prefix + value


def inherited(base_rule, prefix, without):
    """What a class has of its base class's rule."""

    def kept(one):
        name = one.get("name", one.get("prefix", ""))
        return not any(re.search(pattern, name[0] if isinstance(name, list) else name) for pattern in without)

    out = {}
    for field in INHERITED:
        own = [one for one in base_rule.get(field, []) if kept(one)]
        out[field] = copy.deepcopy(own) if field in ("choice", "renamed") else prefixed(own, prefix)
    return out


def base_member(model):
    """(class, prefix) of the member that is the base class: (None, prefix) where there is none."""
    prefix = model.base_model_prefix or ""
    base = getattr(model, prefix or "-", None)
    # A member that is no model, as some classes have under that name, is no base class.
    return (type(base) if isinstance(base, PreTrainedModel) and base is not model else None), prefix


def members_without(base_rule, names, prefix):
    """Regular expressions for the members of the base class of which the class has nothing."""
    members = {}
    for parameter in base_rule["parameter"]:
        if "optional" not in parameter:
            member = parameter["name"].split(".")[0]
            members[member] = f"^{re.escape(member)}" + (r"\." if "." in parameter["name"] else "$")
    return [p for m, p in members.items() if not any(n == prefix + m or n.startswith(f"{prefix}{m}.") for n in names)]


def beginning(instance, base_rule, identities):
    """What the instance's class has of the base class's rule, or None where that is not exact for it."""
    prefix = base_member(instance.model)[1] + "."
    if base_rule is None or base_rule["model_type"] != instance.config["model_type"]:
        return None
    begin = inherited(base_rule, prefix, members_without(base_rule, instance.names, prefix))
    try:
        made, _ = evaluate.apply(textproto.parse(textproto.lines(begin)), identities, instance.config)
    except Exception:
        return None
    expected = [n for n in instance.order if n.startswith(prefix)]
    number = {n: (a.astype(np.int64) << 32) + p for n, (a, p) in instance.trace.of.items()}
    in_order = list(made) == expected == instance.order[: len(expected)]
    return begin if in_order and all(np.array_equal(made[n], number[n]) for n in made) else None
