# SPDX-License-Identifier: Apache-2.0
"""DeepSpeed's own checkpoints of ranks that share a model: AutoTP's shares, pipeline stages, both. Judges: DeepSpeed's
ds_to_universal, the model as it was before it was shared out, and what each rank of the job had."""
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from test_reader_zero import inspected, manifest_of, plain, refusal, same_bits, sha256

HERE = Path(__file__).parent
BF16_OPTIMIZER = {"data_types": {"grad_accum_dtype": "fp32"}}
UNEVEN = {"num_key_value_heads": 3, "vocab_size": 31, "intermediate_size": 23}
NEOX = {"model_type": "gpt_neox", "vocab_size": 30, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
        "max_position_embeddings": 32}
FUSED = {"partition_config": {"layer_specs": [
    {"patterns": [".*query_key_value.weight$"], "partition_type": "column", "shape": [3, -1], "partition_dim": 0},
    {"patterns": [".*attention.dense.weight$", ".*dense_4h_to_h.weight$"], "partition_type": "row"},
    {"patterns": [".*dense_h_to_4h.weight$"], "partition_type": "column"}]}}
FROZEN = ["layers.0"]
MOMENTS = ("exp_avg", "exp_avg_sq")


def tensor(name, stage, ranks=2, **more):
    return {"name": name, "stage": stage, "tensor": ranks, **more}


def pipe(name, **more):
    return {"name": name, "stage": 1, "stages": 2, **more}


AT_WORLD = {
    2: [tensor("tp-s1", 1, groups=2), tensor("tp-s2-tied", 2, model={"tie_word_embeddings": True, **UNEVEN}), tensor("tp-s3", 3, groups=2),
        tensor("tp-fp32", 1, dtype="fp32"), tensor("tp-bf16", 1, config=BF16_OPTIMIZER), tensor("tp-neox", 1, model=NEOX),
        tensor("tp-fused", 2, model=NEOX, tensor_config=FUSED), tensor("tp-s1-frozen", 1, frozen=FROZEN), tensor("tp-s2-frozen", 2, frozen=FROZEN),
        tensor("tp-s3-frozen", 3, frozen=FROZEN), tensor("tp-none", 2, steps=0, dtype="fp32", model=UNEVEN), tensor("tp-s3-none", 3, steps=0, dtype="fp32"),
        pipe("pipe", groups=2, client={"epoch": 3}), pipe("pipe-tied", tied=True, dtype="fp32"), pipe("pipe-frozen", frozen=["3."], dtype="fp32")],
    4: [tensor("tp-s1", 1, groups=2), tensor("tp-s2", 2, groups=2, model=UNEVEN), tensor("tp-s3", 3, groups=2, model=UNEVEN),
        tensor("tp-4", 2, ranks=4, model=UNEVEN), tensor("tp-4-none", 1, ranks=4, model=UNEVEN, steps=0, dtype="fp32"),  # a rank has no attention
        pipe("pipe-tied", tied=True, config=BF16_OPTIMIZER), pipe("pipe-shares", shares=2, dtype="fp32")],
}
EVERY = [pytest.param(world, c, id=f"world{world}-{c['name']}") for world, cases in AT_WORLD.items() for c in cases]
TENSOR = [p for p in EVERY if "tensor" in p.values[1]]
PIPES = [p for p in EVERY if "stages" in p.values[1]]
TRAINED = [p for p in EVERY if p.values[1].get("steps", 2) and p.values[1]["name"] != "tp-4"]  # ds_to_universal ends with a TypeError there


@pytest.fixture(scope="module")
def saved(torchrun, tmp_path_factory):
    """saved(world, name) -> the checkpoint, and what the job had. All cases of a world size are made in one job."""
    root, made = tmp_path_factory.mktemp("shared"), set()

    def make(world, name):
        out = root / str(world)
        if world not in made:
            out.mkdir()
            (out / "cases.json").write_text(json.dumps(AT_WORLD[world]))
            torchrun(world, HERE / "parallel_job.py", out / "cases.json", out, timeout=1200)
            made.add(world)
        return out / name, torch.load(out / f"{name}.truth.pt", weights_only=False)

    return make


