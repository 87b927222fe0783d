# SPDX-License-Identifier: Apache-2.0
"""Configs like a given one with one option changed, where that changes which parameters the class has."""

import copy
import json
import re

from transformers import configuration_utils

from rules_maker.dims import changed_config, module_of
from rules_maker.instance import Module, flat
from rules_maker.names import numbered
from rules_maker.tiny import KIND_LISTS, LAYER_KEYS, Config, attempt_set, count, cut, fresh, skeleton

# Options that are no matter of the checkpoint, or are tied_variants' matter.
NO_OPTION = re.compile(
    r"tie_|use_cache|output_|return_dict|gradient|is_decoder|is_encoder|chunk|training|scale_embedding|dtype|"
    r"pretrained|freeze|token_id|window|logits_to_keep|labels|_tp$"
)
# Options with words as values; transformers' configs do not tell which words they take.
WORDS = {
    "feat_extract_norm": ("group", "layer"),
    "feed_forward_proj": ("relu", "gated-gelu"),
    "position_embedding_type": ("absolute", "relative_key"),
}
# The words that lists of layers' kinds may hold.
KINDS = (*getattr(configuration_utils, "ALLOWED_LAYER_TYPES", ()), "mlp", "mamba", "attention")
# Options that list the layers which are special.
SPECIAL_LAYERS = re.compile(r"(layers|idxs|indices|layer_ids)$")
# Numbers that are sizes, not switches.
NO_SWITCH = re.compile(r"^(num|n)_.*layers?$|^depth$|heads?$|size|dim|kernel|width|stride|channels|^n_layer")
MOST = 12


def is_tied(config):
    return bool(getattr(config, "tie_word_embeddings", False))


def tied_variants(config):
    """Embeddings tied where they were not and the other way round: everywhere, at the top level alone, in one part
    alone."""
    parts = {k: v for k, v in vars(config).items() if isinstance(v, Config)}
    choices = [("flip tied", [None, *parts])]
    if parts:
        choices += [("flip tied top", [None]), *((f"flip tied part {k}", [k]) for k in parts)]
    for tag, flipped in choices:
        changed = copy.deepcopy(config)
        for name in flipped:
            part = changed if name is None else getattr(changed, name)
            attempt_set(part, "tie_word_embeddings", not is_tied(part))
        yield tag, changed


def changes(config):
    """(key, other value) of the options to try. {"second": word}: the second layer is of another kind."""
    values = flat(json.loads(config.to_json_string(use_diff=False)))
    hidden = next(
        (values[k] for k in ("hidden_size", "d_model", "n_embd", "text_config.hidden_size") if count(values.get(k))),
        None,
    )
    defaults = flat(json.loads(type(config)().to_json_string(use_diff=False)))
    kinds, numbers = [], []
    for key, value in values.items():
        last = key.split(".")[-1]
        # What the class has not unless a size is given (a shared expert).
        if count(value) and value and key in defaults and defaults[key] in (0, None):
            numbers.append((key, defaults[key]))
        if NO_OPTION.search(key):
            continue
        if isinstance(value, bool):
            yield key, not value
        elif last in WORDS and value in WORDS[last]:
            yield key, next(word for word in WORDS[last] if word != value)
        elif last in KIND_LISTS and isinstance(value, list) and len(value) > 1 and isinstance(value[0], str):
            kinds += [(key, {"second": kind}) for kind in KINDS if kind not in value]
        elif value in (None, []) and SPECIAL_LAYERS.search(last):
            kinds.append((key, [1]))
        elif last == "q_lora_rank" and count(value):
            yield key, None
        elif count(value) and value in (0, 1, 2) and not NO_SWITCH.search(last):
            numbers += [(key, other) for other in ((1,) if value == 0 else (0, value + 1))]
        elif count(value) and value == hidden and last not in ("hidden_size", "d_model", "n_embd"):
            yield key, value + 8
        elif value is None and last in ("adapter_attn_dim", "q_lora_rank"):
            yield key, 12
    yield from kinds
    yield from numbers


def structure(cls, config):
    """Which parameters the class has, whatever the number of layers."""
    return frozenset(map(numbered, Module(skeleton(cls, fresh(config)), {}).names))


def options(cls, config):
    """[[(key, other value)]] of the options that change which parameters the class has, at most MOST."""
    seen, out = {structure(cls, config)}, []

    def add(changed):
        """Whether it is new."""
        if len(out) == MOST:
            return False
        try:
            found = structure(cls, changed_config(config, changed))
        except Exception:
            return False  # the class does not allow it
        if found and found not in seen:
            seen.add(found)
            out.append(changed)
            return True
        return False

    every = list(changes(config))
    without = [(key, value) for key, value in every if not add([(key, value)])]
    # Layers of another kind may have options of their own.
    for kind in [changed for changed in out if isinstance(changed[0][1], (dict, list))]:
        for key, value in without:
            if isinstance(value, bool):
                add([*kind, (key, value)])
    return out


def default_skeleton(cls):
    """The Module of the class's default config with few layers, or None: sizes that no profile chose."""
    try:
        config = cls.config_class()
        few_layers(config)
        return module_of(cls, config)
    except Exception:
        return None


def few_layers(config, depth=0):
    values = vars(config)
    layers = max([4, *(len({str(kind) for kind in values[k]}) for k in KIND_LISTS if isinstance(values.get(k), list))])
    for key, value in list(values.items()):
        if isinstance(value, Config) and depth < 4:
            few_layers(value, depth + 1)
        elif key in LAYER_KEYS and count(value):
            attempt_set(config, key, min(value, layers))
        elif key in KIND_LISTS and isinstance(value, list) and value:
            attempt_set(config, key, cut(key, value, layers))
