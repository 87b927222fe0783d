# SPDX-License-Identifier: Apache-2.0
"""GGUF files that are incomplete or no models, and what inspect shows of any: nothing but a whole model is converted."""
import json
import struct

import gguf
import numpy as np
import pytest
import torch
import transformers as t
from gguf import GGMLQuantizationType as Type

import gguf_files
from recipes import read_folder

INCOMPLETE = ": the file is incomplete, download or convert it again"
RECIPES = [*gguf_files.MODELS,
           gguf_files.Model("falcon", t.FalconForCausalLM, t.FalconConfig,
                            dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=96, new_decoder_architecture=True, num_kv_heads=2)),
           gguf_files.Model("stablelm", t.StableLmForCausalLM, t.StableLmConfig, gguf_files.SMALL_KV | dict(qk_layernorm=True), extra={"rope.dimension_count": 4}),
           gguf_files.Model("nemotron", t.NemotronForCausalLM, t.NemotronConfig, gguf_files.SMALL_KV | dict(head_dim=16, attention_bias=True, mlp_bias=True),
                            extra={"rope.dimension_count": 8}),
           gguf_files.Model("lfm2", t.Lfm2ForCausalLM, t.Lfm2Config,
                            gguf_files.SMALL_KV | dict(layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False, conv_bias=True),
                            extra={"shortconv.l_cache": 3, "lfm2.heads_kv": [0, 2]}),
           *gguf_files.EXPERTS]
OLD = "before April 2024"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """made(recipe) -> its file."""
    paths = {}

    def make(recipe, alone=False):
        if (recipe, alone) not in paths:
            folder = tmp_path_factory.mktemp("gguf")
            paths[recipe, alone] = folder / "model.gguf"
            model = recipe.make()
            if recipe in gguf_files.EXPERTS:
                model.save_pretrained(folder / "hf")
                gguf_files.write_experts(read_folder(folder / "hf"), recipe, paths[recipe, alone], alone)
            else:
                gguf_files.write(model, recipe, paths[recipe, alone])
        return paths[recipe, alone]

    return make


@pytest.fixture
def dry_run(crossdock, tmp_path):
    def run(path, *flags, code=0):
        done = crossdock("convert", path, tmp_path / "out", "--to", "universal", "--dry-run", *flags, code=code)
        assert not (tmp_path / "out").exists()
        return done.stdout if code == 0 else done.stderr

    return run


# ---- incomplete
@pytest.mark.parametrize("recipe,alone", [*((r, False) for r in RECIPES), (gguf_files.EXPERTS[-1], True)], ids=lambda x: str(x) if x is not True else OLD)
def test_each_tensor_must_be_there(dry_run, made, tmp_path, recipe, alone):
    """Each in turn is left out. A model without output.weight is a tied one, which no metadata contradicts."""
    path = made(recipe, alone)
    dry_run(path)
    for name in gguf_files.tensor_names(path):
        gguf_files.copy(path, tmp_path / "m.gguf", keep=lambda x: x != name)
        if name == "output.weight":
            dry_run(tmp_path / "m.gguf")
            continue
        error = dry_run(tmp_path / "m.gguf", code=1)
        if name == "blk.0.ffn_gate.0.weight":  # which tells a file of old from one of today
            assert 'expected blk.0.ffn_gate_exps.weight, which such a layer of mixtral has, found none, and no rule for "blk.0.ffn_gate.1.weight"' in error
        else:
            assert f"expected {name}, which " in error and INCOMPLETE in error, (name, error)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_each_layer_must_be_there(dry_run, made, tmp_path, recipe):
    path, arch = made(recipe), recipe.arch
    n = 2
    for prefix in ("enc.blk.", "dec.blk.") if arch == "t5" else ("blk.",):
        gguf_files.copy(path, tmp_path / "m.gguf", keep=lambda x: not x.startswith(f"{prefix}1."))
        assert f"expected 2 layers {prefix}#., which is what the metadata says" in (error := dry_run(tmp_path / "m.gguf", code=1))
        assert "found the tensors of 1" in error and INCOMPLETE in error
        gguf_files.copy(path, tmp_path / "m.gguf", keep=lambda x: not x.startswith(f"{prefix}0."))
        assert "the file is incomplete" in dry_run(tmp_path / "m.gguf", code=1)
    for count, found in ((1, "the tensors are not this metadata's"), (3, "the file is incomplete")):
        gguf_files.copy(path, tmp_path / "m.gguf", values={f"{arch}.block_count": count})
        error = dry_run(tmp_path / "m.gguf", code=1)
        assert f"expected {count} layers" in error and f"found the tensors of {n}: {found}" in error
    gguf_files.copy(path, tmp_path / "m.gguf", without=[f"{arch}.block_count"])
    assert f"expected the metadata {arch}." in dry_run(tmp_path / "m.gguf", code=1)


