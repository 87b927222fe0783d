# SPDX-License-Identifier: Apache-2.0
"""DeepSpeed's own checkpoints, of ZeRO 1, 2 and 3 after real steps: read as DeepSpeed's tools read them, and as the job had them."""
import hashlib
import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from safetensors.torch import load_file

from recipes import PLAIN, Source, read_folder

HERE = Path(__file__).parent
FROZEN = ["blocks.0"]
CLIENT = {"epoch": 3, "note": "hé", "nested": {"lr": 0.5, "list": [1, None, True]}}
SCHEDULER = {"scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0, "warmup_max_lr": 1e-3, "warmup_num_steps": 9}}}
OF_CONFIG = {"optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}}
BF16_OPTIMIZER = {"data_types": {"grad_accum_dtype": "fp32"}}  # DeepSpeed then puts BF16_Optimizer in the place of stage 1


def case(name, stage, **more):
    return {"name": name, "stage": stage, **more}


SMALL = [case("s1", 1, groups=2), case("s2", 2, tied=True), case("s3", 3, groups=2, sub_group=150, tied=True)]
AT_WORLD = {
    1: [*SMALL, case("s2-fp32", 2, dtype="fp32", frozen=FROZEN), case("s3-fp32", 3, dtype="fp32", frozen=FROZEN), case("bf16", 1, config=BF16_OPTIMIZER)],
    2: [*SMALL, case("s1-frozen", 1, frozen=FROZEN), case("s2-frozen", 2, frozen=FROZEN, groups=2), case("s3-frozen", 3, frozen=FROZEN, groups=2),
        case("s1-fp32", 1, dtype="fp32"), case("s3-fp32", 3, dtype="fp32", client=CLIENT, config=SCHEDULER),
        case("s2-elastic", 2, groups=2, zero={"elastic_checkpoint": True}), case("s2-aligned", 2, zero={"parameter_alignment": True}),
        case("s2-round-robin", 2, zero={"round_robin_gradients": True}), case("bf16", 1, groups=2, config=BF16_OPTIMIZER),
        case("s2-sgd", 2, optimizer="sgd"), case("s3-sgd", 3, optimizer="sgd"), case("s3-plain-sgd", 3, optimizer="plain_sgd"),
        case("s2-cpu-adam", 2, optimizer="cpu_adam"), case("s3-cpu-adam", 3, optimizer="cpu_adam", groups=2, sub_group=150),
        case("s2-config", 2, optimizer="config", config=OF_CONFIG), case("s3-no-steps", 3, steps=0), case("s2-unowned", 2, unowned=["gain"]),
        case("s3-unowned", 3, unowned=["gain"]), case("s2-excluded", 2, frozen=FROZEN, exclude=True)],
    3: [*SMALL, case("bf16", 1, config=BF16_OPTIMIZER), case("s3-sub", 3, sub_group=50, groups=2)],
    8: [case("s2", 2, groups=2), case("s3", 3, groups=2, sub_group=40, frozen=["blocks.1"])],
}
EVERY = [pytest.param(world, c, id=f"world{world}-{c['name']}") for world, cases in AT_WORLD.items() for c in cases]
TIED = Source(tied=True, sharded=False, dtype="bf16")


@pytest.fixture(scope="module")
def saved(torchrun, source, tmp_path_factory):
    """saved(world, case) -> the checkpoint, and what the job had. All cases of a world size are made in one job."""
    root, made = tmp_path_factory.mktemp("saved"), set()

    def make(world, case):
        out = root / str(world)
        if world not in made:
            out.mkdir()
            cases = AT_WORLD[world] + ([{"name": "llama", "stage": 3, "hf": str(source(TIED))}, {"name": "llama2", "stage": 2, "hf": str(source(PLAIN))}]
                                       if world == 2 else [])
            (out / "cases.json").write_text(json.dumps(cases))
            torchrun(world, HERE / "zero_job.py", out / "cases.json", out, timeout=1200)
            made.add(world)
        name = case if isinstance(case, str) else case["name"]
        return out / name, torch.load(out / f"{name}.truth.pt")

    return make


def same_bits(a, b):
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().reshape(-1).view(integer[a.element_size()]),
                                                                     b.contiguous().reshape(-1).view(integer[b.element_size()]))


def sha256(tensor):
    return "sha256:" + hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def inspected(crossdock, folder, *flags):
    """{name: entry} of inspect --json."""
    tensors = json.loads(crossdock("inspect", folder, "--json", "--digest", "sha256", *flags).stdout)["tensors"]
    return {t["name"]: t for t in tensors}


def manifest_of(crossdock, folder, tmp_path):
    crossdock("inspect", folder, "--manifest", tmp_path / "m.json")
    return json.loads((tmp_path / "m.json").read_text())


def plain(value):
    """A Value of the manifest's JSON as Python has it."""
    [(kind, v)] = value.items()
    if kind == "list_value":
        return [plain(one) for one in v.get("values", [])]
    if kind == "map_value":
        return {entry["key"]: plain(entry["value"]) for entry in v.get("entries", [])}
    return {"null_value": lambda _: None, "int_value": int, "double_value": float}.get(kind, lambda x: x)(v)


def lost_names(case):
    """Parameters whose values are nowhere in the files."""
    return {"gain"} if case["name"] == "s3-unowned" else {n for n in ORDER if case.get("exclude") and "blocks.0" in n}


def tied_names(case):
    return {"head.weight"} if case.get("tied") else set()


BLOCK = ["up.weight", "up.bias", "down.weight", "down.bias", "norm.weight", "norm.bias"]
ORDER = ["gain", "embed.weight", *(f"blocks.{i}.{name}" for i in (0, 1) for name in BLOCK), "head.weight"]
BUFFERS = {"seen", "blocks.0.scale", "blocks.1.scale"}


# ---- weights

@pytest.mark.parametrize("world, case", EVERY)
def test_weights(crossdock, saved, tmp_path, world, case):
    """What zero_to_fp32.py makes, bit for bit, under the module's names; and the masters that the job gathers."""
    folder, truth = saved(world, case)
    crossdock("convert", folder, tmp_path / "out", "--to", "safetensors", "--no-sync")
    weights = load_file(tmp_path / "out/model.safetensors")
    assert truth["order"] == ORDER and set(weights) == set(ORDER) - tied_names(case) - lost_names(case) | BUFFERS
    if case["name"] == "bf16":
        with pytest.raises(ValueError, match="not a zero checkpoint"):
            get_fp32_state_dict_from_zero_checkpoint(folder)
        expected = truth["master"]
    else:
        expected = get_fp32_state_dict_from_zero_checkpoint(folder)
    # It makes fp32 of buffers; and stage 1 does not list frozen parameters, which it leaves out.
    left_out = {n for n in ORDER if case["name"] == "s1-frozen" and "blocks.0" in n} | set(case.get("unowned", [])) | lost_names(case)
    assert set(expected) >= set(ORDER) - left_out and not set(expected) & left_out
    for name, tensor in expected.items():
        if name not in tied_names(case):
            got = weights[name].float() if name in BUFFERS and tensor.is_floating_point() else weights[name]
            assert same_bits(got, tensor), name
    for name in set(left_out) & set(weights):  # of which only the job's own copy is there
        assert same_bits(weights[name], truth["model"][name]), name
    for name, tensor in truth["buffers"].items():
        assert same_bits(weights[name], tensor), name
    if case["name"] != "s2-round-robin":  # where DeepSpeed gathers the wrong elements: they are not even near the model's own
        for name, tensor in truth["master"].items():
            assert torch.equal(weights[name if name in weights else "embed.weight"], tensor), name
    for name, tensor in truth["model"].items():  # a master is what the job's own copy was rounded from
        if name in weights:
            assert torch.equal(weights[name].to(tensor.dtype), tensor), name


@pytest.mark.parametrize("world, case", EVERY)
def test_the_jobs_own_copy(crossdock, saved, tmp_path, world, case):
    folder, truth = saved(world, case)
    crossdock("convert", folder, tmp_path / "out", "--to", "safetensors", "--weights", "model", "--no-sync")
    weights = load_file(tmp_path / "out/model.safetensors")
    assert set(weights) == set(ORDER) - tied_names(case) - lost_names(case) | BUFFERS
    for name, tensor in weights.items():
        assert same_bits(tensor, (truth["buffers"] if name in BUFFERS else truth["model"])[name]), name


# ---- the state of the training

@pytest.mark.parametrize("world, case", [p for p in EVERY if p.values[1]["name"] != "s2-round-robin"])
def test_moments(crossdock, saved, world, case):
    """As the job gathers them from its optimizer."""
    folder, truth = saved(world, case)
    tensors = inspected(crossdock, folder)
    states = {name for name in tensors if "/" in name}
    expected = {f"{kind}/{name}": t for kind in ("exp_avg", "exp_avg_sq") for name, t in truth[kind].items() if name not in tied_names(case)}
    if case.get("optimizer") == "sgd":
        expected = {f"momentum_buffer/{name}": None for name in truth["master"]}
    assert states == set(expected)
    for name, tensor in expected.items():
        assert tensor is None or (tensors[name]["digest"], tensors[name]["shape"]) == (sha256(tensor), list(tensor.shape)), name
    assert {t["dtype"] for name, t in tensors.items() if name in states} <= {"F32"}


@pytest.mark.parametrize("world, name", [(2, "s3"), (3, "s3-sub"), (3, "s1"), (2, "s2-frozen"), (8, "s2")])
def test_moments_as_ds_to_universal_cuts_them(crossdock, saved, python_job, tmp_path, world, name):
    """Bit for bit, masters too."""
    folder, truth = saved(world, name)
    copy = shutil.copytree(folder, tmp_path / "in")
    python_job(sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", copy / "global_step3", "--output_folder",
               tmp_path / "universal", "--num_extract_workers", 1, "--num_merge_workers", 1, "--inject_missing_state")
    tensors = inspected(crossdock, folder)
    assert truth["master"]
    for parameter in truth["master"]:
        if f"exp_avg/{parameter}" not in tensors:
            continue
        for key, stored in ("fp32", parameter), ("exp_avg", f"exp_avg/{parameter}"), ("exp_avg_sq", f"exp_avg_sq/{parameter}"):
            state = torch.load(tmp_path / "universal/zero" / parameter / f"{key}.pt", weights_only=False)
            value = state["param"] if isinstance(state, dict) else state
            assert tensors[stored]["digest"] == sha256(value), stored


@pytest.mark.parametrize("world, case", EVERY)
def test_the_training_state(crossdock, saved, tmp_path, world, case):
    folder, truth = saved(world, case)
    m = manifest_of(crossdock, folder, tmp_path)
    names = [t["name"] for t in m["tensors"]]
    metadata = {entry["key"]: plain(entry["value"]) for entry in m["source"]["metadata"]}
    assert metadata["zero_stage"] == case["stage"] and metadata["dp_world_size"] == world and metadata["mp_world_size"] == 1
    assert metadata["global_steps"] == truth["steps"] and metadata["skipped_steps"] == 0
    training = m.get("training", {})
    assert int(training.get("step", 0)) == truth["steps"]
    module = [(e["name"], names[int(e.get("tensor", 0))]) for e in m["module"]]
    kept = {"head.weight": "embed.weight"} if case.get("tied") else {}
    assert module == [(n, kept.get(n, n)) for n in ORDER if n not in lost_names(case)] + [(n, n) for n in names if n in BUFFERS]
    groups = [[names[int(i)] for i in g["tensors"]] for g in training["groups"]]
    owned = [n for n in ORDER if n not in kept and not any(part in n for part in [*case.get("frozen", []), *case.get("unowned", [])])]
    special = [n for n in owned if n.endswith("bias") or "norm" in n]
    wanted = [[n for n in owned if n not in special], special] if case.get("groups") == 2 else [owned]
    if case["name"] == "s2-round-robin":
        assert sorted(groups[0]) == sorted(owned) and groups[0] != owned  # in the row's order
    else:
        assert groups == wanted
    hyper = [{e["key"]: plain(e["value"]) for e in g.get("hyper_parameters", [])} for g in training["groups"]]
    if case["name"] == "s2-elastic":
        assert hyper == [{}, {}]
    elif case.get("optimizer") == "cpu_adam":
        assert training["optimizer"] == "deepspeed.ops.adam.DeepSpeedCPUAdam" and all(h["betas"] == [0.8, 0.95] and "step" not in h for h in hyper)
    elif case.get("optimizer", "adamw") == "adamw":
        assert [h["weight_decay"] for h in hyper] == ([0.01, 0.0] if case.get("groups") == 2 else [0.01])
        assert "scheduler" in case.get("config", {}) or [h["lr"] for h in hyper] == ([3e-3, 2e-3] if case.get("groups") == 2 else [3e-3])
        assert all(h["betas"] == [0.8, 0.95] and h["eps"] == 1e-8 and "params" not in h for h in hyper)
        assert training["optimizer"] == metadata["optimizer"] == "torch.optim.AdamW"
    frozen = {t["name"] for t in m["tensors"] if t.get("train") == "FROZEN"}
    assert frozen == {n for n in ORDER if any(part in n for part in [*case.get("frozen", []), *case.get("unowned", [])])} - lost_names(case)
    assert {t["name"] for t in m["tensors"] if t.get("role") == "BUFFER"} == BUFFERS


def test_metadata_of_the_job(crossdock, saved, tmp_path):
    folder, _ = saved(2, "s3-fp32")
    metadata = {entry["key"]: plain(entry["value"]) for entry in manifest_of(crossdock, folder, tmp_path)["source"]["metadata"]}
    assert metadata["client_state"] == CLIENT
    state = torch.load(folder / "global_step3/zero_pp_rank_0_mp_rank_00_model_states.pt", weights_only=False)
    assert metadata["lr_scheduler"] == state["lr_scheduler"] and state["lr_scheduler"]
    assert (metadata["tag"], metadata["ds_version"], metadata["global_samples"]) == ("global_step3", state["ds_version"], state["global_samples"])
    scaler = torch.load(folder / "global_step3/zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=False)["optimizer_state_dict"]["loss_scaler"]
    assert metadata["loss_scaler"] == {"class": f"{type(scaler).__module__}.{type(scaler).__qualname__}", **vars(scaler)}


def test_a_dynamic_loss_scale_goes_along(crossdock, copy, tmp_path, monkeypatch):
    """As a job in fp16 has it, which DeepSpeed refuses on a CPU: its own object takes the place of the static one."""
    from types import SimpleNamespace
    from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
    from deepspeed.runtime.fp16 import loss_scaler
    monkeypatch.setattr(loss_scaler.dist, "get_rank", lambda: 1)  # which it asks before it logs
    folder, files = copy(2, "s3-fp32")
    scaler = CreateLossScaler(torch.half, 0, True, {"init_scale": 2**14, "scale_window": 5, "delayed_shift": 3, "consecutive_hysteresis": True, "min_scale": 4})
    for overflow in (False, True, True, True, False, False, True):
        scaler.update_scale(overflow)
    assert (scaler.cur_iter, scaler.last_overflow_iter) == (7, 6) and scaler.cur_hysteresis < 3 and scaler.loss_scale < 2**14
    for file in files.glob("*_optim_states.pt"):
        state = torch.load(file, weights_only=False)
        state["optimizer_state_dict"].update(loss_scaler=scaler, dynamic_loss_scale=True)
        torch.save(state, file)
    metadata = {entry["key"]: plain(entry["value"]) for entry in manifest_of(crossdock, folder, tmp_path)["source"]["metadata"]}
    values = {key: value for key, value in vars(scaler).items() if key != "dtype"}
    assert metadata["loss_scaler"] == {"class": "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler", **values}

    def taken(flags, *name):
        crossdock("convert", folder, tmp_path / name[0], "--no-sync", "--to", *flags)
        [file] = (tmp_path / name[0]).glob(name[1])
        return torch.load(file, weights_only=False)

    state = taken(["zero3", "--world-size", 3, "--dtype", "fp16"], "zero3", "*/zero_pp_rank_2_mp_rank_00_optim_states.pt")["optimizer_state_dict"]
    assert type(state["loss_scaler"]) is type(scaler) and vars(state["loss_scaler"]) == vars(scaler) and state["dynamic_loss_scale"] is True
    flags = ["zero3", "--world-size", 1, "--dtype", "fp16", "--loss-scale-window", 77]
    other = taken(flags, "window", "*/zero_pp_rank_0_mp_rank_00_optim_states.pt")["optimizer_state_dict"]["loss_scaler"]
    assert vars(other) == {**vars(scaler), "scale_window": 77}
    job = SimpleNamespace(loss_scaler=None, dynamic_loss_scale=False, overflow=False)
    DeepSpeedZeroOptimizer_Stage3._load_global_state_stage3(job, taken(["universal"], "universal", "*/zero/optimizer_state.pt"))
    assert type(job.loss_scaler) is type(scaler) and vars(job.loss_scaler) == vars(scaler) and job.dynamic_loss_scale is True
    for same in scaler, job.loss_scaler, state["loss_scaler"]:
        same.update_scale(True)
    assert vars(job.loss_scaler) == vars(state["loss_scaler"]) == vars(scaler)


# ---- models of transformers

@pytest.mark.parametrize("name, recipe", [("llama", TIED), ("llama2", PLAIN)])
def test_a_model_that_config_json_names(crossdock, saved, source, tmp_path, name, recipe):
    """As the HF Trainer leaves it: config.json beside the checkpoint. transformers loads what comes out."""
    from transformers import AutoModelForCausalLM
    folder, truth = saved(2, name)
    job = shutil.copytree(folder, tmp_path / "in")
    shutil.copy(source(recipe) / "config.json", job)
    done = crossdock("convert", job, tmp_path / "out", "--to", "safetensors", "--no-sync")
    assert "not compared" not in done.stdout, done.stdout
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True, dtype=torch.float32)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    expected = get_fp32_state_dict_from_zero_checkpoint(folder)
    for parameter, value in model.named_parameters():
        assert same_bits(value.detach(), expected[parameter]), parameter
    assert len(truth["master"]) >= 30


def test_beside_a_model_of_hugging_face(crossdock, saved, source, tmp_path):
    """The standard name wins, and a line says what else could be read."""
    folder, _ = saved(2, "llama2")
    job = shutil.copytree(folder, tmp_path / "in")
    for file in source(PLAIN).iterdir():
        shutil.copy(file, job)
    done = crossdock("convert", job, tmp_path / "out", "--to", "safetensors", "--no-sync")
    assert all(same_bits(t, read_folder(source(PLAIN))[n]) for n, t in load_file(tmp_path / "out/model.safetensors").items())
    assert "--from zero chooses the other" in done.stderr + done.stdout
    crossdock("convert", job, tmp_path / "out2", "--to", "safetensors", "--from", "zero", "--no-sync")
    # Where the state of the run goes along, it is read with its weights.
    done = crossdock("convert", job, tmp_path / "out3", "--to", "universal", "--no-sync")
    assert "--from safetensors chooses the other" in done.stderr + done.stdout
    assert inspected(crossdock, tmp_path / "out3") == {n: t for n, t in inspected(crossdock, folder).items()}
    assert not same_bits(load_file(tmp_path / "out2/model.safetensors")["model.norm.weight"], read_folder(source(PLAIN))["model.norm.weight"].float())


@pytest.mark.parametrize("world", [1, 3, 64])
def test_what_crossdock_writes_itself(crossdock, source, tmp_path, world):
    """From Hugging Face to ZeRO-3 shards and back: the fp32 values of the source, bit for bit."""
    crossdock("convert", source(PLAIN), tmp_path / "shards", "--to", "zero3", "--world-size", world, "--lr", 1e-3, "--weight-decay", 0.01, "--no-sync")
    assert len(list((tmp_path / "shards/global_step0").iterdir())) >= 2 * world
    crossdock("convert", tmp_path / "shards", tmp_path / "out", "--to", "safetensors", "--no-sync")
    weights, expected = load_file(tmp_path / "out/model.safetensors"), read_folder(source(PLAIN))
    assert set(weights) == set(expected) and all(same_bits(weights[n], t.float()) for n, t in expected.items())


def test_universal_checkpoint(crossdock, saved, tmp_path):
    """Another training format takes the masters."""
    folder, truth = saved(2, "s3")
    crossdock("convert", folder, tmp_path / "out", "--to", "universal", "--no-sync")
    for name in truth["master"]:
        if name != "head.weight":
            written = torch.load(next((tmp_path / "out").glob("*/zero")) / name / "fp32.pt", weights_only=False)["param"]
            assert torch.equal(written, truth["master"][name]), name


# ---- which checkpoint, and faults

@pytest.fixture
def copy(saved, tmp_path):
    """copy(world, name) -> a checkpoint to damage, and the folder of its files."""
    def make(world, name):
        folder = shutil.copytree(saved(world, name)[0], tmp_path / f"{name}-{world}")
        return folder, folder / "global_step3"

    return make


def refusal(crossdock, folder, *flags):
    return crossdock("convert", folder, folder.parent / "refused", "--to", "safetensors", *flags, code=1).stderr


def test_tags(crossdock, copy, saved):
    folder, files = copy(2, "s2")
    digests = inspected(crossdock, folder)
    assert {n: t["digest"] for n, t in inspected(crossdock, files).items()} == {n: t["digest"] for n, t in digests.items()}
    own = "--from-tag: expected a folder that has the folder \"global_step3\", found SRC to be one checkpoint's own folder: leave the flag out"
    assert own in refusal(crossdock, files, "--from-tag", "global_step3")
    other = saved(2, "s1-fp32")[0] / "global_step3"
    shutil.copytree(other, folder / "second")
    assert inspected(crossdock, folder) == digests
    assert inspected(crossdock, folder, "--from-tag", "global_step3") == digests
    assert inspected(crossdock, folder, "--from-tag", "second")["gain"]["digest"] == inspected(crossdock, other)["gain"]["digest"]
    (folder / "latest").write_text("third")
    assert "expected the folder \"third\" that `latest` names, found global_step3, second" in refusal(crossdock, folder)
    (folder / "latest").unlink()
    assert "several checkpoints (global_step3, second): --from-tag TAG chooses one" in refusal(crossdock, folder)
    shutil.rmtree(folder / "second")
    assert inspected(crossdock, folder) == digests


@pytest.mark.parametrize("name", ["s1", "s2", "s3"])
def test_missing_files(crossdock, copy, name):
    folder, files = copy(3, name)
    states = files / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    states.rename(folder / "kept")
    assert "expected the optimizer states of 3 ranks, found none of rank 1" in refusal(crossdock, folder)
    (folder / "kept").rename(states)
    model = files / ("zero_pp_rank_2_mp_rank_00_model_states.pt" if name == "s3" else "mp_rank_00_model_states.pt")
    model.unlink()
    expected = "expected the model states of 3 ranks, found none of rank 2" if name == "s3" else "expected global_step3/mp_rank_00_model_states.pt"
    assert expected in refusal(crossdock, folder)


@pytest.mark.parametrize("name", ["s2", "s3"])
def test_truncated_files(crossdock, copy, name):
    folder, files = copy(2, name)
    for file in sorted(files.glob("*.pt")):
        whole = file.read_bytes()
        for n in (0, 100, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:n])
            error = refusal(crossdock, folder)
            assert f"global_step3/{file.name}: expected" in error, (file, n, error)
        file.write_bytes(whole)
    inspected(crossdock, folder)


