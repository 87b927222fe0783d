# SPDX-License-Identifier: Apache-2.0
"""The rules of rules/ against the real classes of transformers: order, tied names, the Trainer's groups."""
import json

import pytest
import torch
import transformers as t

OPTIMIZER = ("--lr", 1e-3, "--weight-decay", 0.01)
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 12, "num_attention_heads": 4, "vocab_size": 64,
         "max_position_embeddings": 32}
GQA = {**SMALL, "num_key_value_heads": 2}
HEADS = {**GQA, "head_dim": 8}
OPT = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 48, "num_attention_heads": 4, "max_position_embeddings": 32,
       "word_embed_proj_dim": 32}
FALCON = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
MAMBA = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 2}
SPEECH = {"conv_dim": [8, 8, 8], "conv_kernel": [3, 3, 3], "conv_stride": [2, 2, 2], "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 4,
          "num_conv_pos_embedding_groups": 2}
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
    *((t.XLMRobertaForMaskedLM, t.XLMRobertaConfig, {**SMALL, **x}) for x in (TIED, UNTIED)),
    *((t.CamembertForMaskedLM, t.CamembertConfig, {**SMALL, **x}) for x in (TIED, UNTIED)),
    (t.BertModel, t.BertConfig, SMALL), (t.RobertaModel, t.RobertaConfig, SMALL), (t.XLMRobertaModel, t.XLMRobertaConfig, SMALL),
    *((cls, config, {**SMALL, **SPEECH, **x}) for cls, config in ((t.Wav2Vec2ForCTC, t.Wav2Vec2Config), (t.HubertForCTC, t.HubertConfig))
      for x in ({}, {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True})),
    *((t.T5ForConditionalGeneration, t.T5Config, {**T5, **x}) for x in (TIED, UNTIED, {"feed_forward_proj": "gated-gelu"})),
    *((t.Starcoder2ForCausalLM, t.Starcoder2Config, {**GQA, **x}) for x in (TIED, UNTIED, {"use_bias": False})),
    *((t.StableLmForCausalLM, t.StableLmConfig, {**GQA, **x}) for x in (TIED, UNTIED, {"use_qkv_bias": True, "use_parallel_residual": True}, {"qk_layernorm": True})),
    *((t.NemotronForCausalLM, t.NemotronConfig, {**GQA, **x}) for x in (TIED, UNTIED, {"attention_bias": True, "mlp_bias": True})),
    *((t.MambaForCausalLM, t.MambaConfig, {**MAMBA, **x}) for x in (TIED, UNTIED, {"use_bias": True}, {"use_conv_bias": False})),
    *((t.Lfm2ForCausalLM, t.Lfm2Config, {**GQA, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], **x}) for x in (TIED, UNTIED, {"conv_bias": True})),
]


def title(model):
    cls, _, fields = model
    return "-".join([cls.__name__, *(f"{k}={v}" for k, v in fields.items() if k not in SMALL | OPT | T5 | MAMBA | SPEECH and k not in ("layer_types", "head_dim", "n_embd", "n_layer", "n_head", "n_positions"))])


@pytest.mark.parametrize("model", MODELS, ids=title)
def test_order_tied_names_and_groups(crossdock, tmp_path, model):
    cls, config, fields = model
    torch.manual_seed(1)
    real = cls(config(**fields))
    real.save_pretrained(tmp_path / "in")
    crossdock("convert", tmp_path / "in", tmp_path / "out", "--to", "zero3", "--world-size", 1, "--param-groups", "hf-trainer", *OPTIMIZER, "--no-sync")
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
        return crossdock("convert", folder, tmp_path / "out", "--to", "zero3", "--world-size", 1, *OPTIMIZER, *flags, code=code).stderr

    assert "found model.layers.0.extra.weight" in refused({**tensors, "model.layers.0.extra.weight": torch.ones(2)})
    less = {n: x for n, x in tensors.items() if n != "model.layers.1.mlp.up_proj.weight"}
    assert "expected the parameter model.layers.1.mlp.up_proj.weight of LlamaForCausalLM" in refused(less)
    assert not (tmp_path / "out").exists()
    old = {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    refused({f"m.{n}": x for n, x in old.items()}, "--strip-prefix", "m.", code=0)
    report = json.loads((tmp_path / "out/crossdock.json").read_text())
    assert [x["name"] for x in report["tensors"] if "excluded" in x] == ["m.model.layers.0.self_attn.rotary_emb.inv_freq"]


def save(folder, model, change):
    """save_pretrained, with other tensors in the file."""
    from safetensors.torch import load_file, save_file
    model.save_pretrained(folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def test_tensors_that_old_checkpoints_have(crossdock, tmp_path):
    """Names of TensorFlow's day, and parameters that the class ignores."""
    torch.manual_seed(1)
    bert = t.BertForMaskedLM(t.BertConfig(**SMALL))
    save(tmp_path / "bert", bert, lambda w: {
        **{n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x for n, x in w.items()},
        "bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32), "cls.seq_relationship.weight": torch.ones(2, 32)})
    t5 = t.T5ForConditionalGeneration(t.T5Config(**T5))
    save(tmp_path / "t5", t5, lambda w: {**w, "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(32, 4)})
    for name, model in (("bert", bert), ("t5", t5)):
        crossdock("convert", tmp_path / name, tmp_path / f"{name}-out", "--to", "zero3", "--world-size", 1, *OPTIMIZER, "--no-sync")
        flat = torch.load(tmp_path / f"{name}-out/global_step0/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=False)
        assert torch.equal(flat["optimizer_state_dict"]["fp32_flat_groups"][0], torch.cat([p.detach().reshape(-1) for p in model.parameters()]))


def test_tied_names_with_other_values(crossdock, tmp_path):
    """Nothing is lost on the rule's word alone."""
    torch.manual_seed(1)
    model = t.T5ForConditionalGeneration(t.T5Config(**T5))
    convert = ["convert", tmp_path / "in", tmp_path / "out", "--to", "zero3", "--world-size", 1, *OPTIMIZER, "--overwrite"]
    save(tmp_path / "in", model, lambda w: {**w, "lm_head.weight": w["shared.weight"].clone()})
    crossdock(*convert)
    save(tmp_path / "in", model, lambda w: {**w, "lm_head.weight": w["shared.weight"] + 1})
    error = crossdock(*convert, code=1).stderr
    assert "expected lm_head.weight and shared.weight, which the job's module ties, to hold the same values" in error