@pytest.fixture
def copy(saved, tmp_path):
    def make(world, name):
        folder = shutil.copytree(saved(world, name)[0], tmp_path / f"{name}-{world}")
        return folder, folder / "global_step2"

    return make


def is_frozen(case, name):
    return any(part in name for part in case.get("frozen", []))


def info_of(folder):
    [first, *_] = sorted(folder.glob("global_step*/*mp_rank_00_model_states.pt"))
    return torch.load(first, weights_only=False)["universal_checkpoint_info"]


# ---- values

@pytest.mark.parametrize("world, case", TRAINED)
def test_as_ds_to_universal_merges(crossdock, saved, python_job, tmp_path, world, case):
    """Weights and moments of every parameter that trains, bit for bit."""
    folder, _ = saved(world, case["name"])
    strict = ["--no_strict"] if case.get("frozen") else []  # it refuses AutoTP's patterns of parameters that do not train
    python_job(sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", folder / "global_step2", "--output_folder",
               tmp_path / "universal", "--num_extract_workers", 1, "--num_merge_workers", 1, "--inject_missing_state", *strict)
    tensors, compared = inspected(crossdock, folder), set()
    tied = case.get("model", {}).get("tie_word_embeddings")
    for parameter in sorted(path.name for path in (tmp_path / "universal/zero").iterdir() if path.is_dir()):
        # Of what does not train, and of the other name of a weight, it has the first rank's share alone.
        if is_frozen(case, parameter) or tied and parameter == "lm_head.weight":
            continue
        for key, stored in ("fp32", parameter), ("exp_avg", f"exp_avg/{parameter}"), ("exp_avg_sq", f"exp_avg_sq/{parameter}"):
            state = torch.load(tmp_path / "universal/zero" / parameter / f"{key}.pt", weights_only=False)
            value = state["param"] if isinstance(state, dict) else state
            assert tensors[stored]["digest"] == sha256(value) and list(tensors[stored]["shape"]) == list(value.shape), stored
            compared.add(stored)
    left = {name for name in tensors if name not in compared and not name.endswith(".scale") and not is_frozen(case, name)}
    assert left == ({"lm_head.weight"} if tied else set()) and len(compared) >= 45
    if tied:
        assert tensors["lm_head.weight"]["digest"] == tensors["model.embed_tokens.weight"]["digest"]


def test_a_rank_without_any_attention(crossdock, saved):
    """What DeepSpeed's affine maps make of the ranks' rows, cut by its own slice mappings."""
    from deepspeed.checkpoint.affine import ParamAffineMap
    folder, _ = saved(4, "tp-4")
    shares = {}
    for rank in range(4):
        states = torch.load(folder / f"global_step2/bf16_zero_pp_rank_0_mp_rank_{rank:02}_optim_states.pt", weights_only=False)["optimizer_state_dict"]
        rows = {"": states["single_partition_of_fp32_groups"][0], **{f"{key}/": states["base_optimizer_state"]["state"][0][key] for key in MOMENTS}}
        for name, where in states["param_slice_mappings"][0].items():
            for kind, row in rows.items():
                shares.setdefault((kind, name), {})[rank] = row.detach()[where.start:where.start + where.numel]
    maps = {pattern[1:-1].replace("\\.", "."): ParamAffineMap.from_dict(m) for pattern, m in info_of(folder)["affine_map"]["params"].items()}
    tensors = inspected(crossdock, folder)
    assert len(shares) == len(tensors) == 87 and any(len(ranks) == 3 for ranks in shares.values())
    for (kind, name), of_rank in shares.items():
        every = {rank: of_rank.get(rank, torch.empty(0)) for rank in range(4)}
        assert tensors[kind + name]["digest"] == sha256(maps[name].rebuild(every)), kind + name


