# SPDX-License-Identifier: Apache-2.0
"""Files whose names are not those of the class: both writers give the names of the real class, with its values.

The files are what the Hub has (no prefix of the base class, gamma and beta, weight_g and weight_v, embed_out), what
save_model of safetensors leaves of tied names, and old buffers and heads. The real class is transformers'.
"""
import json

import pytest
import torch
import transformers as t
from safetensors.torch import save_model

from module_judge import OPTIMIZER, check_both, check_universal, save, universal

SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 32}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}
OPT = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 48, "num_attention_heads": 4,
       "max_position_embeddings": 32, "word_embed_proj_dim": 32}
T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SPEECH = {"conv_dim": [8, 8, 8], "conv_kernel": [3, 3, 3], "conv_stride": [2, 2, 2], "num_feat_extract_layers": 3,
          "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}


def make(cls, config, **fields):
    torch.manual_seed(1)
    model = cls(config(**fields))
    with torch.no_grad():
        for parameter in model.parameters():  # norms begin as ones, biases as zeros: then one could stand for another
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def state_of(model, *without):
    """The state dict with each parameter once, under its first name."""
    own = {n for n, _ in model.named_parameters()}
    return {n: x for n, x in model.state_dict().items() if n in own and n not in without}


BASES = {
    "gpt2": (t.GPT2LMHeadModel, t.GPT2Config, GPT2, "transformer."),
    "bloom": (t.BloomForCausalLM, t.BloomConfig, {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "transformer."),
    "opt": (t.OPTForCausalLM, t.OPTConfig, OPT, "model."),
    "llama": (t.LlamaForCausalLM, t.LlamaConfig, {**SMALL, "tie_word_embeddings": False}, "model."),
    "bert": (t.BertForMaskedLM, t.BertConfig, SMALL, "bert."),
    "mamba": (t.MambaForCausalLM, t.MambaConfig, {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4,
                                                  "time_step_rank": 2}, "backbone."),
}


@pytest.mark.parametrize("name", BASES)
def test_names_of_the_base_class(crossdock, tmp_path, name):
    cls, config, fields, prefix = BASES[name]
    model = make(cls, config, **fields)
    tensors = {n.removeprefix(prefix): x for n, x in state_of(model).items()}
    assert set(tensors) != set(state_of(model))
    save(tmp_path / "in", model, tensors)
    said = check_both(crossdock, tmp_path / "in", tmp_path / "out", model)
    assert f"names became those of {cls.__name__}" in said
    report = json.loads((tmp_path / "out/universal/crossdock.json").read_text())
    assert {(p["name"], p["source"]) for p in report["parameters"]} >= {(n, n.removeprefix(prefix)) for n in state_of(model)}


@pytest.mark.parametrize("name", ["gpt2", "bloom", "opt", "llama", "mamba"])
def test_the_base_class_itself(crossdock, tmp_path, name):
    """config.json names the base class; the file is of the class with a head, or its own."""
    cls, config, fields, prefix = BASES[name]
    head = make(cls, config, **fields)
    base = getattr(head, prefix[:-1])
    save(tmp_path / "with-head", base, state_of(head))
    said = check_both(crossdock, tmp_path / "with-head", tmp_path / "out1", base)
    if not getattr(head.config, "tie_word_embeddings", True):
        assert "Left out: lm_head.weight" in said
    save(tmp_path / "own", base, state_of(base))
    said = check_both(crossdock, tmp_path / "own", tmp_path / "out2", base)
    assert "names became" not in said and "no rule" not in said


@pytest.mark.parametrize("head, base, config", [(t.BertForMaskedLM, t.BertModel, t.BertConfig), (t.RobertaForMaskedLM, t.RobertaModel, t.RobertaConfig),
                                                (t.XLMRobertaForMaskedLM, t.XLMRobertaModel, t.XLMRobertaConfig)])
def test_a_base_class_with_parameters_of_its_own(crossdock, tmp_path, head, base, config):
    """The pooler is the base class's alone, so it has a rule of its own; the file has the prefix and a head of pretraining."""
    model, other = make(base, config, **SMALL), make(head, config, **SMALL)
    prefix = base.base_model_prefix + "."
    heads = {n: x for n, x in state_of(other).items() if not n.startswith(prefix)}
    save(tmp_path / "in", model, {**{prefix + n: x for n, x in state_of(model).items()}, **heads})
    said = check_both(crossdock, tmp_path / "in", tmp_path / "out", model)
    assert "names became those of" in said and "Left out: " in said


@pytest.mark.parametrize("cls, config", [(t.BertForMaskedLM, t.BertConfig), (t.RobertaForMaskedLM, t.RobertaConfig),
                                         (t.XLMRobertaForMaskedLM, t.XLMRobertaConfig), (t.CamembertForMaskedLM, t.CamembertConfig)])
def test_gamma_and_beta_of_layernorm(crossdock, tmp_path, cls, config):
    model = make(cls, config, **SMALL)
    tensors = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
               for n, x in state_of(model).items()}
    prefix = cls.base_model_prefix
    tensors |= {f"{prefix}.embeddings.position_ids": torch.arange(32)[None], f"{prefix}.pooler.dense.weight": torch.ones(32, 32)}
    save(tmp_path / "in", model, tensors)
    said = check_both(crossdock, tmp_path / "in", tmp_path / "out", model)
    assert f"Left out: {prefix}.pooler.dense.weight" in said


def test_gamma_of_a_module_of_its_own_stays(crossdock, tmp_path):
    """Without a rule nothing is renamed: a plain gamma is a parameter (layer scale), and the old names are told."""
    save(tmp_path / "in", make(t.BertForSequenceClassification, t.BertConfig, **SMALL),
         {"stage.gamma": torch.ones(2), "a.LayerNorm.gamma": torch.ones(2)})
    config = json.loads((tmp_path / "in/config.json").read_text())
    (tmp_path / "in/config.json").write_text(json.dumps({**config, "architectures": ["MyBert"]}))
    done = crossdock("convert", tmp_path / "in", tmp_path / "out", "--to", "universal", "--no-sync")
    assert set(universal(tmp_path / "out")) == {"stage.gamma", "a.LayerNorm.gamma"}
    said = done.stdout + done.stderr
    assert "were not compared" in said and "--target" in said
    assert r"--rename 'LayerNorm\.gamma$=LayerNorm.weight'" in said and "weight_g" not in said


@pytest.mark.parametrize("cls, config", [(t.Wav2Vec2ForCTC, t.Wav2Vec2Config), (t.HubertForCTC, t.HubertConfig)])
def test_weight_norm_of_old(crossdock, tmp_path, cls, config):
    model = make(cls, config, **SMALL, **SPEECH)
    tensors = {n.replace("parametrizations.weight.original0", "weight_g").replace("parametrizations.weight.original1", "weight_v"): x
               for n, x in state_of(model).items()}
    assert any(n.endswith("weight_g") for n in tensors)
    save(tmp_path / "in", model, tensors)
    check_both(crossdock, tmp_path / "in", tmp_path / "out", model)


def test_embed_out(crossdock, tmp_path):
    model = make(t.GPTNeoXForCausalLM, t.GPTNeoXConfig, **SMALL)
    tensors = {n.replace("lm_head.", "embed_out."): x for n, x in state_of(model).items()}
    tensors |= {f"gpt_neox.layers.{i}.attention.{b}": torch.ones(1, dtype=torch.float16) for i in (0, 1) for b in ("masked_bias", "rotary_emb.inv_freq")}
    save(tmp_path / "in", model, tensors)
    said = check_both(crossdock, tmp_path / "in", tmp_path / "out", model)
    assert "attention.masked_bias" in said and "inv_freq" in said


TIED = {
    "gpt2": (t.GPT2LMHeadModel, t.GPT2Config, GPT2),
    "xlm-roberta": (t.XLMRobertaForMaskedLM, t.XLMRobertaConfig, SMALL),
    "camembert": (t.CamembertForMaskedLM, t.CamembertConfig, SMALL),
    "roberta": (t.RobertaForMaskedLM, t.RobertaConfig, SMALL),
    "bert": (t.BertForMaskedLM, t.BertConfig, SMALL),
    "t5": (t.T5ForConditionalGeneration, t.T5Config, T5),
    "opt": (t.OPTForCausalLM, t.OPTConfig, OPT),
}


@pytest.mark.parametrize("name", TIED)
def test_one_of_the_tied_names_is_in_the_file(crossdock, tmp_path, name):
    """save_model keeps one name of shared memory, in the order of the alphabet; here each of the names in turn."""
    cls, config, fields = TIED[name]
    model = make(cls, config, **fields)
    save(tmp_path / "in", model, {})
    save_model(model, str(tmp_path / "in/model.safetensors"))
    check_both(crossdock, tmp_path / "in", tmp_path / "out", model)

    first, names = {}, {}
    for n, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(first.setdefault(id(p), n), []).append(n)
    for own, others in names.items():
        for other in others[1:]:
            save(tmp_path / "one", model, {**state_of(model, own), other: dict(model.named_parameters())[own]})
            check_universal(crossdock, tmp_path / "one", tmp_path / "out-one", model, "--overwrite")
        both = {**state_of(model), **{n: dict(model.named_parameters())[own] for n in others}}
        save(tmp_path / "all", model, both)
        check_universal(crossdock, tmp_path / "all", tmp_path / "out-all", model, "--overwrite")


def test_names_that_the_user_gives_are_kept(crossdock, tmp_path):
    """A job of the base class by the user's word, though config.json names the class with a head."""
    model = make(t.GPT2LMHeadModel, t.GPT2Config, **GPT2)
    save(tmp_path / "in", model, state_of(model))
    check_universal(crossdock, tmp_path / "in", tmp_path / "out", model.transformer, "--strip-prefix", "transformer.")


def test_a_user_s_rule_gives_names(crossdock, tmp_path):
    """--rules reaches the module: names, what is left out, and the order for zero3."""
    model = make(t.BertForSequenceClassification, t.BertConfig, **SMALL)
    state = state_of(model)
    rule = ['model_type: "bert"', 'architecture: "BertForSequenceClassification"', 'base { prefix: "bert." }',
            r'renamed { from: "^score\\." to: "classifier." }', r'excluded { name: "^cls\\." reason: "a head of pretraining" }']
    for name in state:
        if ".layer.1." not in name:
            rule.append(f'parameter {{ name: "{name.replace(".layer.0.", ".layer.#.")}" }}')
    (tmp_path / "mine.textproto").write_text("\n".join(rule))
    old = {n.removeprefix("bert.").replace("classifier.", "score."): x for n, x in state.items()}
    save(tmp_path / "in", model, {**old, "cls.predictions.bias": torch.ones(64)})
    crossdock("convert", tmp_path / "in", tmp_path / "no", "--to", "zero3", "--world-size", 1, *OPTIMIZER, code=1)
    said = check_universal(crossdock, tmp_path / "in", tmp_path / "out", model, "--rules", tmp_path / "mine.textproto")
    assert "Left out: cls.predictions.bias: a head of pretraining" in said
    crossdock("convert", tmp_path / "in", tmp_path / "zero3", "--to", "zero3", "--world-size", 1, *OPTIMIZER, "--no-sync",
              "--rules", tmp_path / "mine.textproto")
    states = torch.load(tmp_path / "zero3/global_step0/zero_pp_rank_0_mp_rank_00_model_states.pt", weights_only=False)
    assert list(states["param_shapes"][0]) == [n for n, _ in model.named_parameters()]


def test_what_the_class_does_not_know(crossdock, tmp_path):
    model = make(t.LlamaForCausalLM, t.LlamaConfig, **SMALL)
    save(tmp_path / "in", model, {**state_of(model), "v_head.weight": torch.ones(1, 32)})
    error = crossdock("convert", tmp_path / "in", tmp_path / "out", "--to", "universal", code=1).stderr
    assert "expected only parameters that LlamaForCausalLM has, found v_head.weight" in error and not (tmp_path / "out").exists()
    done = crossdock("convert", tmp_path / "in", tmp_path / "out", "--to", "universal", "--no-sync", "--keep-unmatched")
    assert "LlamaForCausalLM has no v_head.weight" in done.stdout + done.stderr
    assert "v_head.weight" in universal(tmp_path / "out")
    both = {**state_of(model), "norm.weight": torch.ones(32)}
    save(tmp_path / "in", model, both)
    error = crossdock("convert", tmp_path / "in", tmp_path / "no", "--to", "universal", code=1).stderr
    assert "expected one tensor for model.norm.weight of LlamaForCausalLM, found model.norm.weight and norm.weight" in error


def test_a_wrapper_s_prefix_is_no_name_of_the_job(crossdock, tmp_path):
    """--strip-prefix of a wrapper: the class's names and all its parameters, as without the wrapper."""
    model = make(t.GPT2LMHeadModel, t.GPT2Config, **GPT2)
    base = {n.removeprefix("transformer."): x for n, x in state_of(model).items()}
    save(tmp_path / "in", model, {f"module.{n}": x for n, x in base.items()})
    check_universal(crossdock, tmp_path / "in", tmp_path / "out", model, "--strip-prefix", "module.")
    del base["ln_f.bias"]
    save(tmp_path / "in", model, {f"module.{n}": x for n, x in base.items()})
    error = crossdock("convert", tmp_path / "in", tmp_path / "no", "--to", "universal", "--strip-prefix", "module.", code=1).stderr
    assert "expected the parameter transformer.ln_f.bias of GPT2LMHeadModel" in error


def test_names_of_the_job_are_not_compared_but_tied(crossdock, tmp_path):
    model = make(t.GPT2LMHeadModel, t.GPT2Config, **GPT2, tie_word_embeddings=True)
    state = {**state_of(model), "lm_head.weight": model.lm_head.weight}
    save(tmp_path / "in", model, state)
    done = crossdock("convert", tmp_path / "in", tmp_path / "out", "--to", "universal", "--no-sync", "--add-prefix", "net.")
    assert set(universal(tmp_path / "out")) == {f"net.{n}" for n in state_of(model)}
    assert "were not compared with those of GPT2LMHeadModel" in done.stdout + done.stderr


def test_a_stray_name_of_a_shared_storage_does_not_win(crossdock, tmp_path):
    """Of one storage under several names, the class's own is written, wherever it stands in the file."""
    model = make(t.GPT2LMHeadModel, t.GPT2Config, **GPT2)
    save(tmp_path / "in", model, {})
    (tmp_path / "in/model.safetensors").unlink()
    state = state_of(model)
    torch.save({"extra.proj.weight": state["transformer.wte.weight"], "lm_head.weight": state["transformer.wte.weight"], **state},
               tmp_path / "in/pytorch_model.bin")
    check_universal(crossdock, tmp_path / "in", tmp_path / "out", model)


def test_config_without_a_class(crossdock, tmp_path):
    """A model type has several classes, so the names stay; sizes are compared all the same."""
    model = make(t.LlamaForCausalLM, t.LlamaConfig, **SMALL)
    save(tmp_path / "in", model, state_of(model))
    config = json.loads((tmp_path / "in/config.json").read_text())
    del config["architectures"]
    (tmp_path / "in/config.json").write_text(json.dumps(config))
    said = check_universal(crossdock, tmp_path / "in", tmp_path / "out", model)
    assert "config.json does not name the class (architectures)" in said
    (tmp_path / "in/config.json").write_text(json.dumps({**config, "vocab_size": 65}))
    assert "as vocab_size of config.json says" in crossdock("convert", tmp_path / "in", tmp_path / "no", "--to", "universal", code=1).stderr


def test_types_of_descriptions(crossdock):
    """crossdock_manifest's numbers are those of manifest.proto."""
    import re
    import sys
    from pathlib import Path
    root = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(root / "python"))
    import crossdock_manifest
    proto = (root / "sdk/proto/crossdock/manifest.proto").read_text()
    numbers = {n: int(v) for n, v in re.findall(r"^  ([A-Z0-9_]+) = (\d+);", proto[proto.index("enum DType"):proto.index("message Tensor")], re.M)}
    names = {"bool": "BOOL", "uint8": "U8", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e8m0fnu": "F8_E8M0",
             **{f"{kind}{bits}": f"{letter}{bits}" for kind, letter in (("int", "I"), ("uint", "U"), ("float", "F"), ("complex", "C")) for bits in (8, 16, 32, 64, 128)}}
    assert all(getattr(torch, name, None) is not None for name in crossdock_manifest.DTYPES)
    assert crossdock_manifest.DTYPES == {name: numbers[names.get(name, name.upper().replace("FLOAT8", "F8"))] for name in crossdock_manifest.DTYPES}