def test_files_of_different_saves(crossdock, copy, saved):
    """Another step, world size, model or stage."""
    folder, files = copy(2, "s3")
    second = "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    whole = (files / second).read_bytes()
    for world, name, said in ((3, "s3", "partition_count 2 as rank 0 has, found 3"), (2, "s3-frozen", "a number of flat groups of 3 as rank 0 has, found 2"),
                              (2, "s2", "zero_stage 3 as rank 0 has, found 2")):
        shutil.copy(saved(world, name)[0] / "global_step3" / second, files)
        assert said in refusal(crossdock, folder)
    (files / second).write_bytes(whole)
    state = torch.load(files / second, weights_only=False)
    for entry in state["optimizer_state_dict"]["optimizer_state_dict"]["state"].values():
        entry["step"] += 1
    torch.save(state, files / second)
    assert "expected in group 0 step 3 as rank 0 has, found 4: the files are of different saves" in refusal(crossdock, folder)
    (files / second).write_bytes(whole)
    model = files / "zero_pp_rank_1_mp_rank_00_model_states.pt"
    state = torch.load(model, weights_only=False)
    torch.save({**state, "global_steps": 4}, model)
    assert "expected global_steps 3 as rank 0 has, found 4" in refusal(crossdock, folder)
    torch.save({**state, "dp_world_size": 4}, model)
    assert "expected dp_world_size 2 as rank 0 has, found 4" in refusal(crossdock, folder)
    shutil.copy(saved(3, "s3")[0] / "global_step3" / "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt", files)
    assert "found 3, as global_step3/bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt: the folder holds a save of another number of ranks" in refusal(crossdock, folder)


