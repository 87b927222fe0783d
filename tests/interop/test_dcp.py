# SPDX-License-Identifier: Apache-2.0
"""torch's distributed checkpoints: ours loaded by torch and accelerate, and theirs read by us."""
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
import transformers as t
from accelerate.utils import merge_fsdp_weights
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save, torch_save_to_dcp

from recipes import PLAIN, Source, read_folder, write_model
from test_bin import NAMES, bits, every_dtype
from test_inspect import inspected, sha256
from test_safetensors_writer import digests

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
JOB = Path(__file__).parent / "dcp_job.py"
TIED = Source(tied=True, sharded=False, dtype="bf16")
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture
def convert(crossdock):
    """convert(source, target, *flags) runs the command to the writer under test."""
    return lambda *args, **kwargs: crossdock("convert", *args, "--to", "dcp", "--no-sync", **kwargs)


@pytest.fixture
def back(crossdock):
    """back(source, target, *flags) runs the command to a Hugging Face folder."""
    return lambda *args, **kwargs: crossdock("convert", *args, "--to", "safetensors", "--no-sync", **kwargs)


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and got[name].shape == tensor.shape, name
        assert torch.equal(*(x.contiguous().reshape(-1).view(torch.uint8) for x in (got[name], tensor))), name


def loaded(folder, like):
    """What dcp.load puts into tensors like these, which hold something else before."""
    state = {name: torch.empty_like(tensor).view(torch.uint8).fill_(170).view(tensor.dtype) if tensor.dim() else
             torch.empty_like(tensor) for name, tensor in like.items()}
    dcp.load(state, checkpoint_id=folder)
    return state


def whole(folder, path):
    """What torch makes of a folder without knowing what is in it."""
    dcp_to_torch_save(folder, path)
    return torch.load(path)


def both_names(tensors):
    """As a tied model's state dict has them."""
    return {**tensors, HEAD: tensors[EMBEDDING]}


def shards(folder):
    return sorted(path.name for path in Path(folder).glob("*.distcp"))


def described(folder):
    return dcp.FileSystemReader(folder).read_metadata()


# ---- what we write

@pytest.mark.parametrize("n", [1, 3, 64])
def test_torch_loads_any_number_of_shards(convert, source, tmp_path, n):
    """Hardly any size of this model divides by 3, and none reaches 64 rows in the smallest tensors."""
    convert(source(PLAIN), tmp_path / "out", "--dcp-shards", n)
    want = read_folder(source(PLAIN))
    assert_same(loaded(tmp_path / "out", want), want)
    assert_same(whole(tmp_path / "out", tmp_path / "whole.pt"), want)


def test_rows_are_those_of_torch_chunk(convert, source, tmp_path):
    convert(source(PLAIN), tmp_path / "out", "--dcp-shards", 4)
    assert shards(tmp_path / "out") == [f"__{i}_0.distcp" for i in range(4)]
    metadata = described(tmp_path / "out")
    for name, tensor in read_folder(source(PLAIN)).items():
        rows = [len(part) for part in tensor.chunk(4)]
        chunks = metadata.state_dict_metadata[name].chunks
        assert [chunk.sizes[0] for chunk in chunks] == rows, name
        assert [chunk.offsets[0] for chunk in chunks] == [sum(rows[:i]) for i in range(len(rows))]
        places = {index.index: info for index, info in metadata.storage_data.items() if index.fqn == name}
        assert [places[i].relative_path for i in range(len(rows))] == [f"__{i}_0.distcp" for i in range(len(rows))]


@pytest.mark.parametrize("recipe", [PLAIN, TIED], ids=str)
def test_fsdp2_loads_on_two_ranks(convert, source, tmp_path, torchrun, recipe):
    """A job that shards its model into two, from one, two and three shards, under the names that its state dict has."""
    folders = {"": 1, "app.model": 2, "model": 3}
    for prefix, n in folders.items():
        convert(source(recipe), tmp_path / f"out{n}", "--dcp-shards", n, "--dcp-prefix", prefix)
    torchrun(2, JOB, "load", source(recipe), tmp_path / "result.json", *[f"{p}={tmp_path}/out{n}" for p, n in folders.items()])
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["names"]) == 42 and HEAD in result["names"]
    assert result["differing"] == {f"{tmp_path}/out{n}": [] for n in folders.values()}