@pytest.mark.parametrize("world, case", TENSOR)
def test_shapes_and_the_model_as_it_began(crossdock, saved, tmp_path, world, case):
    """Every parameter has the shape that it had before it was shared out; those that did not train have their values."""
    folder, truth = saved(world, case["name"])
    crossdock("convert", folder, tmp_path / "out", "--to", "safetensors", "--no-sync")
    weights = load_file(tmp_path / "out/model.safetensors")
    assert set(weights) == set(truth["before"])
    trained = 0
    for name, before in truth["before"].items():
        assert weights[name].shape == before.shape, name
        if not case.get("steps", 2) or is_frozen(case, name):
            assert same_bits(weights[name], before), name
        else:
            trained += not torch.equal(weights[name].to(before.dtype), before)
    assert trained > (10 if case.get("steps", 2) else -1)


@pytest.mark.parametrize("world, case", [p for p in TENSOR if p.values[1]["stage"] < 3])
def test_the_jobs_own_copy(crossdock, saved, world, case):
    """A master is what it was rounded from."""
    folder, truth = saved(world, case["name"])
    master, own = inspected(crossdock, folder), inspected(crossdock, folder, "--weights", "model")
    dtype = {"bf16": "BF16", "fp32": "F32"}[case.get("dtype", "bf16")]
    assert all(own[name]["dtype"] == dtype and own[name]["shape"] == master[name]["shape"] for name in truth["before"])
    if dtype == "F32":
        assert all(own[name]["digest"] == master[name]["digest"] for name in truth["before"])


@pytest.mark.parametrize("world, case", [p for p in TENSOR if p.values[1]["stage"] < 3 and p.values[1].get("dtype") != "fp32"])
def test_values_of_the_jobs_own_copy(crossdock, saved, tmp_path, world, case):
    folder, truth = saved(world, case["name"])
    for weights in "master", "model":
        crossdock("convert", folder, tmp_path / weights, "--to", "safetensors", "--no-sync", "--weights", weights)
    master, own = (load_file(tmp_path / weights / "model.safetensors") for weights in ("master", "model"))
    assert set(own) == set(truth["before"])
    for name, value in own.items():
        assert same_bits(value, master[name].bfloat16()), name


@pytest.mark.parametrize("world, case", PIPES)
def test_what_each_stage_had(crossdock, saved, tmp_path, world, case):
    """Under the names of PipelineModule; buffers and frozen layers too."""
    folder, truth = saved(world, case["name"])
    for weights in "master", "model":
        crossdock("convert", folder, tmp_path / weights, "--to", "safetensors", "--no-sync", "--weights", weights)
    master = load_file(tmp_path / "master/model.safetensors")
    names = {name for rank in truth["ranks"] for name in rank["model"]}
    assert set(master) == names and ("tied_modules.embed.words.weight" in names) == bool(case.get("tied"))
    if case.get("shares"):
        return  # whose weights no rank has whole
    own = load_file(tmp_path / "model/model.safetensors")
    for rank in truth["ranks"]:
        for name, value in rank["model"].items():
            assert same_bits(own[name], value), name
        for name, value in rank["master"].items():
            assert torch.equal(master[name], value), name
        for name in set(rank["model"]) - set(rank["master"]):
            assert same_bits(master[name], rank["model"][name]), name


def test_a_mean_of_the_jobs_own_copies_is_refused_unless_fp32(crossdock, copy):
    """Which is what ds_to_universal takes means of."""
    folder, files = copy(4, "pipe-shares")
    crossdock("inspect", folder, "--weights", "model", "--digest", "sha256")
    for file in files.glob("layer_*"):
        torch.save({name: value.bfloat16() for name, value in torch.load(file).items()}, file)
    assert "expected F32 in \"1.mean\", the mean of what tensor-parallel ranks have, found BF16" in refusal(crossdock, folder, "--weights", "model")


