#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes rules/MODEL_TYPE/CLASS.textproto of the classes of the installed transformers, by watching what they do.

    scripts/make_rules.py [--only REGEX] [--mappings CAUSAL_LM,MASKED_LM] [--jobs 2] [--keep]
    scripts/make_rules.py --check

Each class is studied in a process of its own, with a time limit. What is found lies as JSON in build/rules until all
classes of its family (those of the same config, and base classes) are studied; then the rules are written. Classes
without a rule stand in docs/classes_without_rules.md with the reason.
"""

import argparse
import collections
import importlib
import importlib.metadata
import json
import logging
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
warnings.filterwarnings("ignore")
os.environ.update(
    TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1"
)

FACTS = ROOT / "build" / "rules"
RULES = ROOT / "rules"
WITHOUT = ROOT / "docs" / "classes_without_rules.md"
VERSION = RULES / "VERSION.txt"
WITHOUT_HEAD = """# Classes of transformers without a rule

Written by scripts/make_rules.py. Files of these classes keep the names of their tensors. "From nowhere" are
parameters that transformers makes anew at each load.

| class | why it has no rule |
|---|---|
"""


# What no small model shows.
PROJECTION = "its projection enc_to_dec_proj is there only where two sizes of config.json differ"
SHARED = "which of its layers share their parameters is a matter of config.json, and the small models' numbers are no rule"
NOT_MADE = {
    "VisionEncoderDecoderModel": PROJECTION,
    "SpeechEncoderDecoderModel": PROJECTION,
    **dict.fromkeys(("ZambaModel", "ZambaForCausalLM", "ZambaForSequenceClassification"), SHARED),
    **dict.fromkeys(("DiffusionGemmaModel", "DiffusionGemmaForBlockDiffusion"), SHARED),
}


def installed_version():
    return importlib.metadata.version("transformers")


def check():
    """Whether the rules are those of the installed transformers."""
    made, installed = VERSION.read_text(encoding="utf-8").strip(), installed_version()
    if made != installed:
        sys.exit(
            f"rules/ was made with transformers {made}, and {installed} is installed: run scripts/make_rules.py, "
            "look at the changes of rules/ and docs/classes_without_rules.md, and commit them"
        )
    print(f"rules/ is of the installed transformers {installed}")


def classes():
    """({class name: mappings that have it}, {class name: model types}), of all automatic mappings of models."""
    from transformers.models.auto import modeling_auto

    mappings, types = collections.defaultdict(list), collections.defaultdict(set)
    for mapping, names in vars(modeling_auto).items():
        match = re.fullmatch(r"MODEL_(?:FOR_|WITH_)?(.*?)_?MAPPING_NAMES", mapping)
        for model_type, entry in names.items() if match else []:
            for name in entry if isinstance(entry, (tuple, list)) else [entry]:
                types[name].add(model_type)
                if (match[1] or "MODEL") not in mappings[name]:
                    mappings[name].append(match[1] or "MODEL")
    return dict(mappings), dict(types)


# Of base classes that transformers does not export: {class name: its module}.
MODULES = {}


def find(name):
    """The class of this name, or None."""
    import transformers

    found = getattr(transformers, name, None)
    if found is None and name in MODULES:
        found = getattr(importlib.import_module(MODULES[name]), name)
    return found


def warm_up():
    """Makes the parent import what every class needs, and do so once: children are copies of it."""
    import transformers
    from rules_maker.instance import Instance
    from rules_maker.study import study  # noqa: F401
    from rules_maker.tiny import first_working

    folder = tempfile.mkdtemp(prefix="rules")
    first_working(transformers.LlamaForCausalLM, "A", lambda model: Instance("A", type(model), model, folder))
    shutil.rmtree(folder)


def study_in_child(name, limit, options, find_rule):
    """Studies a class in a process of its own, which may crash or hang; (process, pipe with JSON).

    options: those that a class of the same config has found to matter, or None; find_rule: as of study()."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    signal.alarm(limit)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    folder = tempfile.mkdtemp(prefix="rules")
    from rules_maker.rule import NoRule
    from rules_maker.study import study

    try:
        facts = study(find(name), folder, options, find_rule)
    except NoRule as e:
        facts = {"reason": str(e)}
    except BaseException as e:
        import traceback

        where = traceback.extract_tb(e.__traceback__)[-1]
        facts = {
            "reason": f"{type(e).__name__}: {' '.join(str(e).split())[:110]}",
            "where": f"{where.filename}:{where.lineno}",
        }
    shutil.rmtree(folder, ignore_errors=True)
    with os.fdopen(write_end, "wb") as f:
        f.write(json.dumps(facts).encode())
    os._exit(0)


def finish(pid, read_end):
    """The facts of a child."""
    with os.fdopen(read_end, "rb") as f:
        data = f.read()
    os.waitpid(pid, 0)
    return json.loads(data) if data else {"reason": "it took too long, or too much memory"}


class Facts:
    """What is known of the classes, in FACTS and in memory."""

    def __init__(self, keep):
        self.keep, self.of = keep, {}
        FACTS.mkdir(parents=True, exist_ok=True)

    def path(self, name):
        return FACTS / f"{name}.json"

    def known(self, name):
        """Reads the facts of an earlier run, with --keep."""
        if name not in self.of and self.keep and self.path(name).exists():
            self.of[name] = json.loads(self.path(name).read_text(encoding="utf-8"))
        return name in self.of

    def options(self, name):
        """What classes of the same config have found, so that each need not search again."""
        try:
            config = getattr(find(name), "config_class", None)
        except ImportError:  # of a library that is not there
            return None
        return next(
            (own["options"] for own in self.of.values() if own.get("config_class") == getattr(config, "__name__", "-")),
            None,
        )

    def rule(self, name):
        """The rule of a class that is known, or None."""
        return self.of[name].get("rule") if self.known(name) else None

    def add(self, name, facts):
        self.of[name] = facts
        self.path(name).write_text(json.dumps(facts), encoding="utf-8")