def test_a_folder_without_a_tied_name_would_be_refused(convert, source, tmp_path):
    """Which is why ours has both, of one copy of the values."""
    convert(source(TIED), tmp_path / "out")
    tensors = read_folder(source(TIED))
    assert HEAD not in tensors
    want = both_names(tensors)
    assert_same(loaded(tmp_path / "out", want), want)
    assert_same(whole(tmp_path / "out", tmp_path / "whole.pt"), want)
    places = {index.fqn: info for index, info in described(tmp_path / "out").storage_data.items()}
    assert places[HEAD] == places[EMBEDDING]
    dcp.save(tensors, checkpoint_id=tmp_path / "one")
    with pytest.raises(CheckpointException, match="Missing key in checkpoint state_dict: lm_head.weight"):
        loaded(tmp_path / "one", want)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("recipe", [PLAIN, TIED], ids=str)
def test_accelerate_merges(convert, source, tmp_path, recipe, n):
    convert(source(recipe), tmp_path / "out", "--dcp-profile", "accelerate", "--dcp-shards", n)
    assert sorted(x.name for x in (tmp_path / "out").iterdir()) == [
        "config.json", "crossdock.json", "generation_config.json", "pytorch_model_fsdp_0"]
    merge_fsdp_weights(str(tmp_path / "out/pytorch_model_fsdp_0"), str(tmp_path / "merged"))
    merged = load_file(tmp_path / "merged/model.safetensors")
    want = read_folder(source(recipe))
    assert_same(merged, both_names(want) if recipe.tied else want)


def titan_name(name):
    """By the tables of torchtitan's state_dict_adapter.py at commit b5bcd76c."""
    for ours, theirs in (("model.embed_tokens", "tok_embeddings"), ("self_attn.o_proj", "attention.wo"), ("self_attn.", "attention."),
                         ("attention.q_proj", "attention.qkv_linear.wq"), ("attention.k_proj", "attention.qkv_linear.wk"),
                         ("attention.v_proj", "attention.qkv_linear.wv"), ("mlp.gate_proj", "feed_forward.w1"),
                         ("mlp.up_proj", "feed_forward.w3"), ("mlp.down_proj", "feed_forward.w2"), ("model.", ""),
                         ("input_layernorm", "attention_norm"), ("post_attention_layernorm", "ffn_norm")):
        name = name.replace(ours, theirs)
    return name


def small(cls, config, folder, **kwargs):
    torch.manual_seed(1)
    model = cls(config(vocab_size=259, hidden_size=36, intermediate_size=101, num_hidden_layers=2, num_attention_heads=6,
                       num_key_value_heads=2, head_dim=10, **kwargs))
    model.save_pretrained(folder)
    return model


def test_torchtitan_s_qwen3(convert, tmp_path):
    model = small(t.Qwen3ForCausalLM, t.Qwen3Config, tmp_path / "in", tie_word_embeddings=True)
    convert(tmp_path / "in", tmp_path / "out", "--dcp-profile", "torchtitan", "--dcp-shards", 4)
    assert_same(whole(tmp_path / "out", tmp_path / "x.pt"), {titan_name(n): x for n, x in model.state_dict().items()})