def test_pieces_of_every_size(crossdock, saved, tmp_path):
    for world, name in (4, "tp-s2"), (4, "pipe-shares"), (4, "tp-s3"):
        folder, _ = saved(world, name)
        whole = inspected(crossdock, folder)
        crossdock("convert", folder, tmp_path / name, "--to", "safetensors", "--memory", "64MiB", "--threads", 4, "--no-sync")
        assert all(whole[n]["digest"] == sha256(t) for n, t in load_file(tmp_path / name / "model.safetensors").items())


# ---- names and the state of the training

@pytest.mark.parametrize("world, case", TENSOR)
def test_names_and_training_of_shares(crossdock, saved, tmp_path, world, case):
    folder, truth = saved(world, case["name"])
    m = manifest_of(crossdock, folder, tmp_path)
    names = [t["name"] for t in m["tensors"]]
    kept = {"lm_head.weight": "model.embed_tokens.weight"} if "tied" in case["name"] else {}
    assert [(e["name"], names[int(e.get("tensor", 0))]) for e in m["module"]] == [(n, kept.get(n, n)) for n in truth["all"]]
    groups = [[names[int(i)] for i in g["tensors"]] for g in m["training"]["groups"]]
    trained = [n for n in truth["order"] if not is_frozen(case, n)]
    special = [n for n in trained if n.endswith("bias") or "norm" in n]
    wanted = [[n for n in trained if n not in special], special] if case.get("groups") == 2 else [trained]
    assert [sorted(g) for g in groups] == [sorted(g) for g in wanted]
    metadata = {entry["key"]: plain(entry["value"]) for entry in m["source"]["metadata"]}
    assert metadata["dp_world_size"] == world // case["tensor"] and metadata["mp_world_size"] == case["tensor"]
    assert int(m["training"].get("step", 0)) == case.get("steps", 2)
    moments = m["training"].get("moments", [])
    assert len(moments) == (2 * len(trained) if case.get("steps", 2) else 0)
    assert all(names[int(e["state"])] == f"{e['kind']}/{names[int(e.get('parameter', 0))]}" for e in moments)


def test_names_and_training_of_stages(crossdock, saved, tmp_path):
    m = manifest_of(crossdock, saved(2, "pipe-tied")[0], tmp_path)
    names = [t["name"] for t in m["tensors"]]
    block = ["up.weight", "up.bias", "down.weight", "down.bias", "norm.weight", "norm.bias"]
    order = ["tied_modules.embed.words.weight", *(f"{i}.{n}" for i in (1, 3, 4) for n in block), "5.weight", "5.bias"]
    assert [e["name"] for e in m["module"]] == [*order, "1.scale", "3.scale", "4.scale"]
    assert [[names[int(i)] for i in g["tensors"]] for g in m["training"]["groups"]] == [order]
    m = manifest_of(crossdock, saved(2, "pipe")[0], tmp_path)
    metadata = {entry["key"]: plain(entry["value"]) for entry in m["source"]["metadata"]}
    assert metadata["client_state"] == {"epoch": 3} and len(m["training"]["groups"]) == 2
    m = manifest_of(crossdock, saved(2, "pipe-frozen")[0], tmp_path)
    assert {t["name"] for t in m["tensors"] if t.get("train") == "FROZEN"} == {f"3.{n}" for n in block}


@pytest.mark.parametrize("name", ["tp-s2", "tp-s3", "tp-4"])
def test_transformers_loads_what_comes_out(crossdock, saved, tmp_path, name):
    """With the config.json that lies in the folder, by which names and shapes are compared."""
    from transformers import AutoModelForCausalLM
    folder, truth = saved(4, name)
    done = crossdock("convert", folder, tmp_path / "out", "--to", "safetensors", "--no-sync")
    assert "not compared" not in done.stdout, done.stdout
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True, dtype=torch.float32)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    weights = load_file(tmp_path / "out/model.safetensors")
    assert all(same_bits(value.detach(), weights[n]) for n, value in model.named_parameters())


