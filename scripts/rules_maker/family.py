# SPDX-License-Identifier: Apache-2.0
"""Writes the rules of classes that belong together: a class that holds the base class says only what is its own.

Facts are what study() gives, by class.
"""

import re

from rules_maker import textproto
from rules_maker.excluded import sibling_heads, usable
from rules_maker.inherit import INHERITED, inherited

LEFT_OUT = "a part of the base class that this class leaves out"


def left_out(base_rule, rule, prefix):
    """Regular expressions for the members of the base class that this class's member has not."""
    own = {p["name"] for p in rule["parameter"]} | {t["name"] for t in rule["tied"]}
    missing = [p["name"] for p in base_rule["parameter"] if prefix + p["name"] not in own]
    members = {}
    for name in missing:
        member = name.split(".")[0]
        members[member] = f"^{re.escape(member)}" + (r"\." if "." in name else "$")
    partly = [
        m
        for m in members
        if any(n.startswith((f"{prefix}{m}.", f"{prefix}{m}")) and n.split(".")[prefix.count(".")] == m for n in own)
    ]
    return None if partly else list(members.values())


def on_base(rule, base_rule, prefix):
    """The rule as its base's and what is its own, or None where it is not that exactly."""
    without = left_out(base_rule, rule, prefix)
    if without is None or base_rule["model_type"] != rule["model_type"]:
        return None
    begin = inherited(base_rule, prefix, without)
    own = {
        "model_type": rule["model_type"],
        "architecture": rule["architecture"],
        "base": {
            "architecture": base_rule["architecture"],
            "prefix": prefix,
            **({"without": without} if without else {}),
        },
    }
    for field in INHERITED:
        got, expected = begin[field], rule.get(field, [])
        if field in ("parameter", "buffer"):
            if got != expected[: len(got)]:
                return None
            rest = expected[len(got) :]
        else:
            if any(one not in expected for one in got):
                return None
            rest = [one for one in expected if one not in got]
        if rest:
            own[field] = rest
    return own


def expand(rule, find):
    """A parsed rule with what it inherits. find(architecture) -> the parsed rule of that class."""
    base = (rule.get("base") or [{}])[0]
    if "architecture" not in base:
        return rule
    begin = inherited(expand(find(base["architecture"][0]), find), base["prefix"][0], base.get("without", []))
    return {**rule, **{f: begin.get(f, []) + rule.get(f, []) for f in INHERITED}}


def family_rule(name, facts):
    """The rule of a class as it is written. facts: of all classes."""
    own = facts[name]
    full = own["rule"]
    prefix = own["base"]["prefix"] + "." if own["base"]["prefix"] else ""
    base = facts.get(own["base"]["class"] or "", {})
    out = on_base(full, base["rule"], prefix) if "rule" in base and base is not own else None
    excluded = list(own["excluded"])
    if "rule" in base and base is not own:
        for pattern in left_out(base["rule"], own["rule"], prefix) or []:
            excluded.append({"name": "^" + re.escape(prefix) + pattern[1:], "reason": LEFT_OUT})
    siblings = [
        facts[other]
        for other in sorted(facts)
        if other != name and facts[other].get("config_class") == own["config_class"]
    ]
    excluded += sibling_heads(own, siblings, prefix)
    if out is None:
        out = {**full, **({"base": {"prefix": prefix}} if prefix else {})}
    out["excluded"] = [one for one in excluded if usable(one["name"], own["taken"])]
    return {k: out[k] for k in ("model_type", "architecture", "base", "unordered", *INHERITED, "excluded") if out.get(k)}


def text(name, facts, version, sub_configs):
    """The file. sub_configs: the types of the models that the class holds, where it may hold others."""
    rule = family_rule(name, facts)
    own = sub_configs if "architecture" not in rule.get("base", {}) else []  # else the base class's rule says it
    place = list(rule).index("architecture") + 1
    fields = [*rule.items()][:place] + [("sub_config", own)] + [*rule.items()][place:]
    return f"# {name} of transformers {version}, made by scripts/make_rules.py.\n" + textproto.lines(dict(fields))