@pytest.mark.parametrize("n", [1, 4])
def test_torchtitan_s_llama3(convert, tmp_path, n):
    """Its RoPE turns rows 2i and 2i + 1 of a head, as complex numbers: the scores are those of transformers' two halves."""
    model = small(t.LlamaForCausalLM, t.LlamaConfig, tmp_path / "in", tie_word_embeddings=False)
    convert(tmp_path / "in", tmp_path / "out", "--dcp-profile", "torchtitan", "--dcp-shards", n)
    got, want = whole(tmp_path / "out", tmp_path / "x.pt"), {titan_name(n): x for n, x in model.state_dict().items()}
    turned = {name: got[name] for name in got if "wq" in name or "wk" in name}
    assert len(turned) == 4
    assert_same({**got, **{name: want[name] for name in turned}}, want)

    x, position = torch.randn(7, 36, dtype=torch.double), torch.arange(7)
    turns = model.model.rotary_emb.inv_freq.double()[None] * position[:, None]
    cos, sin = (torch.cat([f(turns)] * 2, -1)[None] for f in (torch.cos, torch.sin))
    for layer in range(2):
        name = f"layers.{layer}.attention.qkv_linear"
        theirs = [(x @ w[f"{name}.{part}.weight"].double().T).view(7, -1, 10).transpose(0, 1) for w in (want, got) for part in ("wq", "wk")]
        q, k = t.models.llama.modeling_llama.apply_rotary_pos_emb(theirs[0][None], theirs[1][None], cos, sin)
        complex_q, complex_k = (torch.view_as_real(torch.view_as_complex(z.reshape(*z.shape[:-1], 5, 2).contiguous())
                                                   * torch.polar(torch.ones_like(turns), turns)).flatten(2) for z in theirs[2:])
        scores = q[0] @ k[0].repeat_interleave(3, 0).transpose(1, 2)
        assert torch.allclose(scores, complex_q @ complex_k.repeat_interleave(3, 0).transpose(1, 2), rtol=0, atol=1e-12)
        assert not torch.equal(got[f"{name}.wq.weight"], want[f"{name}.wq.weight"])


@pytest.mark.parametrize("cls, config", [(t.LlamaForCausalLM, t.LlamaConfig), (t.Qwen3ForCausalLM, t.Qwen3Config)])
@pytest.mark.parametrize("tied", [False, True])
def test_from_torchtitan_and_back(crossdock, convert, back, tmp_path, cls, config, tied):
    """What was written so that torchtitan's scores are those of transformers comes back as it was."""
    small(cls, config, tmp_path / "in", tie_word_embeddings=tied)
    convert(tmp_path / "in", tmp_path / "titan", "--dcp-profile", "torchtitan", "--dcp-shards", 3)
    assert not any(n.startswith("model.") for n in described(tmp_path / "titan").state_dict_metadata)
    back(tmp_path / "titan", tmp_path / "back")
    assert digests(crossdock, tmp_path / "back") == digests(crossdock, tmp_path / "in")


def test_torchtitan_s_optimizer_stays(crossdock, convert, back, tmp_path):
    """Its moments would have to be turned as the weights are: left out, with a line."""
    small(t.LlamaForCausalLM, t.LlamaConfig, tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "titan", "--dcp-profile", "torchtitan")
    weights = whole(tmp_path / "titan", tmp_path / "x.pt")
    state = {f"optimizer.state.{n}.{kind}": x for n, x in weights.items() for kind in ("exp_avg", "exp_avg_sq")}
    dcp.save({**weights, **state}, checkpoint_id=tmp_path / "saved")
    shutil.copy(tmp_path / "in/config.json", tmp_path / "saved")
    done = back(tmp_path / "saved", tmp_path / "back")
    assert digests(crossdock, tmp_path / "back") == digests(crossdock, tmp_path / "in")
    assert "optimizer's state is left out" in done.stdout


def test_the_names_of_torchtitan_s_older_releases(crossdock, convert, back, tmp_path):
    small(t.LlamaForCausalLM, t.LlamaConfig, tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "titan", "--dcp-profile", "torchtitan")
    weights = whole(tmp_path / "titan", tmp_path / "x.pt")
    dcp.save({n.replace("qkv_linear.", "").replace("lm_head", "output"): x for n, x in weights.items()}, checkpoint_id=tmp_path / "old")
    shutil.copy(tmp_path / "in/config.json", tmp_path / "old")
    back(tmp_path / "old", tmp_path / "back")
    assert digests(crossdock, tmp_path / "back") == digests(crossdock, tmp_path / "in")


