"""Configs like a given one with one option changed, where that changes which parameters the class has."""
import copy
import json
import re

from rules_maker.dims import set_key
from rules_maker.instance import Config, Module, flat
from rules_maker.tiny import LAYER_KEYS, KIND_LISTS, attempt_set, count, cut, skeleton

# Options that are no matter of the checkpoint, or are tied_variants' matter.
NO_OPTION = re.compile(r"tie_|use_cache|output_|return_dict|gradient|is_decoder|is_encoder|chunk|training|scale_embedding|dtype|pretrained|freeze")
# Options with words as values; transformers' configs do not tell which words they take.
WORDS = {"feat_extract_norm": ("group", "layer"), "feed_forward_proj": ("relu", "gated-gelu"), "position_embedding_type": ("absolute", "relative_key")}
MOST = 10


def is_tied(config):
    return bool(getattr(config, "tie_word_embeddings", False))


def tied_variants(config):
    """Embeddings tied where they were not and the other way round: everywhere, at the top level alone, in one part alone."""
    parts = {k: v for k, v in vars(config).items() if isinstance(v, Config)}
    choices = [("flip tied", [None, *parts])] + ([("flip tied top", [None])] + [(f"flip tied {k}", [k]) for k in parts] if parts else [])
    for tag, flipped in choices:
        changed = copy.deepcopy(config)
        for name in flipped:
            part = changed if name is None else getattr(changed, name)
            attempt_set(part, "tie_word_embeddings", not is_tied(part))
        yield tag, changed


def changes(config):
    """(key, other value) of the options to try."""
    values = flat(json.loads(config.to_json_string(use_diff=False)))
    hidden = next((values[k] for k in ("hidden_size", "d_model", "n_embd", "text_config.hidden_size") if count(values.get(k))), None)
    for key, value in values.items():
        last = key.split(".")[-1]
        if NO_OPTION.search(key):
            continue
        if isinstance(value, bool):
            yield key, not value
        elif last in WORDS and value in WORDS[last]:
            yield key, next(word for word in WORDS[last] if word != value)
        elif last == "q_lora_rank" and count(value):
            yield key, None
        elif count(value) and value == hidden and last not in ("hidden_size", "d_model", "n_embd"):
            yield key, value + 8
        elif value is None and last in ("adapter_attn_dim", "q_lora_rank"):
            yield key, 12


def variants(cls, config):
    """(config, key, its other value), at most MOST."""
    seen = {tuple(Module(skeleton(cls, config), {}).order)}
    for key, value in changes(config):
        changed = copy.deepcopy(config)
        try:
            set_key(changed, key, value)
            order = tuple(Module(skeleton(cls, changed), {}).order)
        except Exception:
            continue                                        # the class does not allow it
        if order not in seen:
            seen.add(order)
            yield changed, key, value
            if len(seen) > MOST:
                return


def default_skeleton(cls):
    """The Module of the class's default config with few layers, or None where it cannot be made: sizes that no profile chose."""
    try:
        config = cls.config_class()
        few_layers(config)
        model = skeleton(cls, config)
        return Module(model, json.loads(config.to_json_string(use_diff=True)))
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
            attempt_set(config, key, cut(value, layers))