@pytest.mark.parametrize("name", ["s2", "s3"])
def test_files_under_other_ranks_names(crossdock, copy, name):
    """Of one save, with all that is compared the same: only torch's name of the zip's folder tells."""
    folder, files = copy(2, name)
    kinds = ["bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt"] + ["zero_pp_rank_{}_mp_rank_00_model_states.pt"] * (name == "s3")
    for kind in kinds:
        first, second = (files / kind.format(rank) for rank in (0, 1))
        whole = second.read_bytes()
        shutil.copy(first, second)
        assert f"{second.name}: expected the file that was saved under this name, found the one that was saved as \"{first.name}\"" in refusal(crossdock, folder)
        second.write_bytes(whole)
    inspected(crossdock, folder)


def test_model_states_of_another_step(crossdock, copy):
    folder, files = copy(2, "s2")
    assert "load_optimizer_states" not in crossdock("inspect", folder).stderr
    model = files / "mp_rank_00_model_states.pt"
    torch.save({**torch.load(model, weights_only=False), "global_steps": 5}, model)
    assert "expected model states of step 3 as the optimizer states are, found them to be of step 5" in crossdock("inspect", folder).stderr


def test_crc(crossdock, copy):
    folder, files = copy(2, "s2")
    assert inspected(crossdock, folder) == inspected(crossdock, folder, "--verify-crc")
    name = "bf16_zero_pp_rank_1_mp_rank_00_optim_states"
    state = torch.load(files / f"{name}.pt", weights_only=False)["optimizer_state_dict"]["single_partition_of_fp32_groups"][0]
    damaged = bytearray((files / f"{name}.pt").read_bytes())
    damaged[bytes(damaged).index(state.detach().numpy().tobytes())] ^= 1
    (files / f"{name}.pt").write_bytes(damaged)
    inspected(crossdock, folder)
    assert f'{name}.pt: expected record "{name}/data/' in crossdock("inspect", folder, "--verify-crc", code=1).stderr