def test_what_torchtitan_has_not(convert, source, tmp_path):
    error = convert(source(PLAIN), tmp_path / "out", "--dcp-profile", "torchtitan", code=1).stderr
    assert "expected a parameter that torchtitan's llama3 has, found another" in error  # biases of projections


def test_every_dtype(convert, tmp_path):
    tensors = {name: x for name, x in every_dtype().items() if "float8" not in name}  # which the host refuses, as codes
    tensors |= {"scalar.weight": torch.tensor(2.5), "none_ids": torch.empty(0, 7).long(), "none.rows_ids": torch.empty(3, 0).long()}
    (tmp_path / "in").mkdir()
    torch.save(tensors, tmp_path / "in/pytorch_model.bin")
    for n in (1, 2):
        convert(tmp_path / "in", tmp_path / f"out{n}", "--dcp-shards", n)
        assert_same(loaded(tmp_path / f"out{n}", tensors), tensors)
        assert_same(whole(tmp_path / f"out{n}", tmp_path / "whole.pt"), tensors)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_casts(convert, source, tmp_path, dtype):
    want = {"fp32": torch.float32, "fp16": torch.float16}[dtype]
    convert(source(PLAIN), tmp_path / "out", "--dtype", dtype, "--dcp-shards", 2)
    assert_same(whole(tmp_path / "out", tmp_path / "whole.pt"), {n: x.to(want) for n, x in read_folder(source(PLAIN)).items()})
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == f"float{dtype[2:]}"


def test_a_tensor_of_several_items(convert, tmp_path):
    """Larger than the 256 MiB that one thread writes, so its archive is written by two."""
    write_model(tmp_path / "in", {"a.weight": ("F32", [70 << 10, 1 << 10]), "b.weight": ("F32", [3])}, {"model_type": "x"})
    convert(tmp_path / "in", tmp_path / "out")
    want = load_file(tmp_path / "in/model.safetensors")
    assert_same(loaded(tmp_path / "out", want), want)
    shutil.rmtree(tmp_path / "out")


# ---- what we read

def test_what_torch_saves(crossdock, tmp_path):
    """Every type, odd sizes, strides, and what is no tensor."""
    tensors = {**every_dtype(), "scalar": torch.tensor(3.5), "empty": torch.empty(3, 0, 2), "t": torch.arange(6.0).view(2, 3).t(),
               "view": torch.arange(60.0).view(6, 10)[2:4, 3:9:2], "last": bits((2, 3, 4, 5), torch.int16).to(memory_format=torch.channels_last)}
    dcp.save({"model": tensors, "step": 7, "lr": [0.1]}, checkpoint_id=tmp_path / "in")
    want = {name: (NAMES[str(x.dtype)[6:]], list(x.shape), sha256(x)) for name, x in tensors.items()}
    assert inspected(crossdock, tmp_path / "in") == want
    told = crossdock("inspect", tmp_path / "in").stderr
    assert "2 Python objects are left out, for nothing that is pickled is run: step, lr" in told


def test_what_torch_converts(crossdock, tmp_path):
    torch.save({"a.weight": torch.randn(5, 3), "b": torch.ones(2)}, tmp_path / "x.pt")
    torch_save_to_dcp(tmp_path / "x.pt", tmp_path / "in")
    assert inspected(crossdock, tmp_path / "in") == inspected(crossdock, tmp_path / "x.pt")


