# SPDX-License-Identifier: Apache-2.0
"""Universal checkpoints that DeepSpeed's ds_to_universal.py made of its own checkpoints, and crossdock's: read as DeepSpeed has them."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from deepspeed.checkpoint import ds_to_universal
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from safetensors.torch import load_file, save_file

from recipes import PLAIN, Source, read_folder
from test_reader_zero import BF16_OPTIMIZER, BUFFERS, CLIENT, FROZEN, ORDER, SCHEDULER, TIED, case, inspected, manifest_of, plain, same_bits, sha256, tied_names

HERE = Path(__file__).parent
AT_WORLD = {
    1: [case("s2", 2, tied=True), case("s3", 3, dtype="fp32", frozen=FROZEN)],
    2: [case("s1", 1, groups=2), case("s2", 2, tied=True, frozen=FROZEN), case("s2-fp32", 2, dtype="fp32", client=CLIENT, config=SCHEDULER),
        case("s2-unowned", 2, unowned=["gain"]), case("bf16", 1, config=BF16_OPTIMIZER), case("s3", 3, tied=True, frozen=FROZEN, groups=2),
        case("s3-fp32", 3, dtype="fp32", client=CLIENT, config=SCHEDULER), case("s3-sub", 3, groups=2, sub_group=150),
        case("llama", 3, hf=True), case("llama2", 2, hf=True)],
    3: [case("s1", 1), case("s2", 2, groups=2), case("s3", 3, frozen=["blocks.1"])],
}
EVERY = [pytest.param(world, c, id=f"world{world}-{c['name']}") for world, cases in AT_WORLD.items() for c in cases if "hf" not in c]


@pytest.fixture(scope="module")
def saved(torchrun, python_job, source, tmp_path_factory):
    """saved(world, name) -> the universal checkpoint, the one of ZeRO that it is made of, and what the job had."""
    root, made = tmp_path_factory.mktemp("saved"), set()

    def make(world, name):
        out = root / str(world)
        if world not in made:
            out.mkdir()
            sources = {"llama": TIED, "llama2": PLAIN}
            cases = [c | ({"hf": str(source(sources[c["name"]]))} if "hf" in c else {}) for c in AT_WORLD[world]]
            (out / "cases.json").write_text(json.dumps(cases))
            torchrun(world, HERE / "zero_job.py", out / "cases.json", out, timeout=1200)
            (out / "universal.json").write_text(json.dumps([[str(out / c["name"]), str(out / f"{c['name']}-universal")] for c in cases]))
            python_job(sys.executable, HERE / "universal_job.py", out / "universal.json", timeout=1200)
            made.add(world)
        return out / f"{name}-universal", out / name, torch.load(out / f"{name}.truth.pt")

    return make


def files_of(folder):
    """{name: {kind: tensor}} of zero/."""
    out = {}
    for file in folder.glob("*/zero/*/*.pt"):
        state = torch.load(file, weights_only=False)
        out.setdefault(file.parent.name, {})[file.stem] = state["param"] if isinstance(state, dict) else state
    return out


def converted(crossdock, folder, out, *flags):
    crossdock("convert", folder, out, "--to", "safetensors", "--no-sync", *flags)
    return load_file(out / "model.safetensors")


# ---- what DeepSpeed made

@pytest.mark.parametrize("world, case", EVERY)
def test_weights(crossdock, saved, tmp_path, world, case):
    """fp32.pt's values bit for bit, in the job's shapes; and what zero_to_fp32.py makes of the checkpoint behind."""
    folder, native, truth = saved(world, case["name"])
    weights = converted(crossdock, folder, tmp_path / "out")
    assert set(weights) == set(ORDER) - tied_names(case) | BUFFERS
    files = files_of(folder)
    assert truth["master"]
    for name, master in truth["master"].items():
        if name not in tied_names(case):
            assert same_bits(weights[name].flatten(), files[name]["fp32"].flatten()) and weights[name].shape == master.shape, name
            assert torch.equal(weights[name], master), name
    for name in set(weights) - BUFFERS - set(truth["master"]):  # frozen, or owned by no optimizer: of which the job's own copy is there
        assert same_bits(weights[name], truth["model"][name]), name
    for name, tensor in truth["buffers"].items():
        assert same_bits(weights[name], tensor), name
    if case["name"] != "bf16":  # which zero_to_fp32.py refuses
        expected = get_fp32_state_dict_from_zero_checkpoint(native)
        assert all(same_bits(weights[name], t) for name, t in expected.items() if name in weights and name not in BUFFERS)


@pytest.mark.parametrize("world, case", EVERY)
def test_the_jobs_own_copy(crossdock, saved, tmp_path, world, case):
    folder, _, truth = saved(world, case["name"])
    weights = converted(crossdock, folder, tmp_path / "out", "--weights", "model")
    assert set(weights) == set(ORDER) - tied_names(case) | BUFFERS
    for name, tensor in weights.items():
        assert same_bits(tensor, (truth["buffers"] if name in BUFFERS else truth["model"])[name]), name


@pytest.mark.parametrize("world, case", EVERY)
def test_moments(crossdock, saved, world, case):
    """Of the files bit for bit, and as the job gathers them."""
    folder, _, truth = saved(world, case["name"])
    tensors, files = inspected(crossdock, folder), files_of(folder)
    expected = {f"{kind}/{name}": t for kind in ("exp_avg", "exp_avg_sq") for name, t in truth[kind].items() if name not in tied_names(case)}
    assert {name for name in tensors if "/" in name} == set(expected) and expected
    for name, tensor in expected.items():
        kind, parameter = name.split("/")
        assert (tensors[name]["digest"], tensors[name]["shape"]) == (sha256(tensor), list(tensor.shape)), name
        assert tensors[name]["digest"] == sha256(files[parameter][kind]), name


def facts(m):
    """What a manifest says of a run, by names."""
    names = [t["name"] for t in m["tensors"]]
    training = m["training"]
    return {"metadata": {e["key"]: plain(e["value"]) for e in m["source"]["metadata"]},
            "step": int(training.get("step", 0)), "optimizer": training.get("optimizer", ""),
            "groups": [([names[int(i)] for i in g["tensors"]], {e["key"]: plain(e["value"]) for e in g.get("hyper_parameters", [])}) for g in training["groups"]],
            "moments": {(e["kind"], names[int(e.get("parameter", 0))], names[int(e["state"])]) for e in training["moments"]},
            "module": [(e["name"], names[int(e.get("tensor", 0))]) for e in m["module"]],
            "tensors": {t["name"]: (t["dtype"], t.get("shape"), t["role"], t.get("train")) for t in m["tensors"]},
            "tied": [[names[int(i)] for i in g["tensors"]] for g in m.get("alias_groups", [])]}


@pytest.mark.parametrize("world, case", EVERY)
def test_the_training_state(crossdock, saved, tmp_path, world, case):
    """As the checkpoint behind has it, of which test_reader_zero.py asks the job itself."""
    folder, native, truth = saved(world, case["name"])
    ours, theirs = facts(manifest_of(crossdock, folder, tmp_path)), facts(manifest_of(crossdock, native, tmp_path))
    assert ours == theirs
    assert ours["step"] == truth["steps"] == 3 and len(ours["moments"]) == 2 * len(set(truth["master"]) - tied_names(case))
    assert ours["metadata"]["zero_stage"] == case["stage"] and ours["metadata"]["dp_world_size"] == world
    assert [name for name, _ in ours["module"]][:len(ORDER)] == truth["order"]
    assert ours["metadata"].get("client_state") == case.get("client")


def test_as_older_versions_leave_it(crossdock, saved, tmp_path):
    """DeepSpeed 0.14.0 keeps no groups, no step.pt, and nothing of what does not train."""
    folder = shutil.copytree(saved(2, "s2")[0], tmp_path / "old")
    before = facts(manifest_of(crossdock, folder, tmp_path)), {n: t["digest"] for n, t in inspected(crossdock, folder).items()}
    state = folder / "global_step3/zero/optimizer_state.pt"
    torch.save({k: v for k, v in torch.load(state, weights_only=False).items() if k != "param_groups"}, state)
    for step in folder.glob("*/zero/*/step.pt"):
        step.unlink()
    for parameter in [f.parent for f in folder.glob("*/zero/*/fp32.pt")]:
        if len(list(parameter.iterdir())) == 1:
            shutil.rmtree(parameter)
    after = facts(manifest_of(crossdock, folder, tmp_path))
    assert {n: t["digest"] for n, t in inspected(crossdock, folder).items()} == before[1]
    assert after["step"] == 3 and [names for names, _ in after["groups"]] == [names for names, _ in before[0]["groups"]]
    assert after["optimizer"] == "" and all(after[k] == before[0][k] for k in ("moments", "module", "tensors", "tied"))


def test_a_model_of_transformers(crossdock, saved, source, tmp_path):
    from transformers import AutoModelForCausalLM
    for name, recipe in ("llama", TIED), ("llama2", PLAIN):
        folder, native, _ = saved(2, name)
        job = shutil.copytree(folder, tmp_path / name)
        shutil.copy(source(recipe) / "config.json", job)
        done = crossdock("convert", job, tmp_path / f"{name}-out", "--to", "safetensors", "--no-sync")
        assert "not compared" not in done.stdout, done.stdout
        model, info = AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}-out", output_loading_info=True, dtype=torch.float32)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        expected = get_fp32_state_dict_from_zero_checkpoint(native)
        assert all(same_bits(value.detach(), expected[parameter]) for parameter, value in model.named_parameters())


# ---- tensor-parallel parts, which DeepSpeed has joined

@pytest.mark.parametrize("stage", [1, 3])
def test_autotp(crossdock, torchrun, python_job, tmp_path, stage):
    """Of a job that two ranks shared tensor by tensor: the whole ones, near those that it began with."""
    torchrun(2, HERE / "autotp_job.py", stage, tmp_path / "native")
    (tmp_path / "universal.json").write_text(json.dumps([[str(tmp_path / "native"), str(tmp_path / "universal")]]))
    python_job(sys.executable, HERE / "universal_job.py", tmp_path / "universal.json")
    weights, begun = converted(crossdock, tmp_path / "universal", tmp_path / "out"), torch.load(tmp_path / "native/begun.pt")
    files = files_of(tmp_path / "universal")
    assert set(weights) == set(begun) == set(files)
    for name, tensor in weights.items():
        assert same_bits(tensor, files[name]["fp32"]) and tensor.shape == begun[name].shape, name
        change = (tensor - begun[name]).abs().max()
        assert 0 < change < 2.1e-3, name  # of two steps of Adam at 1e-3
    tensors = inspected(crossdock, tmp_path / "universal")
    for name, states in files.items():
        assert all(tensors[f"{kind}/{name}"]["digest"] == sha256(states[kind]) for kind in ("exp_avg", "exp_avg_sq")), name
    m = manifest_of(crossdock, tmp_path / "universal", tmp_path)
    assert m["training"]["step"] == "2" and facts_of_metadata(m)["mp_world_size"] == 2
    assert facts_of_metadata(m)["universal_checkpoint_info"]["parameter_with_row_parallelism_patterns"]


JOINED = {  # full tensor, patterns of universal_checkpoint_info, how a rank's part is cut
    "embed.weight": (torch.arange(10 * 4.).reshape(10, 4), "vocabulary_parameter_patterns", lambda t: torch.nn.functional.pad(t, (0, 0, 0, 2)).chunk(2)),
    "down.weight": (torch.arange(6 * 8.).reshape(6, 8) + 100, "parameter_with_row_parallelism_patterns", lambda t: t.chunk(2, 1)),
    "up.weight": (torch.arange(6 * 4.).reshape(6, 4) + 200, None, lambda t: t.chunk(2)),
    "gate_up.weight": (torch.arange(8 * 3.).reshape(8, 3) + 300, "parameter_with_2_sub_params_cat_dim_0",
                       lambda t: [torch.cat([half.chunk(2)[r] for half in t.chunk(2)]) for r in (0, 1)]),
    "norm.weight": (torch.arange(4.) + 400, "tp_replicated_parameter_patterns", lambda t: [t, t]),
    "qkv.weight": (torch.arange(8 * 3.).reshape(8, 3) + 500, "parameter_with_sub_params",
                   lambda t: [torch.cat([part.chunk(2)[r] for part in t.split([4, 2, 2])]) for r in (0, 1)]),
}


def pattern_of(name):
    return name.replace(".", r"\.")


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A folder whose parameters DeepSpeed's merge_tp_slices put together of two tensor-parallel ranks."""
    root = tmp_path_factory.mktemp("joined")
    info = {"universal_checkpoint_version": 0.4, "original_vocab_size": 10,
            "parameter_with_sub_params": [{"patterns": [pattern_of("qkv.weight")], "shape": ((4, 2, 2), 3), "partition_dim": 0}],
            "sub_param_shard_widths": {pattern_of("qkv.weight"): [[2, 2], [1, 1], [1, 1]]}}
    for name, (_, key, _) in JOINED.items():
        if key and key not in info:
            info[key] = [pattern_of(name)]
    for name, (full, _, cut) in JOINED.items():
        parts = [part.contiguous() for part in cut(full)]
        for rank, part in enumerate(parts):
            for kind, plus in (("fp32", 0.), ("exp_avg", .25), ("exp_avg_sq", .5)):
                ds_to_universal.dump_param_fragment(root / "tmp", rank, 0, kind, (part + plus).flatten(), name, 0, part.numel())
            ds_to_universal.dump_param_fragment(root / "tmp", rank, 0, "step", torch.tensor(7.), name, 0, 1)
        ds_to_universal.merge_tp_slices(info, str(root / "step7/zero"), str(root / "tmp"), 2, (name, [part.shape for part in parts]))
    shutil.rmtree(root / "tmp")
    torch.save({"zero_stage": 1, "ds_version": "0.19.8", "param_groups": [{"lr": 0.5, "params": [0]}]}, root / "step7/zero/optimizer_state.pt")
    for rank in (0, 1):
        shapes = {name: torch.Size(cut(full)[rank].shape) for name, (full, _, cut) in JOINED.items()}
        torch.save({"module": {name: torch.zeros(shape) for name, shape in shapes.items()}, "buffer_names": [], "param_shapes": [shapes], "shared_params": {},
                    "dp_world_size": 1, "mp_world_size": 2, "global_steps": 7, "skipped_steps": 0, "universal_checkpoint_info": info},
                   root / f"step7/mp_rank_{rank:02}_model_states.pt")
    (root / "latest_universal").write_text("step7")
    return root, info


