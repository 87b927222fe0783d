# SPDX-License-Identifier: Apache-2.0
"""Native ZeRO-3 shards: DeepSpeed trains on from them exactly, and they are what it would have saved itself."""
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from recipes import PLAIN, Source, read_folder

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / "python"
TIED = Source(tied=True, sharded=True, dtype="bf16")
FP32 = Source(tied=False, sharded=False, dtype="fp32")
OPTIMIZER = ("--lr", 1e-3, "--weight-decay", 0.01)


@dataclass(frozen=True)
class Case:
    source: Source
    dtype: str = "bf16"
    groups: int = 1
    sub_group: int = 0
    trainable: tuple = ()
    buffer: bool = False
    optimizer: str = "adamw"
    flags: tuple = ()

    def __str__(self):
        words = [str(self.source), self.dtype, f"{self.groups}groups", f"sub{self.sub_group}" if self.sub_group else "",
                 "frozen" if self.trainable else "", "buffer" if self.buffer else "", self.optimizer if self.optimizer != "adamw" else "",
                 *(f.strip("-") for f in self.flags)]
        return "-".join(word for word in words if word)


CASES = [Case(PLAIN), Case(TIED), Case(FP32, "fp32"), Case(PLAIN, "fp32"), Case(PLAIN, groups=2, sub_group=5000),
         Case(TIED, groups=2), Case(FP32, "fp32", groups=2, sub_group=3000), Case(PLAIN, sub_group=5000),
         Case(PLAIN, trainable=("q_proj", "norm")), Case(PLAIN, buffer=True), Case(PLAIN, flags=("--moments", "dense")),
         Case(PLAIN, optimizer="adam"), Case(PLAIN, groups=2, trainable=("q_proj.weight",))]  # the group of biases is empty
COMPILED = [Case(PLAIN, optimizer=name, groups=2) for name in ("fused-adam", "cpu-adam")]  # DeepSpeed builds them first
AT_WORLD = {1: CASES + COMPILED, 2: CASES, 3: [Case(PLAIN), Case(TIED), Case(FP32, "fp32", groups=2, sub_group=3000)]}
EVERY = [pytest.param(world, case, id=f"world{world}-{case}") for world, cases in AT_WORLD.items() for case in cases]


def describe(case, folder, out):
    """The description as the job's own script makes it."""
    script = f"""
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from crossdock_manifest import describe
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained({str(folder)!r}))
model.tie_weights()
if {case.buffer}:
    model.model.register_buffer("seen", torch.zeros(3, dtype=torch.int64))
for name, p in model.named_parameters():
    p.requires_grad_(not {case.trainable!r} or any(part in name for part in {case.trainable!r}))
named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
plain = lambda name: name.endswith("bias") or "norm" in name
groups = [{{"params": [p for _, p in named]}}]
if {case.groups} == 2:
    groups = [{{"params": [p for n, p in named if not plain(n)]}}, {{"params": [p for n, p in named if plain(n)], "weight_decay": 0.0}}]
make = {{"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}}.get({case.optimizer!r})
if make:
    text = describe(model, make(groups, lr=3e-3, weight_decay=0.01))
else:  # DeepSpeed's own, which compile when they are made: the names and what differs from the flags
    of = {{id(p): n for n, p in named}}
    text = describe(model, groups=[([of[id(p)] for p in g["params"]], {{k: v for k, v in g.items() if k != "params"}}) for g in groups])
open({str(out)!r}, "wb").write(text)
"""
    subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": str(PYTHON), "PATH": ""}, check=True, timeout=300)