@pytest.mark.parametrize("name", ["s2", "s3"])
def test_groups_that_do_not_add_up(crossdock, copy, name):
    folder, files = copy(2, name)
    first = files / ("zero_pp_rank_0_mp_rank_00_model_states.pt" if name == "s3" else "mp_rank_00_model_states.pt")
    state = torch.load(first, weights_only=False)
    too_few = "elements" if name == "s3" else "expected an alignment padding for each of 13 parameters, found 14"
    for change, said in ((lambda shapes: shapes[0].pop("gain"), too_few), (lambda shapes: shapes[0].update(gain=torch.Size([9])), "elements"),
                         (lambda shapes: shapes.append({}), "groups, as the optimizer states have, found"),
                         (lambda shapes: shapes[0].update(seen=shapes[0].pop("gain")), "found \"seen\" twice in param_shapes and buffer_names")):
        changed = [dict(group) for group in state["param_shapes"]]
        change(changed)
        torch.save({**state, "param_shapes": changed}, first)
        error = refusal(crossdock, folder)
        assert said in error and "expected" in error


def test_other_layouts_are_refused_by_name(crossdock, copy):
    folder, files = copy(2, "s2")
    universal = "ds_to_universal.py, which puts them together"
    other = "expected the files of 1 model-parallel ranks, found some of mp_rank_01: the folder holds a save of another number of ranks too"
    for name, *said in (("mp_rank_01_model_states.pt", other), ("bf16_zero_pp_rank_0_mp_rank_01_optim_states.pt", other),
                        ("layer_00-expert_00-model_states.pt", "expected layers of a pipeline as layer_00-model_states.pt", universal),
                        ("layer_0_expert_1_mp_rank_00_model_states.pt", "experts", universal)):
        (files / name).write_bytes(b"")
        error = refusal(crossdock, folder)
        assert all(part in error for part in said), error
        (files / name).unlink()


def test_attacks_are_refused(crossdock, copy):
    folder, files = copy(2, "s3")

    class Attack:
        def __reduce__(self):
            return exec, ("raise SystemExit(7)",)

    torch.save({"optimizer_state_dict": Attack()}, files / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")
    assert "made to attack whoever loads it" in refusal(crossdock, folder)


def test_pieces_of_every_size(crossdock, saved, tmp_path):
    """Many small reads over the ends of ranks give the same as few large ones."""
    folder, _ = saved(3, "s3-sub")
    whole = inspected(crossdock, folder)
    crossdock("convert", folder, tmp_path / "out", "--to", "safetensors", "--memory", "64MiB", "--threads", 4, "--no-sync")
    out = load_file(tmp_path / "out/model.safetensors")
    assert all(whole[name]["digest"] == sha256(t) for name, t in out.items()) and math.prod(out["embed.weight"].shape) % 3
