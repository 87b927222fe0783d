# SPDX-License-Identifier: Apache-2.0
"""Trained checkpoints become Hugging Face folders: transformers loads them with the job's weights, under the names of its files."""
import json
import shutil
from pathlib import Path

import pytest
import torch

from recipes import read_folder
from test_families import FAMILIES, SMALL
import transformers as t

HERE = Path(__file__).parent
TIED = {"gpt2": (t.GPT2LMHeadModel, lambda: t.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
        "t5": (t.T5ForConditionalGeneration, lambda: t.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)),
        "qwen2": (t.Qwen2ForCausalLM, lambda: t.Qwen2Config(**SMALL, tie_word_embeddings=True)),
        "bert": (t.BertForMaskedLM, lambda: t.BertConfig(**{k: v for k, v in SMALL.items() if k != "num_key_value_heads"}))}
MODELS = FAMILIES | TIED
STAGES = (2, 3)


@pytest.fixture(scope="module")
def trained(torchrun, tmp_path_factory):
    """trained/FAMILY is the model that two ranks began with, trained/FAMILY-STAGE what DeepSpeed saved."""
    root, cases = tmp_path_factory.mktemp("trained"), []
    for family, (cls, config) in MODELS.items():
        torch.manual_seed(5)
        cls(config()).to(torch.bfloat16).save_pretrained(root / family)
        cases += [{"name": f"{family}-{stage}", "stage": stage, "hf": str(root / family), "class": cls.__name__, "steps": 2} for stage in STAGES]
    (root / "cases.json").write_text(json.dumps(cases))
    torchrun(2, HERE / "zero_job.py", root / "cases.json", root, timeout=1200)
    return root


def same(a, b):
    return a.shape == b.shape and torch.equal(a, b)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("family", MODELS)
def test_transformers_loads_what_was_trained(crossdock, trained, tmp_path, family, stage):
    hf, truth = trained / family, torch.load(trained / f"{family}-{stage}.truth.pt")
    crossdock("convert", trained / f"{family}-{stage}", tmp_path / "out", "--to", "safetensors", "--config", hf, "--no-sync")
    assert (tmp_path / "out/config.json").read_bytes() == (hf / "config.json").read_bytes()
    assert set(read_folder(tmp_path / "out")) == set(read_folder(hf))
    cls = MODELS[family][0]
    model, info = cls.from_pretrained(tmp_path / "out", output_loading_info=True, dtype=torch.float32)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    weights = dict(model.named_parameters(remove_duplicate=False))
    assert set(weights) == set(truth["order"])
    for name in truth["order"]:
        assert same(weights[name], truth["master"][name]), name
    start = cls.from_pretrained(hf, dtype=torch.float32)
    assert any(not same(p, weights[n]) for n, p in start.named_parameters())
    with torch.no_grad():  # buffers and all that is no parameter: the same logits
        for name, parameter in start.named_parameters():
            parameter.copy_(truth["master"][name])
        tokens = torch.arange(12)[None]
        inputs = {"input_ids": tokens, **({"decoder_input_ids": tokens} if family == "t5" else {})}
        logits, expected = (m.eval()(**inputs).logits for m in (model, start))
    assert same(logits, expected) and logits.isfinite().all()


def test_a_tied_job_and_a_config_that_does_not_tie(crossdock, trained, tmp_path):
    """The class then has two parameters, and the source has the values of both."""
    hf = shutil.copytree(trained / "qwen2", tmp_path / "hf")
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    for job in trained / "qwen2-2", trained / "qwen2-3":
        crossdock("convert", job, tmp_path / job.name, "--to", "safetensors", "--config", hf, "--no-sync")
        model, info = t.Qwen2ForCausalLM.from_pretrained(tmp_path / job.name, output_loading_info=True, dtype=torch.float32)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert same(model.lm_head.weight, model.model.embed_tokens.weight) and model.lm_head.weight is not model.model.embed_tokens.weight


@pytest.mark.parametrize("flags", [("--weights", "model"), ("--from-tag", "global_step2"), ("--verify-crc",)], ids=str)
def test_options_of_another_format_are_refused(crossdock, trained, tmp_path, flags):
    error = crossdock("convert", trained / "gpt2", tmp_path / "out", "--to", "safetensors", *flags, code=1).stderr
    assert f"{flags[0]}: expected a source in the format" in error and "found one that safetensors reads" in error
    assert not (tmp_path / "out").exists()


def test_a_wrong_value_of_a_reader_s_option_is_wrong_usage(crossdock, trained, tmp_path):
    assert "--weights: expected one of master|model" in crossdock("convert", trained / "gpt2", tmp_path / "out", "--to", "safetensors",
                                                                  "--weights", "fp32", code=2).stderr


def test_a_config_that_is_none_is_named(crossdock, trained, tmp_path):
    (tmp_path / "config.json").write_text("{")
    error = crossdock("convert", trained / "gpt2-2", tmp_path / "out", "--to", "safetensors", "--config", tmp_path, code=1).stderr
    assert f"--config {tmp_path}: config.json" in error


@pytest.mark.parametrize("to", ["universal", "zero3"])
def test_the_trainer_s_files_go_with_the_run(crossdock, trained, tmp_path, to):
    """As they lie in its checkpoint folder; not with a model alone."""
    job = shutil.copytree(trained / "gpt2-2", tmp_path / "in")
    (job / "trainer_state.json").write_text('{"global_step": 2}')
    torch.save({"last_epoch": 2}, job / "scheduler.pt")
    flags = {"universal": ["--hf-trainer"], "zero3": ["--world-size", 3]}[to]
    crossdock("convert", job, tmp_path / "out", "--to", to, *flags, "--no-sync")
    for name in "trainer_state.json", "scheduler.pt":
        assert (tmp_path / "out" / name).read_bytes() == (job / name).read_bytes()
    assert (tmp_path / "out/global_step2").is_dir()
    crossdock("convert", job, tmp_path / "plain", "--to", "safetensors", "--no-sync")
    assert not (tmp_path / "plain/trainer_state.json").exists() and not (tmp_path / "plain/scheduler.pt").exists()


def test_the_type_of_the_run_stays(crossdock, torchrun, tmp_path):
    cases = [{"name": "fp32", "stage": 2, "dtype": "fp32"}, {"name": "sgd", "stage": 2, "optimizer": "sgd"}]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    torchrun(1, HERE / "zero_job.py", tmp_path / "cases.json", tmp_path)
    crossdock("convert", tmp_path / "fp32", tmp_path / "out", "--to", "zero3", "--world-size", 2, "--no-sync")
    assert sorted(f.name for f in (tmp_path / "out/global_step3").glob("*optim*")) == [
        f"zero_pp_rank_{r}_mp_rank_00_optim_states.pt" for r in (0, 1)]
    error = crossdock("convert", tmp_path / "sgd", tmp_path / "no", "--to", "zero3", "--world-size", 2, code=1).stderr
    assert 'found "momentum_buffer": use --to universal' in error