@pytest.mark.parametrize("to", [("universal",), ("zero3", "--world-size", 3)])
def test_the_job_goes_on_in_another_layout(crossdock, saved, tmp_path, to):
    """Weights, moments and step of the merged model are what is written."""
    folder, truth = saved(4, "tp-s1")
    crossdock("convert", folder, tmp_path / "out", "--no-sync", "--to", *to)
    if to[0] == "zero3":
        again = inspected(crossdock, tmp_path / "out")
        assert all(again[n]["digest"] == t["digest"] for n, t in inspected(crossdock, folder).items()) and len(again) >= 87
        return
    [zero] = (tmp_path / "out").glob("*/zero")
    tensors = inspected(crossdock, folder)
    for name in truth["before"]:
        for key, stored in ("fp32", name), ("exp_avg", f"exp_avg/{name}"):
            assert sha256(torch.load(zero / name / f"{key}.pt", weights_only=False)["param"]) == tensors[stored]["digest"], stored


# ---- what says how ranks share

def test_each_rule_is_used(saved):
    """The cases above are worth something: affine maps, and every kind of pattern."""
    info = info_of(saved(2, "tp-fused")[0])
    assert info["sub_param_shard_widths"] and info["affine_map"]["params"]
    assert all(info_of(saved(4, "pipe-shares")[0]).get(key) for key in (
        "tp_replicated_parameter_patterns", "parameter_to_average_patterns", "parameter_with_row_parallelism_patterns", "vocabulary_parameter_patterns",
        "parameter_with_2_sub_params_cat_dim_0", "parameter_with_sub_params"))


def change_info(files, change):
    for file in files.glob("*_model_states.pt"):
        state = torch.load(file, weights_only=False)
        if "universal_checkpoint_info" in state:
            change(state)
            torch.save(state, file)


@pytest.mark.parametrize("world, name", [(2, "tp-s1"), (2, "tp-fused"), (4, "tp-s2"), (4, "tp-4"), (4, "tp-s3")])
def test_patterns_alone_say_the_same(crossdock, copy, world, name):
    """As DeepSpeed before 0.19.8 saved it, without affine maps."""
    folder, files = copy(world, name)
    before = {n: (t["shape"], t["digest"]) for n, t in inspected(crossdock, folder).items()}
    change_info(files, lambda state: state["universal_checkpoint_info"].pop("affine_map"))
    assert {n: (t["shape"], t["digest"]) for n, t in inspected(crossdock, folder).items()} == before


def test_without_the_degrees(crossdock, copy):
    """As DeepSpeed before 0.19.8 saved it, without checkpoint_parallel_dimensions: the files' names tell."""
    for world, name in (4, "tp-s2"), (4, "pipe-shares"):
        folder, files = copy(world, name)
        before = {n: t["digest"] for n, t in inspected(crossdock, folder).items()}
        for file in files.glob("mp_rank_*"):
            state = torch.load(file, weights_only=False)
            del state["checkpoint_parallel_dimensions"]
            torch.save(state, file)
        assert {n: t["digest"] for n, t in inspected(crossdock, folder).items()} == before


# ---- faults

def test_missing_and_foreign_ranks(crossdock, copy):
    folder, files = copy(4, "pipe-shares")
    shutil.copytree(folder, folder.parent / "kept")
    for file in files.glob("*mp_rank_02*"):
        file.unlink()
    assert "expected the files of 4 model-parallel ranks, found none of mp_rank_02: copy the files of all ranks" in refusal(crossdock, folder)
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "kept", folder)
    (files / "zero_pp_rank_0_mp_rank_03_optim_states.pt").unlink()
    assert "expected the optimizer states of mp_rank_03, found none" in refusal(crossdock, folder)
    shutil.copy(folder.parent / "kept/global_step2/zero_pp_rank_0_mp_rank_02_optim_states.pt", files / "zero_pp_rank_0_mp_rank_04_optim_states.pt")
    assert "found some of mp_rank_04: the folder holds a save of another number of ranks too" in refusal(crossdock, folder)