def test_two_dimensions_of_ranks(crossdock, torchrun, tmp_path):
    """Chunks are boxes, cut in several dimensions at sizes that do not divide."""
    torchrun(4, JOB, "mesh", tmp_path / "in")
    tensors = torch.load(tmp_path / "in/whole.pt")
    assert len(shards(tmp_path / "in")) == 4
    want = {name: ("F32", list(x.shape), sha256(x)) for name, x in tensors.items()}
    assert inspected(crossdock, tmp_path / "in") == want
    assert len(list((tmp_path / "in/hf").glob("shard-*-model-*-of-00002.safetensors"))) == 8
    assert inspected(crossdock, tmp_path / "in/hf") == want
    (tmp_path / "in/hf/shard-00002-model-00001-of-00002.safetensors").unlink()
    assert "the checkpoint lacks some" in crossdock("inspect", tmp_path / "in/hf", code=1).stderr


def test_torch_s_safetensors_of_one_rank(crossdock, tmp_path):
    """Which say that they were cut, and are whole."""
    tensors = {"a.weight": torch.randn(5, 3), "b": torch.ones(2)}
    writer = dcp.HuggingFaceStorageWriter(str(tmp_path / "in"), {"a.weight": 1, "b": 2})
    dcp.save(tensors, storage_writer=writer)
    assert "DCP_SHARDING_INFO" in safe_open(tmp_path / "in/model-00001-of-00002.safetensors", "pt").metadata()
    assert inspected(crossdock, tmp_path / "in") == {n: ("F32", list(x.shape), sha256(x)) for n, x in tensors.items()}


@pytest.mark.parametrize("recipe", [PLAIN, TIED], ids=str)
def test_model_and_optimizer_of_fsdp2(crossdock, back, source, torchrun, tmp_path, recipe):
    torchrun(2, JOB, "save", source(recipe), tmp_path / "in")
    model, optimizer = torch.load(tmp_path / "in/whole.pt")
    moments = {f"{kind}/{name}": x[kind] for name, x in optimizer["state"].items() for kind in ("exp_avg", "exp_avg_sq")}
    assert len(moments) == 2 * (41 if recipe.tied else 42)
    assert inspected(crossdock, tmp_path / "in") == {n: ("F32", list(x.shape), sha256(x)) for n, x in (model | moments).items()}

    crossdock("inspect", tmp_path / "in", "--manifest", tmp_path / "m.json")
    manifest = json.loads((tmp_path / "m.json").read_text())
    names, training = [x["name"] for x in manifest["tensors"]], manifest["training"]
    assert int(training["step"]) == 2 and training["optimizer"] == "torch.optim.AdamW"
    assert {(names[int(x["parameter"]) if "parameter" in x else 0], x["kind"]) for x in training["moments"]} == {
        tuple(name.split("/")[::-1]) for name in moments}
    for group, want in zip(training["groups"], optimizer["param_groups"]):
        assert [names[int(i)] for i in group["tensors"]] == want["params"]
        settings = {x["key"]: x["value"] for x in group["hyper_parameters"]}
        for key in ("lr", "eps", "weight_decay"):
            assert settings[key]["double_value"] == want[key], key
        assert [x["double_value"] for x in settings["betas"]["list_value"]["values"]] == list(want["betas"]) == [0.875, 0.95]

    shutil.copy(source(recipe) / "config.json", tmp_path / "in")
    back(tmp_path / "in", tmp_path / "out")
    assert_same(read_folder(tmp_path / "out"), {n: x for n, x in model.items() if n != HEAD or not recipe.tied})


def test_accelerate_s_load_and_save(crossdock, convert, back, source, torchrun, tmp_path):
    """accelerate's functions load ours; what they save, in two folders, we read."""
    convert(source(TIED), tmp_path / "in", "--dcp-profile", "accelerate", "--dcp-shards", 2)
    torchrun(2, JOB, "accelerate", source(TIED), tmp_path / "in", tmp_path / "saved")
    loaded, model, optimizer = torch.load(tmp_path / "saved/whole.pt")
    assert_same(loaded, {n: x.float() for n, x in both_names(read_folder(source(TIED))).items()})
    moments = {f"{kind}/{name}": x[kind] for name, x in optimizer["state"].items() for kind in ("exp_avg", "exp_avg_sq")}
    want = {n: ("F32", list(x.shape), sha256(x)) for n, x in (model | moments).items()}
    assert inspected(crossdock, tmp_path / "saved") == want
    shutil.copy(source(TIED) / "config.json", tmp_path / "saved")
    back(tmp_path / "saved", tmp_path / "out")
    model.pop(HEAD)
    assert_same(read_folder(tmp_path / "out"), model)