@pytest.fixture(scope="module")
def plain_target(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("target") / "plain.pb"
    describe(Case(PLAIN), source(PLAIN), path)
    return path


@pytest.fixture(scope="module")
def shards(crossdock, source, tmp_path_factory):
    """shards(case, world) -> the folder that crossdock wrote."""
    root, targets, made = tmp_path_factory.mktemp("zero3"), {}, {}

    def make(case, world):
        if (case, world) in made:
            return made[case, world]
        model = source(case.source)
        if case.buffer:
            from safetensors.torch import save_file
            copy = root / "with-buffer"
            if not copy.exists():
                shutil.copytree(model, copy)
                save_file({**read_folder(model), "model.seen": torch.tensor([3, 1, 4])}, copy / "model.safetensors")
            model = copy
        key = (case.source, case.groups, case.trainable, case.buffer, case.optimizer)
        if key not in targets:
            targets[key] = root / f"target{len(targets)}.pb"
            describe(case, model, targets[key])
        out = root / f"{case}-{world}"
        sub_group = ["--sub-group-size", case.sub_group] if case.sub_group else []
        crossdock("convert", model, out, "--to", "zero3", "--world-size", world, "--dtype", case.dtype, "--target", targets[key],
                  "--optimizer", case.optimizer, "--lr", "3e-3", "--weight-decay", 0.01, "--no-sync", *sub_group, *case.flags)
        made[case, world] = out
        return out

    return make


@pytest.fixture(scope="module")
def judged(source, shards, torchrun, tmp_path_factory):
    """judged(case, world) -> its verdict, and two folders that DeepSpeed saved: right after it had loaded ours, and right
    after from_pretrained, when the optimizer has no state yet."""
    folder, verdicts = tmp_path_factory.mktemp("judge"), {}

    def saved(case, world):
        return folder / f"saved-{case}-{world}"

    def ask(case, world):
        if world not in verdicts:
            cases, result = folder / f"cases{world}.json", folder / f"verdicts{world}.json"
            cases.write_text(json.dumps([
                {"name": str(c), "hf": str(source(c.source)), "kind": "zero3", "folder": str(shards(c, world)), "stage": 3,
                 "dtype": c.dtype, "groups": c.groups, "sub_group": c.sub_group, "trainable": c.trainable, "buffer": c.buffer, "optimizer": c.optimizer,
                 "moments": True, "weights": c.source.weights, "save": str(saved(c, world))} for c in AT_WORLD[world]]))
            torchrun(world, HERE / "deepspeed_judge.py", cases, result, timeout=900)
            verdicts[world] = json.loads(result.read_text())
        verdict = dict(verdicts[world][str(case)])
        return verdict, saved(case, world), Path(verdict.pop("own"))

    return ask


@pytest.mark.parametrize("world,case", EVERY)
def test_trains_on_exactly(judged, case, world):
    verdict, _, _ = judged(case, world)
    assert verdict.pop("loss_difference") <= 1e-6, verdict
    assert verdict == {"loaded": True, "wrong_weights": [], "wrong_masters": [], "wrong_moments": []}


# ---- what DeepSpeed saves itself
OF_THE_JOB = {"ds_config", "lr_scheduler"}  # we know neither; DeepSpeed takes both from the job


def same(a, b, where="", without=OF_THE_JOB):
    """Keys, order, types, shapes and values."""
    if torch.is_tensor(a) or torch.is_tensor(b):
        assert a.dtype == b.dtype and a.shape == b.shape, f"{where}: {a.dtype} {a.shape}, {b.dtype} {b.shape}"
        differ = a != b
        # DeepSpeed leaves the padding of a parameter as it found the memory; a load of ours makes it zeros.
        assert not differ.any() or without != OF_THE_JOB and not a[differ].any() and differ.sum() <= 40, where
    elif isinstance(a, dict):
        assert type(a) is type(b) and list(a) == list(b), f"{where}: {list(a)}, {list(b)}"
        for key in a:
            if key not in without:
                same(a[key], b[key], f"{where}/{key}", without)
    elif isinstance(a, (list, tuple)):
        assert type(a) is type(b) and len(a) == len(b), f"{where}: {a}, {b}"
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{where}/{i}", without)
    elif type(a).__name__ == "LossScaler":
        assert type(a) is type(b) and a.__dict__ == b.__dict__, where
    else:
        assert a == b and isinstance(b, type(a)), f"{where}: {a!r}, {b!r}"  # theirs may be an enum of the same number


@pytest.mark.parametrize("world,case", EVERY)
def test_equals_what_deepspeed_saves(judged, shards, case, world):
    _, saved, own = judged(case, world)
    assert (shards(case, world) / "latest").read_text() == (saved / "latest").read_text()
    for theirs, without in ((saved / "global_step0", OF_THE_JOB), (own / "global_step0", OF_THE_JOB | {"state"})):
        ours = shards(case, world) / "global_step0"
        assert {f.name for f in ours.iterdir()} == {f.name for f in theirs.iterdir()}
        for file in sorted(ours.iterdir()):
            same(torch.load(file, weights_only=False), torch.load(theirs / file.name, weights_only=False), file.name, without)


@pytest.mark.parametrize("case", [PLAIN, TIED], ids=str)
def test_zero_to_fp32(shards, source, tmp_path, case):
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    back = get_fp32_state_dict_from_zero_checkpoint(str(shards(Case(case), 3)))
    truth = read_folder(source(case))
    if case.tied:
        truth["lm_head.weight"] = truth["model.embed_tokens.weight"]
    assert back.keys() == truth.keys()
    assert all(torch.equal(back[name].view(torch.int32), truth[name].float().view(torch.int32)) for name in truth)


def test_ds_to_universal(shards, source, tmp_path):
    subprocess.run([sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", shards(Case(PLAIN), 2) / "global_step0",
                    "--output_folder", tmp_path / "u"], check=True, timeout=300, capture_output=True)
    for name, tensor in read_folder(source(PLAIN)).items():
        stored = torch.load(tmp_path / "u/zero" / name / "fp32.pt", weights_only=False)
        stored = stored["param"] if isinstance(stored, dict) else stored
        assert torch.equal(stored.reshape(tensor.shape), tensor.float()), name


# ---- fp16, which DeepSpeed refuses on a CPU
def test_loss_scaler_of_fp16(crossdock, source, tmp_path):
    from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler
    describe(Case(PLAIN), source(PLAIN), tmp_path / "t.pb")
    crossdock("convert", source(PLAIN), tmp_path / "out", "--to", "zero3", "--world-size", 1, "--dtype", "fp16", "--target", tmp_path / "t.pb",
              "--loss-scale-power", 12, "--loss-scale-window", 77, "--hysteresis", 3, *OPTIMIZER)
    [file] = (tmp_path / "out/global_step0").glob("zero_pp_rank_0_mp_rank_00_optim_states.pt")
    state = torch.load(file, weights_only=False)["optimizer_state_dict"]
    args = {"init_scale": 2**12, "scale_window": 77, "delayed_shift": 3, "consecutive_hysteresis": False, "min_scale": 1}
    expected = CreateLossScaler(torch.half, 0, True, args)
    assert type(state["loss_scaler"]) is type(expected) and state["loss_scaler"].__dict__ == expected.__dict__
    assert state["dynamic_loss_scale"] is True


@pytest.mark.parametrize("flags", [[], ["--frozen", "norm"]], ids=["trained", "frozen"])
def test_values_beyond_fp16(crossdock, source, tmp_path, flags):
    from safetensors.torch import save_file
    folder = tmp_path / "in"
    shutil.copytree(source(PLAIN), folder)
    tensors = read_folder(folder)
    tensors["model.norm.weight"][:3] = 1e6
    tensors["model.norm.weight"][3] = 60000
    save_file(tensors, folder / "model.safetensors")
    convert = ["convert", folder, tmp_path / "out", "--to", "zero3", "--world-size", 2, *OPTIMIZER, "--dtype"]
    error = crossdock(*convert, "fp16", *flags, code=1).stderr
    assert "found 3 beyond: use --dtype bf16" in error and not (tmp_path / "out").exists()
    crossdock(*convert, "bf16", *flags)


# ---- what does not fit
@pytest.mark.parametrize("flags,message", [
    (["--world-size", 0], "--world-size: expected 1 to 65536, found 0"),
    (["--world-size", 70000], "--world-size: expected 1 to 65536, found 70000"),
    (["--world-size", 2, "--sub-group-size", 0], "--sub-group-size: expected 1 to"),
    (["--world-size", 2, "--betas", "1"], "--betas: expected two numbers"),
    (["--world-size", 2, "--tag", "a/b"], "--tag: expected the name of one folder"),
], ids=lambda value: "_".join(map(str, value)) if isinstance(value, list) else "")
def test_wrong_options(crossdock, source, plain_target, tmp_path, flags, message):
    error = crossdock("convert", source(PLAIN), tmp_path / "out", "--to", "zero3", "--target", plain_target, *flags, code=1).stderr
    assert message in error and not (tmp_path / "out").exists()


def test_targets_that_do_not_fit(crossdock, source, tmp_path):
    def refused(*flags):
        error = crossdock("convert", source(PLAIN), tmp_path / "out", "--to", "zero3", "--world-size", 2, *flags, code=1).stderr
        assert not (tmp_path / "out").exists()
        return error

    assert "found no such file" in refused("--target", tmp_path / "none.pb")
    (tmp_path / "bad.pb").write_bytes(b"not protobuf")
    assert "--target" in refused("--target", tmp_path / "bad.pb")
    config = json.loads((source(PLAIN) / "config.json").read_text())
    for change, message in (({"num_hidden_layers": 4}, "missing (model.layers.3."), ({"vocab_size": 300}, "of shape [300, 35], found [259, 35]")):
        other = tmp_path / f"other{len(message)}"
        other.mkdir()
        (other / "config.json").write_text(json.dumps({**config, **change}))
        describe(Case(PLAIN), other, tmp_path / "t.pb")
        assert message in refused("--target", tmp_path / "t.pb")


def test_many_ranks(crossdock, source, plain_target, tmp_path):
    done = crossdock("convert", source(PLAIN), tmp_path / "out", "--to", "zero3", "--world-size", 1024, "--target", plain_target,
                     "--no-sync", "--memory", "64MiB", *OPTIMIZER)
    assert len(list((tmp_path / "out/global_step0").iterdir())) == 2048
    last = torch.load(tmp_path / "out/global_step0/bf16_zero_pp_rank_1023_mp_rank_00_optim_states.pt", weights_only=False)
    flat = last["optimizer_state_dict"]["fp32_flat_groups"][0]
    assert flat.numel() == sum(-(-t.numel() // 1024) for t in read_folder(source(PLAIN)).values()) and done.returncode == 0


def test_command_line_describes(crossdock, source, tmp_path):
    """python -m crossdock_manifest, as in the README."""
    done = subprocess.run([sys.executable, "-m", "crossdock_manifest", "describe", source(TIED), "-o", tmp_path / "t.pb", "--param-groups", "hf-trainer"],
                          env={"PYTHONPATH": str(PYTHON), "PATH": "", "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=True)
    assert "LlamaForCausalLM" in done.stdout
    crossdock("convert", source(TIED), tmp_path / "out", "--to", "zero3", "--world-size", 2, "--target", tmp_path / "t.pb", *OPTIMIZER)
    state = torch.load(tmp_path / "out/global_step0/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=False)
    groups = state["optimizer_state_dict"]["optimizer_state_dict"]["param_groups"]
    assert [g["params"] for g in groups] == [[0], [1]] and [g["weight_decay"] for g in groups] == [0.01, 0.0]


def test_groups_without_members(crossdock, source, tmp_path):
    """DeepSpeed drops them, so a checkpoint that had them would not load."""
    crossdock("convert", source(PLAIN), tmp_path / "out", "--to", "zero3", "--world-size", 1, "--param-groups", "hf-trainer",
              "--trainable", "q_proj.weight", *OPTIMIZER)
    state = torch.load(tmp_path / "out/global_step0/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=False)
    [group] = state["optimizer_state_dict"]["optimizer_state_dict"]["param_groups"]
    assert group["params"] == [0] and group["weight_decay"] == 0.01


def test_groups_of_a_file(crossdock, source, tmp_path):
    groups = tmp_path / "groups.textproto"
    groups.write_text("group { lr: 1e-5 } group { parameter: 'norm' parameter: 'embed' weight_decay: 0 }")
    convert = ["convert", source(PLAIN), tmp_path / "out", "--to", "zero3", "--world-size", 1, "--param-groups", groups, *OPTIMIZER]
    crossdock(*convert, "--frozen", "o_proj")
    folder = tmp_path / "out/global_step0"
    written = torch.load(folder / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=False)
    made = written["optimizer_state_dict"]["optimizer_state_dict"]["param_groups"]
    assert [(g["lr"], g["weight_decay"]) for g in made] == [(1e-5, 0.01), (1e-3, 0.0)]
    shapes = torch.load(folder / "zero_pp_rank_0_mp_rank_00_model_states.pt", weights_only=False)["param_shapes"]
    trained = [name for name in read_folder(source(PLAIN)) if "o_proj" not in name]
    special = {name for name in trained if "norm" in name or "embed" in name}
    assert [set(group) for group in shapes] == [set(trained) - special, special]
    groups.write_text("group { parameter: 'norm' }")
    error = crossdock(*convert, "--overwrite", code=1).stderr
    assert "expected a group for every trained parameter, found none for model.embed_tokens.weight" in error
    assert "leave one of the two out" in crossdock(*convert, "--target", groups, code=2).stderr


def test_universal_takes_the_description_too(crossdock, source, tmp_path):
    """Shapes are checked, frozen parameters and aliases are the job's, what the job lacks is left out."""
    case = Case(TIED, trainable=("q_proj", "norm"))
    describe(case, source(TIED), tmp_path / "t.pb")
    crossdock("convert", source(TIED), tmp_path / "out", "--to", "universal", "--target", tmp_path / "t.pb")
    state = torch.load(tmp_path / "out/global_step0/mp_rank_00_model_states.pt", weights_only=False)
    assert state["shared_params"] == {"lm_head.weight": "model.embed_tokens.weight"}
    written = {p.name for p in (tmp_path / "out/global_step0/zero").iterdir() if p.is_dir()}
    assert written == {n for n in read_folder(source(TIED)) if "q_proj" in n or "norm" in n}
    config = json.loads((source(TIED) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    describe(case, tmp_path, tmp_path / "t.pb")
    assert "of shape [300, " in crossdock("convert", source(TIED), tmp_path / "no", "--to", "universal", "--target", tmp_path / "t.pb", code=1).stderr
