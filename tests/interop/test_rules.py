"""The rules of plugins/rules against the real classes of transformers: order, tied names, the Trainer's groups."""
import json

import pytest
import torch
import transformers as t

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 12, "num_attention_heads": 4, "vocab_size": 64,
         "max_position_embeddings": 32}
GQA = {**SMALL, "num_key_value_heads": 2}
HEADS = {**GQA, "head_dim": 8}
OPT = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 48, "num_attention_heads": 4, "max_position_embeddings": 32,
       "word_embed_proj_dim": 32}
FALCON = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
# (class, config, its fields); every family tied and untied, where transformers lets it be.
MODELS = [
    *((t.LlamaForCausalLM, t.LlamaConfig, {**GQA, **x}) for x in (TIED, UNTIED, {"attention_bias": True, "mlp_bias": True})),
    *((t.MistralForCausalLM, t.MistralConfig, {**GQA, **x}) for x in (TIED, UNTIED)),
    *((t.Qwen2ForCausalLM, t.Qwen2Config, {**GQA, **x}) for x in (TIED, UNTIED)),
    *((t.Qwen3ForCausalLM, t.Qwen3Config, {**HEADS, **x}) for x in (TIED, UNTIED, {"attention_bias": True})),
    *((t.GemmaForCausalLM, t.GemmaConfig, {**HEADS, **x}) for x in (TIED, UNTIED, {})),
    *((t.Gemma2ForCausalLM, t.Gemma2Config, {**HEADS, **x}) for x in (TIED, UNTIED, {})),
    *((t.Gemma3ForCausalLM, t.Gemma3TextConfig, {**HEADS, **x}) for x in (TIED, UNTIED, {})),
    *((t.Phi3ForCausalLM, t.Phi3Config, {**GQA, "pad_token_id": 0, **x}) for x in (TIED, UNTIED)),
    *((t.GPT2LMHeadModel, t.GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 32, **x}) for x in (TIED, UNTIED)),
    *((t.GPTNeoXForCausalLM, t.GPTNeoXConfig, {**SMALL, **x}) for x in (TIED, UNTIED, {"attention_bias": False})),
    *((t.OPTForCausalLM, t.OPTConfig, {**OPT, **x}) for x in (TIED, UNTIED, {"word_embed_proj_dim": 16, "do_layer_norm_before": False})),
    *((t.BloomForCausalLM, t.BloomConfig, {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4, **x}) for x in (TIED, UNTIED)),
    *((t.FalconForCausalLM, t.FalconConfig, {**FALCON, **x}) for x in (TIED, UNTIED, {"new_decoder_architecture": True, "num_kv_heads": 2},
                                                                      {"bias": True, "parallel_attn": False, "alibi": True})),
    *((t.BertForMaskedLM, t.BertConfig, {**SMALL, **x}) for x in (TIED, UNTIED)),
    *((t.RobertaForMaskedLM, t.RobertaConfig, {**SMALL, **x}) for x in (TIED, UNTIED)),
    *((t.T5ForConditionalGeneration, t.T5Config, {**T5, **x}) for x in (TIED, UNTIED, {"feed_forward_proj": "gated-gelu"})),
]


def title(model):
    cls, _, fields = model
    return "-".join([cls.__name__, *(f"{k}={v}" for k, v in fields.items() if k not in SMALL | OPT | T5 and k not in ("head_dim", "n_embd", "n_layer", "n_head", "n_positions"))])


@pytest.mark.parametrize("model", MODELS, ids=title)
def test_order_tied_names_and_groups(crossdock, tmp_path, model):
    cls, config, fields = model
    torch.manual_seed(1)
    real = cls(config(**fields))
    real.save_pretrained(tmp_path / "in")
    crossdock("convert", tmp_path / "in", tmp_path / "out", "--to", "zero3", "--world-size", 1, "--param-groups", "hf-trainer", "--no-sync")
    states = torch.load(tmp_path / "out/global_step0/zero_pp_rank_0_mp_rank_00_model_states.pt", weights_only=False)
    optimizer = torch.load(tmp_path / "out/global_step0/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=False)["optimizer_state_dict"]

    parameters = dict(real.named_parameters())
    decay = set(t.Trainer.get_decay_parameter_names(None, real))
    groups = [[n for n in parameters if n in decay], [n for n in parameters if n not in decay]]
    assert [list(shapes) for shapes in states["param_shapes"]] == [group for group in groups if group]
    assert [g["weight_decay"] for g in optimizer["optimizer_state_dict"]["param_groups"]] == [0.01, 0.0]
    for group, flat in zip(groups, optimizer["fp32_flat_groups"]):
        assert torch.equal(flat, torch.cat([parameters[n].detach().reshape(-1).float() for n in group]))
    first = {}
    for name, p in real.named_parameters(remove_duplicate=False):
        first.setdefault(id(p), name)
    aliases = {name: first[id(p)] for name, p in real.named_parameters(remove_duplicate=False) if first[id(p)] != name}
    assert states["shared_params"] == aliases
    assert set(states["module"]) == set(real.state_dict())
    assert [n for n in states["module"] if n in parameters] == list(parameters)


def test_unknown_architectures(crossdock, tmp_path):
    from recipes import write_model
    model = write_model(tmp_path / "in", {"a": ("BF16", [2])}, {"model_type": "new", "architectures": ["NewForCausalLM"]})
    error = crossdock("convert", model, tmp_path / "out", "--to", "zero3", "--world-size", 1, code=1).stderr
    assert "found NewForCausalLM (new)" in error and "python -m crossdock_manifest describe" in error
    (model / "config.json").unlink()
    assert "expected a config.json with model_type" in crossdock("convert", model, tmp_path / "out", "--to", "zero3", "--world-size", 1, code=1).stderr


def test_names_that_the_rule_does_not_know(crossdock, source, tmp_path):
    from safetensors.torch import save_file
    import shutil

    from recipes import PLAIN, read_folder
    tensors = read_folder(source(PLAIN))

    def refused(change, *flags, code=1):
        folder = tmp_path / "in"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source(PLAIN), folder)
        save_file(change, folder / "model.safetensors")
        return crossdock("convert", folder, tmp_path / "out", "--to", "zero3", "--world-size", 1, *flags, code=code).stderr

    assert "found model.layers.0.extra.weight" in refused({**tensors, "model.layers.0.extra.weight": torch.ones(2)})
    less = {n: x for n, x in tensors.items() if n != "model.layers.1.mlp.up_proj.weight"}
    assert "expected the parameter model.layers.1.mlp.up_proj.weight of LlamaForCausalLM" in refused(less)
    assert not (tmp_path / "out").exists()
    old = {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    refused({f"m.{n}": x for n, x in old.items()}, "--strip-prefix", "m.", code=0)
    report = json.loads((tmp_path / "out/crossdock.json").read_text())
    assert [x["name"] for x in report["tensors"] if "dropped" in x] == ["m.model.layers.0.self_attn.rotary_emb.inv_freq"]