def test_joined_parts(crossdock, joined, tmp_path):
    folder, info = joined
    weights = converted(crossdock, folder, tmp_path / "out")
    assert set(weights) == set(JOINED)
    for name, (full, _, _) in JOINED.items():
        assert same_bits(weights[name], full), name
    tensors = inspected(crossdock, folder)
    for name, (full, _, _) in JOINED.items():
        assert tensors[f"exp_avg/{name}"]["digest"] == sha256(full + .25) and tensors[f"exp_avg_sq/{name}"]["digest"] == sha256(full + .5)
    metadata = facts_of_metadata(manifest_of(crossdock, folder, tmp_path))
    sub = json.loads(json.dumps(info["parameter_with_sub_params"]))  # tuples are lists
    assert metadata["universal_checkpoint_info"] == {**info, "parameter_with_sub_params": sub}
    layout = metadata["parameter_layout"]
    assert layout["down.weight"] == {"cat_dim": 1} and layout["embed.weight"] == {"vocab_tensor": True} and layout["gate_up.weight"] == {"param_n_sub_params": 2}
    assert layout["qkv.weight"]["sub_param_shape"]["partition_dim"] == 0 and "up.weight" not in layout


def test_joined_experts(crossdock, tmp_path):
    """As DeepSpeed writes those of AutoEP, whose ranks list the shapes of their own experts."""
    full = torch.randn(4, 3, 5)
    for plus, kind in enumerate(("fp32", "exp_avg", "exp_avg_sq")):
        ds_to_universal._save_zero3_autoep_universal_tensor(str(tmp_path / "u/step7"), "mlp.experts.w1", kind, full + plus, 4)
    torch.save({"zero_stage": 3, "param_groups": [{"lr": 0.5, "params": [0]}]}, tmp_path / "u/step7/zero/optimizer_state.pt")
    for rank in (0, 1):
        torch.save({"module": {"mlp.experts.w1": torch.empty(0)}, "buffer_names": [], "param_shapes": [{"mlp.experts.w1": torch.Size([2, 3, 5])}],
                    "frozen_param_shapes": {}, "frozen_param_fragments": {}, "shared_params": {}, "dp_world_size": 2, "mp_world_size": 1},
                   tmp_path / f"u/step7/zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
    tensors = inspected(crossdock, tmp_path / "u")
    assert {n: (t["shape"], t["digest"]) for n, t in tensors.items()} == {
        name: ([4, 3, 5], sha256(full + plus)) for plus, name in enumerate(("mlp.experts.w1", "exp_avg/mlp.experts.w1", "exp_avg_sq/mlp.experts.w1"))}
    layout = facts_of_metadata(manifest_of(crossdock, tmp_path / "u", tmp_path))["parameter_layout"]
    assert layout == {"mlp.experts.w1": {"is_expert_param": True, "ep_num_experts": 4}}


def facts_of_metadata(m):
    return {e["key"]: plain(e["value"]) for e in m["source"]["metadata"]}


# ---- jobs go on

SAVED = [case("s1", 1, groups=2, dtype="fp32"), case("s2", 2, dtype="fp32", client=CLIENT, config=SCHEDULER), case("s2-bf16", 2, tied=True),
         case("s3", 3, dtype="fp32", client=CLIENT, config=SCHEDULER)]
GOES_ON = [("s1", "universal", 1), ("s1", "universal", 2), ("s2", "universal", 2), ("s2", "universal", 3), ("s2-bf16", "universal", 2), ("s3", "universal", 3),
           ("s3", "universal", 1), ("s2", "zero3", 3), ("s3", "zero3", 3)]
NEW_WORLD = 3


@pytest.fixture(scope="module")
def went_on(crossdock, torchrun, python_job, tmp_path_factory):
    """{case: what the job says} of jobs of three ranks, from folders that were made of ds_to_universal's, and from those themselves."""
    root = tmp_path_factory.mktemp("went-on")
    (root / "saved.json").write_text(json.dumps(SAVED))
    torchrun(2, HERE / "zero_job.py", root / "saved.json", root, timeout=900)
    (root / "universal.json").write_text(json.dumps([[str(root / c["name"]), str(root / f"{c['name']}-theirs")] for c in SAVED]))
    python_job(sys.executable, HERE / "universal_job.py", root / "universal.json", timeout=900)
    cases = []
    for base in SAVED:
        name = base["name"]
        theirs = root / f"{name}-theirs"
        crossdock("convert", theirs, root / f"{name}-ours", "--to", "universal", "--no-sync")
        cases.append(base | {"name": f"{name}/theirs", "universal": True, "load": str(theirs)})
        for _, target, stage in [one for one in GOES_ON if one[0] == name]:
            folder = root / f"{name}-ours"
            if target == "zero3":
                folder = root / f"{name}-zero3"
                crossdock("convert", theirs, folder, "--to", "zero3", "--world-size", NEW_WORLD, "--dtype", base.get("dtype", "bf16"), "--no-sync")
            cases.append(base | {"name": f"{name}/{target}/{stage}", "stage": stage, "universal": target == "universal", "load": str(folder)})
    (root / "cases.json").write_text(json.dumps(cases))
    torchrun(NEW_WORLD, HERE / "continue_job.py", root / "cases.json", root / "out.json", timeout=900)
    return json.loads((root / "out.json").read_text())


@pytest.mark.parametrize("name, target, stage", GOES_ON)
def test_goes_on(went_on, name, target, stage):
    """As DeepSpeed itself from ds_to_universal's folder, at the stage that was saved."""
    ours, judge = went_on[f"{name}/{target}/{stage}"], went_on[f"{name}/theirs"]
    assert "error" not in ours, ours["error"]
    assert "error" not in judge, judge["error"]
    assert ours["losses"] == pytest.approx(judge["losses"], abs=1e-6) and len(set(ours["losses"])) > 1
    assert (ours["steps"], ours["lr"], ours["client"]) == (judge["steps"], judge["lr"], judge["client"])


# ---- crossdock's own folders

@pytest.mark.parametrize("recipe", [PLAIN, TIED, Source(tied=False, sharded=True, dtype="fp16")], ids=str)
def test_there_and_back(crossdock, source, tmp_path, recipe):
    """The source's values as fp32; with --compact, or cast back, bit for bit."""
    expected = read_folder(source(recipe))
    crossdock("convert", source(recipe), tmp_path / "universal", "--to", "universal", "--no-sync")
    wide = converted(crossdock, tmp_path / "universal", tmp_path / "wide")
    kept = {name for name in expected if not (recipe.tied and name == "lm_head.weight")}
    assert set(wide) == kept and all(same_bits(wide[n], expected[n].float()) for n in kept)
    narrow = converted(crossdock, tmp_path / "universal", tmp_path / "narrow", "--dtype", recipe.dtype)
    assert set(narrow) == kept and all(same_bits(narrow[n], expected[n]) for n in kept)
    crossdock("convert", source(recipe), tmp_path / "compact", "--to", "universal", "--compact", "--no-sync")
    compact = converted(crossdock, tmp_path / "compact", tmp_path / "same")
    assert set(compact) == kept and all(same_bits(compact[n], expected[n]) for n in kept)
    moments = {n: t["digest"] for n, t in inspected(crossdock, tmp_path / "compact").items() if "/" in n}  # of one stored zero
    assert moments == {f"{kind}/{n}": sha256(torch.zeros(expected[n].shape)) for kind in ("exp_avg", "exp_avg_sq") for n in kept}


@pytest.mark.parametrize("recipe", [PLAIN, TIED], ids=str)
def test_shards_of_it_are_those_of_the_source(crossdock, source, tmp_path, recipe):
    """ZeRO-3 knows parameters by their order alone: crossdock's folder may have a file's, which must not be taken for the module's."""
    crossdock("convert", source(recipe), tmp_path / "universal", "--to", "universal", "--no-sync")
    shards = ["--to", "zero3", "--world-size", 2, "--lr", 1e-3, "--weight-decay", 0.01, "--no-sync"]
    crossdock("convert", source(recipe), tmp_path / "direct", *shards)
    crossdock("convert", tmp_path / "universal", tmp_path / "after", *shards)
    files = sorted((tmp_path / "direct/global_step0").iterdir())
    assert len(files) == 4
    for file in files:
        direct, after = (torch.load(tmp_path / which / "global_step0" / file.name, weights_only=False) for which in ("direct", "after"))
        if "model" in file.name:
            assert [list(g.items()) for g in after["param_shapes"]] == [list(g.items()) for g in direct["param_shapes"]]
            assert after["shared_params"] == direct["shared_params"]
        else:
            direct, after = direct["optimizer_state_dict"], after["optimizer_state_dict"]
            assert all(same_bits(a, d) for a, d in zip(after["fp32_flat_groups"], direct["fp32_flat_groups"], strict=True))
            assert after["optimizer_state_dict"]["param_groups"] == direct["optimizer_state_dict"]["param_groups"]


def test_a_scalar_comes_back(crossdock, tmp_path):
    tensors = {"gain": torch.tensor(1.5), "w": torch.randn(3, 5)}
    save_file(tensors, tmp_path / "model.safetensors")
    crossdock("convert", tmp_path / "model.safetensors", tmp_path / "universal", "--to", "universal", "--no-sync")
    back = converted(crossdock, tmp_path / "universal", tmp_path / "out")
    assert set(back) == set(tensors) and all(same_bits(back[n], t) for n, t in tensors.items())


def test_more_files_than_may_be_open(crossdock, tmp_path):
    """12,000 of them."""
    tensors = {f"layers.{i}.w": torch.full((3,), float(i)) for i in range(3000)}
    save_file(tensors, tmp_path / "model.safetensors")
    crossdock("convert", tmp_path / "model.safetensors", tmp_path / "universal", "--to", "universal", "--no-sync")
    assert len(list(tmp_path.glob("universal/*/zero/*/*.pt"))) == 12_000
    command = [crossdock.path, "convert", tmp_path / "universal", tmp_path / "out", "--to", "safetensors", "--no-sync"]
    done = subprocess.run(["prlimit", "--nofile=1024:1024", *map(str, command)], env=crossdock.env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    back = load_file(tmp_path / "out/model.safetensors")
    assert set(back) == set(tensors) and all(same_bits(back[n], t) for n, t in tensors.items())


# ---- which checkpoint, and faults

@pytest.fixture
def copy(saved, tmp_path):
    """copy(world, name) -> a checkpoint to damage, and the folder of its tag."""
    def make(world, name):
        folder = shutil.copytree(saved(world, name)[0], tmp_path / f"{name}-{world}")
        return folder, folder / "global_step3"

    return make


def refusal(crossdock, folder, *flags):
    error = crossdock("convert", folder, folder.parent / "refused", "--to", "safetensors", *flags, code=1).stderr
    assert error.count("crossdock: error:") == 1 and not (folder.parent / "refused").exists()
    return error


def test_crc(crossdock, copy):
    folder, files = copy(2, "s2")
    assert inspected(crossdock, folder) == inspected(crossdock, folder, "--verify-crc")
    file = files / "zero/gain/exp_avg.pt"
    state = torch.load(file, weights_only=False)["param"]
    damaged = bytearray(file.read_bytes())
    damaged[bytes(damaged).index(state.numpy().tobytes())] ^= 1
    file.write_bytes(damaged)
    inspected(crossdock, folder)
    assert 'zero/gain/exp_avg.pt: expected record "exp_avg/data/' in crossdock("inspect", folder, "--verify-crc", code=1).stderr


def test_tags(crossdock, copy):
    folder, files = copy(2, "s2")
    digests = inspected(crossdock, folder)
    assert {n: t["digest"] for n, t in inspected(crossdock, files).items()} == {n: t["digest"] for n, t in digests.items()}
    own = "--from-tag: expected a folder that has the folder \"global_step3\", found SRC to be one checkpoint's own folder: leave the flag out"
    assert own in refusal(crossdock, files, "--from-tag", "global_step3")
    shutil.copytree(copy(2, "s1")[1], folder / "second")
    assert inspected(crossdock, folder) == digests == inspected(crossdock, folder, "--from-tag", "global_step3")
    assert set(inspected(crossdock, folder, "--from-tag", "second")) > set(digests)
    assert "in the folder \"third\" that --from-tag names, found one in global_step3, second" in refusal(crossdock, folder, "--from-tag", "third")
    (folder / "latest_universal").write_text("third")
    assert "in the folder \"third\" that `latest_universal` names, found one in global_step3, second" in refusal(crossdock, folder)
    (folder / "latest_universal").unlink()
    assert "several checkpoints (global_step3, second): --from-tag TAG chooses one" in refusal(crossdock, folder)
    (folder / "latest").write_text("global_step3")
    assert inspected(crossdock, folder) == digests


def test_beside_a_checkpoint_of_zero(crossdock, saved, tmp_path):
    """As ds_to_universal.py leaves them: nothing tells which is meant."""
    universal, native, truth = saved(2, "s2-fp32")
    both = shutil.copytree(native, tmp_path / "both")
    shutil.copytree(universal / "global_step3", both / "global_step3_universal")
    (both / "latest_universal").write_text("global_step3_universal")
    error = refusal(crossdock, both)
    assert "expected one model in" in error and "choose with --from universal or --from zero" in error
    for name in "universal", "zero":
        weights = converted(crossdock, both, tmp_path / name, "--from", name)
        assert all(torch.equal(weights[n], t) for n, t in truth["master"].items())
        assert manifest_source(crossdock, both, tmp_path, name) == name
    # Each alone is for one reader.
    assert manifest_source(crossdock, universal, tmp_path) == "universal" and manifest_source(crossdock, native, tmp_path) == "zero"
    assert "expected a universal checkpoint" in refusal(crossdock, native, "--from", "universal")
    assert "found no optimizer states" in refusal(crossdock, universal, "--from", "zero")


def manifest_source(crossdock, folder, tmp_path, reader="auto"):
    crossdock("inspect", folder, "--from", reader, "--manifest", tmp_path / "m.json")
    return json.loads((tmp_path / "m.json").read_text())["source"]["format"]


def test_another_folder_of_it(crossdock, copy):
    folder, files = copy(2, "s2")
    for near in files / "zero", folder.parent:
        error = refusal(crossdock, near) if near != folder.parent else crossdock("inspect", near, code=1).stderr
        assert "a DeepSpeed Universal checkpoint further below or around it: name the folder that holds its file `latest_universal`" in error
    error = refusal(crossdock, files / "mp_rank_00_model_states.pt", "--from", "universal")
    assert "expected the folder of a universal checkpoint, found the file \"mp_rank_00_model_states.pt\"" in error


@pytest.mark.parametrize("name", ["s2", "s3"])
def test_missing_files(crossdock, copy, name):
    folder, files = copy(2, name)
    for file, said in (("zero/gain/fp32.pt", "expected global_step3/zero/gain/fp32.pt, the values of \"gain\", found none"),
                       ("zero/gain/exp_avg.pt", "since \"embed.weight\" has its exp_avg, found none"), ("zero/optimizer_state.pt", "zero/optimizer_state.pt")):
        (files / file).rename(folder / "kept")
        assert said in refusal(crossdock, folder)
        (folder / "kept").rename(files / file)
    shutil.move(files / "zero/gain", folder / "kept")
    assert "the values of \"gain\", found none: copy the whole folder" in refusal(crossdock, folder)
    shutil.move(folder / "kept", files / "zero/gain")
    if name == "s3":
        (files / "zero_pp_rank_1_mp_rank_00_model_states.pt").unlink()
        assert "expected the model states of 2 ranks (dp_world_size)" in refusal(crossdock, folder)
        (files / "zero_pp_rank_0_mp_rank_00_model_states.pt").unlink()
    else:
        (files / "mp_rank_00_model_states.pt").unlink()
    assert "which has the parameters' order, found none" in refusal(crossdock, folder)


@pytest.mark.parametrize("name", ["s2", "s3"])
def test_truncated_files(crossdock, copy, name):
    folder, files = copy(2, name)
    models = list(files.glob("*_model_states.pt"))
    for file in [*models, *(files / "zero").glob("*.pt"), *(files / "zero/gain").iterdir()]:
        whole = file.read_bytes()
        for n in (0, 100, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:n])
            assert f"global_step3/{file.relative_to(files)}: expected" in refusal(crossdock, folder), (file, n)
        file.write_bytes(whole)
    inspected(crossdock, folder)


class Foreign:
    def __reduce__(self):
        return print, ("run",)


def test_files_that_do_not_belong(crossdock, copy):
    folder, files = copy(2, "s2")

    def damaged(file, value, *flags):
        path = files / file
        whole = path.read_bytes() if path.exists() else None
        torch.save(value, path)
        error = refusal(crossdock, folder, *flags)
        path.write_bytes(whole) if whole else path.unlink()
        return error

    assert "gain/exp_avg.pt: expected 1 elements as the param_shapes" in damaged("zero/gain/exp_avg.pt", {"param": torch.zeros(2)})
    assert "gain/fp32.pt: expected 1 elements as the param_shapes" in damaged("zero/gain/fp32.pt", torch.zeros(2))
    assert "print there: the file is none of" in damaged("zero/gain/fp32.pt", {"param": Foreign()})
    assert "print: the file is none of" in damaged("zero/gain/fp32.pt", Foreign())
    assert "gain/stray.pt: expected a tensor, or a dict with one under \"param\", found a string: the file is none" in damaged("zero/gain/stray.pt", "x")
    assert "zero/stray.pt\": take the file away" in damaged("zero/stray.pt", torch.zeros(1))
    said = damaged("zero/gain/step.pt", torch.tensor(4.))
    assert "expected step" in said and "the files are of different checkpoints" in said
    assert "found I64" in damaged("zero/gain/fp32.pt", torch.zeros(1, dtype=torch.int64))
    model = torch.load(files / "mp_rank_00_model_states.pt", weights_only=False)
    twice = {**model, "param_shapes": [*model["param_shapes"], {"gain": torch.Size([1])}]}
    assert "expected each name once, found \"gain\" twice" in damaged("mp_rank_00_model_states.pt", twice)
    inspected(crossdock, folder)