def study_all(names, facts, jobs, limit):
    """Studies the classes, and the base classes that turn up."""
    todo, running, done = list(names), {}, 0
    seen = set(todo)
    while todo or running:
        while todo and len(running) < jobs:
            name = todo.pop(0)
            if name in NOT_MADE or find(name) is None:
                facts.add(name, {"reason": NOT_MADE.get(name, "transformers does not export it")})
            elif not facts.known(name):
                running[name] = (*study_in_child(name, limit, facts.options(name), facts.rule), time.time())
                continue
            follow(name, facts, seen, todo)
        if not running:
            continue
        name = next(iter(running))
        pid, read_end, start = running.pop(name)
        facts.add(name, finish(pid, read_end))
        done += 1
        reason = facts.of[name].get("reason")
        print(
            f"{done:5} {'no rule' if reason else 'exact':8} {name:52} {time.time() - start:6.1f} s  {reason or ''}",
            flush=True,
        )
        follow(name, facts, seen, todo)


def follow(name, facts, seen, todo):
    """A class's base class is studied too."""
    base = facts.of[name].get("base", {})
    if base.get("class") and base["class"] not in seen:
        MODULES[base["class"]] = base["module"]
        seen.add(base["class"])
        todo.append(base["class"])


def sub_configs(config, prefix=""):
    """[{key, model_type}] of the models of any type that the class holds, which the small ones had of these types."""
    from transformers import AutoConfig

    out = []
    for key, cls in (getattr(type(config), "sub_configs", None) or {}).items():
        own = getattr(config, key, None)
        if own is None:
            continue
        if cls is AutoConfig:
            out.append({"key": prefix + key, "model_type": own.model_type})
        out += sub_configs(own, f"{prefix}{key}.")
    return out


def of_types(name):
    """The same of a class, by its default config, whose types small models keep."""
    try:
        return sub_configs(find(name).config_class())
    except Exception:
        return []


def write_rules(names, facts, version):
    """The files of these classes; a class that has no rule now loses its file."""
    from rules_maker import family

    made = 0
    exact = {name: f for name, f in facts.of.items() if "rule" in f}
    for name in names:
        old = list(RULES.glob(f"*/{name}.textproto"))
        path = RULES / exact[name]["rule"]["model_type"] / f"{name}.textproto" if name in exact else None
        for file in old:
            if file != path:
                file.unlink()
        if path:
            path.parent.mkdir(exist_ok=True)
            path.write_text(family.text(name, exact, version, of_types(name)), encoding="utf-8")
            made += 1
    return made


def write_reasons(facts):
    """Rows of classes that were not studied now stay."""
    rows = (
        dict(re.findall(r"^\| (\w+) \| (.*) \|$", WITHOUT.read_text(encoding="utf-8"), re.M))
        if WITHOUT.exists()
        else {}
    )
    for name, own in facts.of.items():
        rows.pop(name, None)
        if "reason" in own:
            rows[name] = own["reason"].replace("|", "/")
    WITHOUT.write_text(
        WITHOUT_HEAD + "".join(f"| {name} | {rows[name]} |\n" for name in sorted(rows)), encoding="utf-8"
    )


def with_family(chosen, types):
    """The chosen classes and those of the same model types, which tell the heads of siblings."""
    wanted = set().union(*(types[name] for name in chosen))
    return {name for name in types if types[name] & wanted}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="a regular expression for names of classes")
    parser.add_argument(
        "--mappings", default="", help="of transformers' automatic classes: CAUSAL_LM,MASKED_LM; MODEL for base classes"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=int, default=240, help="seconds for a class")
    parser.add_argument("--keep", action="store_true", help="do not study again what an earlier run has in build/rules")
    parser.add_argument(
        "--check", action="store_true", help="only say whether the rules are of the installed transformers"
    )
    return parser.parse_args()


def main():
    options = arguments()
    if options.check:
        return check()
    logging.disable(50)
    import torch

    torch.set_num_threads(1)
    every, types = classes()
    wanted = set(filter(None, options.mappings.split(",")))
    chosen = {
        n for n, mappings in every.items() if re.search(options.only, n) and (not wanted or wanted & set(mappings))
    }
    facts = Facts(options.keep)
    warm_up()
    # Base classes first, whose rules heads begin with; then the chosen ones: a run that is stopped has them.
    order = sorted(with_family(chosen, types), key=lambda n: ("MODEL" not in every[n], n not in chosen, n))
    study_all(order, facts, options.jobs, options.limit)
    names = sorted(facts.of)
    made = write_rules(names, facts, installed_version())
    write_reasons(facts)
    VERSION.write_text(installed_version() + "\n", encoding="utf-8")
    for mapping in sorted({m for n in chosen for m in every[n]}):
        own = [n for n in chosen if mapping in every[n]]
        print(f"{mapping}: {sum('rule' in facts.of[n] for n in own)} of {len(own)} classes have a rule")
    print(f"{made} rules of {len(names)} classes; the others stand in {WITHOUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
