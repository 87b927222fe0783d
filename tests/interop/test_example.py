# SPDX-License-Identifier: Apache-2.0
"""examples/deepspeed_resume as its README says: two ranks begin from a converted folder, save, and go on."""
import json
import re
import shutil
import sys

import pytest
import torch

from conftest import ROOT
from recipes import PLAIN

TRAIN = ROOT / "examples/deepspeed_resume/train.py"


def losses(output):
    return {int(step): float(loss) for step, loss in re.findall(r"^step (\d+) loss ([\d.]+)$", output, re.MULTILINE)}


def loss_of_the_original(folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokens = torch.randint(0, model.config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return model(input_ids=tokens, labels=tokens).loss.item()


def test_begins_and_goes_on(source, converted, torchrun, tmp_path):
    job = TRAIN, converted(PLAIN), "--stage", 3
    at_once = losses(torchrun(2, *job, "--steps", 4, "--out", tmp_path / "at_once"))
    first = losses(torchrun(2, *job, "--steps", 2, "--out", tmp_path / "out"))
    then = losses(torchrun(2, *job, "--steps", 2, "--out", tmp_path / "out", "--resume"))
    assert list(at_once) == [1, 2, 3, 4] and list(first) == [1, 2] and list(then) == [3, 4]
    assert {**first, **then} == at_once
    # ZeRO-3 computes F.linear in its own way, so bf16 results are close to plain torch's, not the same
    assert first[1] == pytest.approx(loss_of_the_original(source(PLAIN)), rel=1e-2)


def test_a_model_that_does_not_fit_is_refused(converted, python_job, tmp_path):
    folder = shutil.copytree(converted(PLAIN), tmp_path / "universal")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 5}))
    with pytest.raises(AssertionError, match=r"model\.embed_tokens\.weight: the model has \[264, 35\], the folder \[259, 35\]"):
        python_job(sys.executable, TRAIN, folder, "--out", tmp_path / "out")
