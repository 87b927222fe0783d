# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's Trainer goes on from a folder that was converted with --hf-trainer, as from the original weights."""
import json
from pathlib import Path

import pytest
import torch

from recipes import PLAIN

HERE = Path(__file__).parent


@pytest.mark.parametrize("world", [1, 2], ids=lambda world: f"world{world}")
def test_trainer_resumes_at_stage_2(source, converted, torchrun, tmp_path, world):
    torchrun(world, HERE / "trainer_job.py", source(PLAIN), converted(PLAIN, "--hf-trainer"), tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["fresh"]) == 5
    assert result["resumed"] == pytest.approx(result["fresh"], abs=1e-6, rel=0)
    assert result["different"] == []


def test_files_for_the_trainer(converted):
    from transformers import TrainerState

    folder = converted(PLAIN, "--hf-trainer")
    state = TrainerState.load_from_json(folder / "trainer_state.json")
    assert state.global_step == 0 and isinstance(state.train_batch_size, int)
    assert torch.load(folder / "scheduler.pt", weights_only=True)["lr_lambdas"] == []
    assert not (converted(PLAIN) / "trainer_state.json").exists()
