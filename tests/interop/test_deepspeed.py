# SPDX-License-Identifier: Apache-2.0
"""The final word: real DeepSpeed, ZeRO stages 1, 2 and 3 on one and two ranks, trains on from what crossdock wrote."""
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from recipes import PLAIN, SOURCES, Source

HERE = Path(__file__).parent
DAMAGED = "model.layers.1.mlp.down_proj.weight"


@dataclass(frozen=True)
class Case:
    """A source, the flags it is converted with, and the job that loads the result."""
    source: Source
    stage: int
    flags: tuple = ()
    groups: int = 1
    job: str = ""  # its dtype, if not the one in which the source is exact
    trainable: tuple = ()
    damage: str = ""  # a file of DAMAGED in which one bit is wrong: such a folder must not pass

    @property
    def dtype(self):
        return self.job or ("bf16" if self.source.dtype == "bf16" else "fp32")

    def __str__(self):
        extra = [*self.flags, f"{self.groups}-groups" if self.groups > 1 else "", f"{self.job}-job" if self.job else "",
                 f"damaged-{self.damage}" if self.damage else ""]
        return "-".join([f"stage{self.stage}", str(self.source), *(word.strip("-") for word in extra if word)])


TIED_SHARDS = Source(tied=True, sharded=True, dtype="bf16")
TRAINABLE = ("q_proj", "norm")
CASES = [
    *(Case(source, stage) for source in SOURCES for stage in (1, 2, 3)),
    *(Case(PLAIN, stage, job="fp32") for stage in (1, 2, 3)),
    *(Case(PLAIN, stage, ("--compact",)) for stage in (1, 2, 3)),
    *(Case(TIED_SHARDS, stage, ("--compact",)) for stage in (2, 3)),
    *(Case(PLAIN, stage, ("--precision", "source")) for stage in (1, 2, 3)),
    *(Case(Source(False, False, "fp16"), stage, ("--precision", "source")) for stage in (2, 3)),
    *(Case(PLAIN, stage, ("--moments", "dense")) for stage in (2, 3)),
    *(Case(PLAIN, stage, ("--moments", "zero-stride")) for stage in (2, 3)),
    *(Case(PLAIN, stage, ("--moments", "none")) for stage in (1, 2)),
    *(Case(PLAIN, stage, groups=2) for stage in (1, 2)),
    *(Case(PLAIN, stage, ("--trainable", "|".join(TRAINABLE)), trainable=TRAINABLE) for stage in (1, 2, 3)),
]
DAMAGED_CASES = [Case(PLAIN, stage, damage=file) for stage in (2, 3) for file in ("fp32.pt", "exp_avg.pt")]


def flip_lowest_bit(pt_file):
    """Changes the first byte of the tensor in a .pt file: for a float, the last bit of its mantissa."""
    with zipfile.ZipFile(pt_file) as archive:
        record = next(record for record in archive.infolist() if record.filename.endswith("/data/0"))
    with open(pt_file, "r+b") as file:
        file.seek(record.header_offset + 26)
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
        at = record.header_offset + 30 + name + extra
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.fixture(scope="module")
def judged(source, converted, torchrun, tmp_path_factory):
    """judged(case, world) -> its verdict. The first question for a world size has all its cases judged in one job."""
    folder = tmp_path_factory.mktemp("judge")
    verdicts, output = {}, {}

    def folder_of(case):
        clean = converted(case.source, *case.flags)
        if not case.damage:
            return clean
        copy = folder / case.damage
        if not copy.exists():
            shutil.copytree(clean, copy)
            flip_lowest_bit(copy / "global_step0/zero" / DAMAGED / case.damage)
        return copy

    def as_json(case):
        return {"name": str(case), "hf": str(source(case.source)), "kind": "universal", "folder": str(folder_of(case)),
                "stage": case.stage, "sub_group": 0, "buffer": False,
                "dtype": case.dtype, "groups": case.groups, "trainable": case.trainable,
                "moments": "none" not in case.flags, "weights": case.source.weights}

    def judge(world):
        cases, result = folder / f"cases{world}.json", folder / f"verdicts{world}.json"
        cases.write_text(json.dumps([as_json(case) for case in CASES + DAMAGED_CASES]))
        try:
            torchrun(world, HERE / "deepspeed_judge.py", cases, result, timeout=900)
        except AssertionError as failure:  # the cases before the one that broke the job have their verdicts all the same
            output[world] = str(failure)
        verdicts[world] = json.loads(result.read_text()) if result.exists() else {}

    def ask(case, world):
        if world not in verdicts:
            judge(world)
        assert str(case) in verdicts[world], f"the job ended before this case was judged:\n{output[world]}"
        return verdicts[world][str(case)]

    return ask


@pytest.mark.parametrize("world", (1, 2), ids=lambda world: f"world{world}")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_trains_on_exactly(judged, case, world):
    verdict = judged(case, world)
    assert verdict.pop("loss_difference") <= 1e-6, verdict
    assert verdict == {"loaded": True, "wrong_weights": [], "wrong_masters": [], "wrong_moments": []}


@pytest.mark.parametrize("world", (1, 2), ids=lambda world: f"world{world}")
@pytest.mark.parametrize("case", DAMAGED_CASES, ids=str)
def test_the_judge_sees_one_wrong_bit(judged, case, world):
    """A test of the test above: it fails for the parameter that is damaged, and for no other."""
    verdict = judged(case, world)
    master, moment = {"fp32.pt": ([DAMAGED], []), "exp_avg.pt": ([], [f"{DAMAGED}.exp_avg"])}[case.damage]
    assert (verdict["wrong_masters"], verdict["wrong_moments"]) == (master, moment)