# ---- there and back

@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("recipe", [PLAIN, TIED], ids=str)
def test_there_and_back(convert, back, source, tmp_path, recipe, n):
    for profile in ("plain", "accelerate"):
        convert(source(recipe), tmp_path / profile, "--dcp-shards", n, "--dcp-profile", profile)
        back(tmp_path / profile, tmp_path / f"{profile}-back")
        for file in source(recipe).iterdir():
            assert (tmp_path / f"{profile}-back" / file.name).read_bytes() == file.read_bytes()


def test_experts_have_the_module_s_names(crossdock, convert, back, tmp_path):
    """The file has them one by one, the job's state dict stacked."""
    from test_families import FAMILIES
    cls, config = FAMILIES["qwen3_moe"]
    torch.manual_seed(3)
    model = cls(config())
    model.save_pretrained(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out", "--dcp-shards", 2)
    want = dict(model.state_dict())
    assert set(want) != set(load_file(tmp_path / "in/model.safetensors"))
    assert_same(whole(tmp_path / "out", tmp_path / "whole.pt"), want)
    back(tmp_path / "out", tmp_path / "back")
    assert digests(crossdock, tmp_path / "back") == digests(crossdock, tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "file", "--names", "file")
    assert set(described(tmp_path / "file").state_dict_metadata) == set(load_file(tmp_path / "in/model.safetensors"))


def test_from_and_to_other_formats(crossdock, convert, source, tmp_path):
    """The same universal folder from a DCP as from safetensors."""
    convert(source(PLAIN), tmp_path / "dcp", "--dcp-shards", 3)
    for origin, name in ((source(PLAIN), "a"), (tmp_path / "dcp", "b")):
        crossdock.convert(origin, tmp_path / name)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.pt")]
    assert len(files) > 100
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


# ---- what is refused

def test_what_lacks_is_named(crossdock, tmp_path):
    dcp.save({"model": {"a.weight": torch.ones(4, 4)}}, checkpoint_id=tmp_path / "in")
    (tmp_path / "in/.metadata").rename(tmp_path / "kept")
    error = crossdock("inspect", tmp_path / "in", code=1).stderr
    assert "expected .metadata, which torch writes last, beside *.distcp, found none: the save did not end" in error
    (tmp_path / "kept").rename(tmp_path / "in/.metadata")
    shard = tmp_path / "in/__0_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-1])
    error = crossdock("inspect", tmp_path / "in", code=1).stderr
    assert "found the end of __0_0.distcp at" in error
    shard.rename(tmp_path / "in/__1_0.distcp")
    error = crossdock("inspect", tmp_path / "in", code=1).stderr
    assert "expected the shard __0_0.distcp, which .metadata names, found none: copy the whole folder" in error
    error = crossdock("inspect", tmp_path / "in/__1_0.distcp", code=1).stderr
    assert "which is one shard of it: name the folder that it lies in" in error


def test_no_code_of_a_metadata_file_runs(crossdock, tmp_path):
    import pickle

    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    dcp.save({"a": torch.ones(2)}, checkpoint_id=tmp_path / "in")
    metadata = described(tmp_path / "in")
    metadata.storage_meta = None
    metadata.state_dict_metadata["b"] = Attack()
    (tmp_path / "in/.metadata").write_bytes(pickle.dumps(metadata))
    error = crossdock("inspect", tmp_path / "in", code=1).stderr
    assert "expected torch's TensorStorageMetadata, found an object of the class" in error and "nothing was run" in error
    assert not (tmp_path / "ran").exists()