def test_what_an_incomplete_file_is_told(crossdock, dry_run, made, tmp_path):
    path = made(gguf_files.MODELS[0])

    def without(*names):
        gguf_files.copy(path, tmp_path / "m.gguf", keep=lambda x: x not in names)
        error = dry_run(tmp_path / "m.gguf", code=1)
        assert len(error.splitlines()) == 1
        return error

    assert f"expected blk.1.ffn_down.weight, which every layer of llama has, found none{INCOMPLETE}" in without("blk.1.ffn_down.weight")
    assert f"expected token_embd.weight, which every model of llama has, found none{INCOMPLETE}" in without("token_embd.weight")
    assert "the file is incomplete" in dry_run(tmp_path / "m.gguf", "--keep-unmatched", code=1)
    # Under another name, so the rules may be what does not fit.
    reader = gguf.GGUFReader(path)
    g = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    for field in reader.fields.values():
        if field.name.startswith("llama."):
            g.add_key_value(field.name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        g.add_tensor(tensor.name.replace("ffn_up", "ffn_new"), np.array(tensor.data))
    gguf_files.finish(g)
    error = dry_run(tmp_path / "m.gguf", code=1)
    assert 'expected blk.0.ffn_up.weight, which every layer of llama has, found none, and no rule for "blk.0.ffn_new.weight"' in error
    done = crossdock("inspect", tmp_path / "m.gguf", "--tensors")
    assert "blk.0.ffn_new.weight  F32" in done.stdout and "note: rule llama: expected blk.0.ffn_up.weight" in done.stderr


def test_biases_come_together(dry_run, made, tmp_path):
    """Llama's class has all four of a layer's attention or none, in every layer."""
    path = made(gguf_files.MODELS[1])
    names = [x for x in gguf_files.tensor_names(path) if ".attn_" in x and x.endswith(".bias")]
    assert len(names) == 8
    gguf_files.copy(path, tmp_path / "m.gguf", keep=lambda x: x not in names)
    dry_run(tmp_path / "m.gguf")
    for gone in ([x for x in names if "attn_q" in x], [x for x in names if "attn_output" in x], names[:4], names[4:]):
        gguf_files.copy(path, tmp_path / "m.gguf", keep=lambda x: x not in gone)
        error = dry_run(tmp_path / "m.gguf", code=1)
        assert f"expected {gone[0]}, which comes with " in error and INCOMPLETE in error


# ---- a number for each layer
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_lists_of_one_value(crossdock, made, tmp_path, recipe):
    """A file that says the same for each layer is the file that says it once, to the config.json."""
    path, arch = made(recipe), recipe.arch
    fields = gguf.GGUFReader(path).fields
    lists = {}
    for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
        field = fields.get(f"{arch}.{key}")
        if field and field.types[0] != gguf.GGUFValueType.ARRAY:
            lists[field.name] = [int(field.contents())] * 2
    if not lists:
        assert arch == "mamba"
        lists = {"mamba.feed_forward_length": [128, 128]}
    gguf_files.copy(path, tmp_path / "m.gguf", values=lists)
    for name, source in (("once", path), ("lists", tmp_path / "m.gguf")):
        crossdock.convert(source, tmp_path / name)
    assert (tmp_path / "once/config.json").read_bytes() == (tmp_path / "lists/config.json").read_bytes()
    masters = [sorted((p.parent.name, p.read_bytes()) for p in (tmp_path / name).glob("global_step0/zero/*/fp32.pt")) for name in ("once", "lists")]
    assert masters[0] == masters[1] and masters[0]


@pytest.mark.parametrize("index,key", [(0, "attention.head_count_kv"), (0, "attention.head_count"), (0, "feed_forward_length"),
                                       (5, "attention.head_count_kv"), (5, "feed_forward_length"), (8, "attention.head_count_kv")])
def test_lists_of_several_values(crossdock, dry_run, made, tmp_path, index, key):
    path, arch = made(RECIPES[index]), RECIPES[index].arch
    gguf_files.copy(path, tmp_path / "m.gguf", values={f"{arch}.{key}": [2, 1]})
    error = dry_run(tmp_path / "m.gguf", code=1)
    assert f"{arch}.{key}" in error and "to be the same for all layers" in error and "layer 1 to differ from that of layer 0" in error
    crossdock("inspect", tmp_path / "m.gguf")


# ---- no models
def write(path, arch, values, tensors):
    g = gguf.GGUFWriter(path, arch or "x")
    if arch is None:
        g.kv_data[0].clear()
    for key, value in values.items():
        {int: g.add_uint32, float: g.add_float32, str: g.add_string, bool: g.add_bool, list: g.add_array}[type(value)](key, value)
    for name, shape in tensors.items():
        g.add_tensor(name, np.ones(shape, np.float32))
    gguf_files.finish(g)
    return path


LORA = {"blk.0.attn_q.weight.lora_a": (4, 16), "blk.0.attn_q.weight.lora_b": (16, 4)}
OTHERS = {
    "LoRA": ("llama", {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 16.0}, LORA, "found an adapter (LoRA)"),
    "LoRA without general.type": ("qwen2", {"adapter.type": "lora"}, LORA, "found an adapter (LoRA)"),
    "adapter of an unknown architecture": ("brandnew", {"general.type": "adapter"}, LORA, "found an adapter (LoRA)"),
    "LoRA with a model's metadata": ("llama", {"general.type": "adapter", "llama.block_count": 1, "llama.attention.head_count": 4}, LORA, "found an adapter (LoRA)"),
    "imatrix": (None, {"general.type": "imatrix", "imatrix.chunk_count": 3}, {"blk.0.attn_q.weight.in_sum2": (1, 16), "blk.0.attn_q.weight.counts": (1, 1)}, "found an importance matrix"),
    "imatrix without general.type": (None, {"imatrix.chunk_count": 3, "imatrix.chunk_size": 512}, {"x.in_sum2": (1, 16)}, "found an importance matrix"),
    "mmproj": ("clip", {"general.type": "mmproj"}, {"mm.0.weight": (4, 4)}, "found a projector (mmproj)"),
    "projector of old": ("clip", {"clip.has_vision_encoder": True}, {"v.patch_embd.weight": (4, 4)}, "found a projector (mmproj)"),
    "control vector": ("controlvector", {"controlvector.model_hint": "llama"}, {"direction.1": (16,)}, "found a control vector"),
    "vocabulary": ("llama", {"llama.block_count": 1, "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a", "b"]}, {}, "found no tensors, only metadata such as a vocabulary"),
    "header": ("llama", {}, {}, "found no tensors"),
}