def test_missing_layers(crossdock, copy):
    folder, files = copy(2, "pipe")
    for file in files.glob("layer_*"):
        file.unlink()
    assert "expected the module's state in the model states, or of a pipeline in files layer_00-model_states.pt" in refusal(crossdock, folder)


def test_ranks_of_different_saves(crossdock, copy, saved):
    folder, files = copy(2, "tp-s1")
    for name, said in ("tp-s2-tied", "zero_stage 1 as mp_rank_00 has, found 2"), ("tp-fp32", "a number of parameter groups of 2 as mp_rank_00 has, found 1"):
        for file in files.glob("*mp_rank_01*"):
            file.unlink()
        for file in (saved(2, name)[0] / "global_step2").glob("*mp_rank_01*"):
            shutil.copy(file, files)
        assert said in refusal(crossdock, folder)


def test_copies_that_have_drifted_apart(crossdock, copy):
    """ds_to_universal refuses them too."""
    folder, files = copy(2, "tp-fp32")
    file = files / "zero_pp_rank_0_mp_rank_01_optim_states.pt"
    state = torch.load(file, weights_only=False)
    with torch.no_grad():
        state["optimizer_state_dict"]["single_partition_of_fp32_groups"][0][5] += 1  # of the embedding, which every rank has
    torch.save(state, file)
    assert re.search(r'tensor "model.embed_tokens.weight": expected the same values on all ranks that hold it, found others on mp_rank_01, '
                     r"first at element 5", refusal(crossdock, folder))


def test_infos_that_do_not_fit(crossdock, copy):
    folder, files = copy(2, "tp-s1")
    shutil.copytree(files, folder.parent / "kept")
    name = "^model\\.layers\\.0\\.self_attn\\.q_proj\\.weight$"

    def map_of(state):
        return state["universal_checkpoint_info"]["affine_map"]["params"][name]

    def piece(state):
        return map_of(state)["ranks"][1]["pieces"][0]

    for change, said in (
            (lambda s: s.pop("universal_checkpoint_info"), "expected universal_checkpoint_info in mp_rank_00's model states, which tells how 2 tensor-parallel"),
            (lambda s: s["universal_checkpoint_info"]["affine_map"].update(version=2), "expected version 1, found 2: a newer DeepSpeed wrote it"),
            (lambda s: s["universal_checkpoint_info"].update(autotp_unsupported_parameter_patterns={"^x$": "its layout is odd"}),
             'found "^x$", of which DeepSpeed says that they cannot: "its layout is odd"'),
            (lambda s: piece(s).update(scale=0.5), "found scaled ones in its affine map"),
            (lambda s: piece(s).update(source=[0, [24, 1]]), "expected chunks that hold all 576 elements, found 288"),
            (lambda s: piece(s).update(source=[288, [1, 24]]), "expected pieces that are boxes of [24, 24]"),
            (lambda s: map_of(s)["ranks"][1].update(shard_shape=[11, 24]), "expected a share of [11, 24] on rank 1"),
            (lambda s: map_of(s)["ranks"].update({2: map_of(s)["ranks"][1]}), "expected an affine map of 2 ranks, found rank 2"),
            (lambda s: s["universal_checkpoint_info"]["affine_map"]["params"].update({"(?=x)": map_of(s)}), "found a group with '(?'"),
            (lambda s: s["universal_checkpoint_info"]["affine_map"]["params"].update({"model": map_of(s)}), "expected one pattern of its kind for")):
        change_info(files, change)
        error = refusal(crossdock, folder)
        assert said in error, error
        shutil.rmtree(files)
        shutil.copytree(folder.parent / "kept", files)
