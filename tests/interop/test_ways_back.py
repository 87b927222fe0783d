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