@pytest.mark.parametrize("arch,values,tensors,message", OTHERS.values(), ids=OTHERS)
def test_what_is_no_model(crossdock, dry_run, tmp_path, arch, values, tensors, message):
    path = write(tmp_path / "m.gguf", arch, values, tensors)
    for flags in ((), ("--keep-unmatched",)):
        error = dry_run(path, *flags, code=1)
        assert message in error and len(error.splitlines()) == 1
    done = crossdock("inspect", path, "--tensors")
    assert message in done.stderr and done.stderr.startswith("note: ")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(tensors)


@pytest.mark.parametrize("kind,message", [
    (b"lmgg" + bytes(4000), "found a ggml file of the time before GGUF"), (b"tjgg\3\0\0\0" + bytes(4000), "found a ggml file of the time before GGUF"),
    (b"fmgg\1\0\0\0" + bytes(4000), "found a ggml file of the time before GGUF"), (b"algg\1\0\0\0" + bytes(4000), "of the time before GGUF"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n", "Git LFS pointer"),
], ids=["ggml", "ggjt", "ggmf", "ggla", "LFS pointer"])
@pytest.mark.parametrize("name", ["m.gguf", "m.bin"])
def test_what_is_no_gguf(crossdock, dry_run, tmp_path, name, kind, message):
    (tmp_path / name).write_bytes(kind)
    assert message in dry_run(tmp_path / name, code=1)
    assert message in crossdock("inspect", tmp_path / name, code=1).stderr


# ---- inspect reads what the container holds
MINIMAL = {
    "nothing": (None, {}, {}, "no general.architecture"),
    "a tensor without metadata": (None, {}, {"w": (2, 3)}, "no general.architecture"),
    "an architecture alone": ("llama", {}, {"w": (2, 3)}, "expected the metadata llama."),
    "an unknown architecture": ("brandnew", {}, {"w": (2, 3)}, "found brandnew"),
    "an architecture that is a number": (None, {"general.architecture": 7}, {"w": (2, 3)}, "no general.architecture"),
    "metadata of other types": ("llama", {"llama.attention.head_count": "four", "llama.block_count": -1.0}, {"token_embd.weight": (2, 3)}, "rule llama"),
}


@pytest.mark.parametrize("arch,values,tensors,note", MINIMAL.values(), ids=MINIMAL)
def test_inspect_reads_any(crossdock, tmp_path, arch, values, tensors, note):
    path = write(tmp_path / "m.gguf", arch, values, tensors)
    done = crossdock("inspect", path, "--json")
    assert [x["name"] for x in json.loads(done.stdout)["tensors"]] == list(tensors)
    assert all(len(x["digest"]) == 71 for x in json.loads(done.stdout)["tensors"])
    assert note in done.stderr and len(done.stderr.splitlines()) == 1
    crossdock("inspect", path)
    crossdock("inspect", path, "--manifest", tmp_path / "m.json")
    crossdock("convert", path, tmp_path / "out", "--to", "universal", code=1)


def test_inspect_of_a_bare_header(crossdock, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    assert "tensors     0" in crossdock("inspect", tmp_path / "m.gguf").stdout


def test_inspect_with_rules_that_are_wrong(crossdock, made, tmp_path):
    (tmp_path / "wrong.textproto").write_text("layout { format: 5 }")
    done = crossdock("inspect", made(gguf_files.MODELS[0]), "--tensors", "--rules", tmp_path / "wrong.textproto")
    assert "blk.0.attn_q.weight  F32" in done.stdout and "wrong.textproto" in done.stderr


# ---- halves
def test_every_half_to_16_bits(crossdock, tmp_path):
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(16, 4096)
    g = gguf.GGUFWriter(tmp_path / "m.gguf", "none")
    g.add_tensor("w", halves)
    gguf_files.finish(g)
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        crossdock.convert(tmp_path / "m.gguf", tmp_path / name, "--keep-unmatched", "--dequant-dtype", name, "--precision", "source")
        ours = torch.load(tmp_path / name / "global_step0/zero/w/fp32.pt", weights_only=True)["param"]
        want = torch.from_numpy(halves).to(dtype)
        assert ours.dtype == dtype and torch.equal(ours.isnan(), want.isnan())
        assert torch.equal(ours[~want.isnan()].view(torch.int16), want[~want.isnan()].view(torch.int16))
        if dtype is torch.float16:
            assert torch.equal(ours.view(torch.int16), want.view(torch.int16))
