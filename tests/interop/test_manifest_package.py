# SPDX-License-Identifier: Apache-2.0
"""The package crossdock_manifest: what it reads against protoc, torch and numpy, what it plans against DeepSpeed's own estimators.

What it does with broken input is in test_manifest_hostile.py.
"""
import json
import math
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file

from gguf_files import Model as Gguf
from gguf_files import write as write_gguf
from quantised import CASES
from recipes import PLAIN, SOURCES, Source, read_folder
from test_inspect import one_of_each_dtype
from test_quantised import write as write_quantised

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))
import crossdock_manifest as cm  # noqa: E402
from crossdock_manifest import plan  # noqa: E402
from crossdock_manifest.schema import proto_text  # noqa: E402

TIED = Source(tied=True, sharded=False, dtype="bf16")
INTEGERS = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}


@pytest.fixture(scope="session")
def load(crossdock):
    """load(SRC, *options) as a user's script, with the command under test."""
    return lambda source, *options, **kwargs: cm.load(source, crossdock=crossdock.path, options=options, **kwargs)


def run(*args, code=0, env=()):
    """The command line, with nothing but the standard library (-S leaves site-packages out)."""
    done = subprocess.run([sys.executable, "-S", "-m", "crossdock_manifest", *map(str, args)], text=True, capture_output=True, check=False,
                          env={"PYTHONPATH": str(ROOT / "python"), "PATH": "", **dict(env)})
    assert done.returncode == code, done.stdout + done.stderr
    return done


def bits(tensor):
    """The integers of the same bits."""
    flat = tensor.contiguous()
    return (flat if flat.dtype in INTEGERS.values() else flat.view(INTEGERS[flat.element_size()])).numpy()


# ---- the schema, judged by protoc

def described(folder, text):
    (folder / "crossdock").mkdir(parents=True)
    (folder / "crossdock/manifest.proto").write_text(text)
    subprocess.run(["protoc", "-I.", "--descriptor_set_out=out", "crossdock/manifest.proto"], cwd=folder, check=True)
    return (folder / "out").read_bytes()


def test_classes_are_those_of_manifest_proto(tmp_path):
    """Every message, field, number, type and enum, as protoc compiles both texts."""
    proto = (ROOT / "sdk/proto/crossdock/manifest.proto").read_text()
    assert described(tmp_path / "ours", proto_text()) == described(tmp_path / "theirs", proto)
    assert run("schema").stdout == proto_text()


EVERY_KIND = r"""
schema_version: 1
source {
  format: "x/1"
  files { name: "a/b.bin" size: 18446744073709551615 path: "/nowhere/a/b.bin" }
  metadata { key: "null" value { null_value: true } }
  metadata { key: "k" value { bool_value: false } }
  metadata { key: "k" value { int_value: -9223372036854775808 } }
  metadata { key: "uint" value { uint_value: 18446744073709551615 } }
  metadata { key: "double" value { double_value: -1.5e-300 } }
  metadata { key: "inf" value { double_value: inf } }
  metadata { key: "text" value { string_value: "h\303\251\n" } }
  metadata { key: "bytes" value { bytes_value: "\377\000" } }
  metadata { key: "list" value { list_value { values { int_value: 1 } values { list_value { } } values { } } } }
  metadata { key: "map" value { map_value { entries { key: "b" value { string_value: "" } } entries { key: "a" } } } }
  metadata { key: "nothing" }
}
tensors { name: "w" dtype: BF16 shape: 2 shape: 0 shape: 300 role: OPTIMIZER_STATE train: FROZEN strides: 5 strides: 0 strides: 1
          storage_offset: 3 storage_elements: 9 extents { offset: 4 length: 18 } parallel { pattern: EXPERT dim: 1 sub_sizes: [1, 2] experts: 8 } }
tensors { name: "v" dtype: F32 expression: "concat(0, w)" excluded: "why" target_name: "u" encoding: "ggml/Q4_K" }
alias_groups { tensors: [1, 0] }
training { step: 7 optimizer: "o" groups { tensors: 1 hyper_parameters { key: "lr" value { double_value: 0.001 } } } moments { kind: "exp_avg" state: 1 } }
aux_files { kind: CONFIG name: "config.json" bytes: "{}" }
aux_files { kind: TOKENIZER name: "t" source: "s" }
provenance { tool: "a" plugin: "b" input: "c" }
module { name: "w" tensor: 1 }
"""


def encoded(text):
    """Protobuf's own bytes of a manifest in its text form."""
    return subprocess.run(["protoc", f"-I{ROOT}/sdk/proto", "--encode=crossdock.manifest.v1.Manifest", "crossdock/manifest.proto"],
                          input=text.encode(), capture_output=True, check=True).stdout


def test_every_kind_of_field(tmp_path):
    (tmp_path / "m.pb").write_bytes(encoded(EVERY_KIND) + b"\xfa\x06\x03new")  # and field 111, of a later schema
    m = cm.load(tmp_path / "m.pb")
    assert [(e.key, e.value) for e in m.source.metadata] == [
        ("null", None), ("k", False), ("k", -2**63), ("uint", 2**64 - 1), ("double", -1.5e-300), ("inf", math.inf), ("text", "hé\n"),
        ("bytes", b"\xff\0"), ("list", [1, [], None]), ("map", {"b": "", "a": None}), ("nothing", None)]
    assert list(m.source.metadata[9].value) == ["b", "a"], "the source's own order"
    w, v = m.tensors
    assert (w.dtype.name, w.shape, w.strides, w.storage_offset, w.role.name, w.train.name) == ("BF16", [2, 0, 300], [5, 0, 1], 3, "OPTIMIZER_STATE", "FROZEN")
    assert (w.parallel.pattern.name, w.parallel.sub_sizes, w.parallel.experts, w.extents[0].offset) == ("EXPERT", [1, 2], 8, 4)
    assert (v.expression, v.excluded, v.target_name, v.encoding) == ("concat(0, w)", "why", "u", "ggml/Q4_K")
    assert (m.alias_groups[0].tensors, m.training.step, m.training.groups[0].hyper_parameters[0].value, m.training.moments[0].state) == ([1, 0], 7, 0.001, 1)
    assert (m.aux_files[0].content, m.aux_files[0].source, m.aux_files[1].source, m.module[0].tensor) == (b"{}", None, "s", 1)


# ---- loading

@pytest.mark.parametrize("recipe", SOURCES, ids=str)
def test_both_forms_and_the_source_are_one_manifest(crossdock, load, source, tmp_path, recipe):
    """The JSON is libprotobuf's."""
    for name in ("m.pb", "m.json"):
        crossdock("inspect", source(recipe), "--manifest", tmp_path / name)
    m = load(source(recipe))
    assert m == cm.load(tmp_path / "m.pb") == cm.load(tmp_path / "m.json")
    assert m.config == json.loads((source(recipe) / "config.json").read_text())
    want = read_folder(source(recipe))
    assert {x.name: x.shape for x in m.tensors} == {name: list(x.shape) for name, x in want.items()}
    assert {f.name: f.path for f in m.source.files} == {f.name: str(f) for f in source(recipe).resolve().glob("*.safetensors")} or all(
        Path(f.path) == source(recipe).resolve() / f.name for f in m.source.files)
    for name, tensor in want.items():
        assert np.array_equal(m.numpy(name, raw=True), bits(tensor))


def test_where_files_lie(crossdock, load, source, tmp_path):
    """Of a link, of a Hub's cache, and of a source that moved; only inspect tells it."""
    folder = tmp_path / "hub/models--org--tiny"
    snapshot = folder / "snapshots" / ("0" * 40)
    for made in (folder / "blobs", folder / "refs", snapshot):
        made.mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    for i, file in enumerate(source(PLAIN).iterdir()):
        shutil.copy(file, folder / "blobs" / f"{i:040}")
        (snapshot / file.name).symlink_to(f"../../blobs/{i:040}")
    want = read_folder(source(PLAIN))
    name = next(iter(want))
    blob = (snapshot / "model.safetensors").resolve()
    for given in (folder, snapshot, snapshot / "model.safetensors", blob):
        m = load(given)
        assert Path(m.source.files[0].path) == blob and m.source.files[0].name == "model.safetensors"
        assert np.array_equal(m.numpy(name, raw=True), bits(want[name]))
    crossdock("inspect", snapshot, "--manifest", tmp_path / "m.pb")
    shutil.rmtree(folder)
    with pytest.raises(cm.ManifestError, match="name the folder where it lies now with root"):
        cm.load(tmp_path / "m.pb").numpy(name)
    assert np.array_equal(cm.load(tmp_path / "m.pb", root=source(PLAIN)).numpy(name, raw=True), bits(want[name]))


def test_what_a_conversion_makes_does_not_tell_the_place(crossdock, source, tmp_path):
    made = []
    for place in ("a", "b/c"):
        shutil.copytree(source(PLAIN), tmp_path / place / "in")
        crossdock.convert("in", "out", cwd=tmp_path / place)
        report = json.loads((tmp_path / place / "out/crossdock.json").read_text())
        assert report["source"].pop("path") == str(tmp_path / place / "in"), "for people"
        made.append({k: v for k, v in report.items() if k not in ("timings", "plan")})  # the plan's id has the source's times
        assert str(tmp_path) not in json.dumps(made[-1])
    assert made[0] == made[1]


def test_the_command_is_found_or_missed(source, crossdock, tmp_path):
    package = tmp_path / "python/crossdock_manifest"
    shutil.copytree(ROOT / "python/crossdock_manifest", package)
    alone = {"PYTHONPATH": str(tmp_path / "python")}
    assert "expected the crossdock command beside this package or on PATH" in run("show", source(PLAIN), code=1, env=alone).stderr
    on_path = {**alone, "PATH": str(Path(crossdock.path).parent)}
    assert "LlamaForCausalLM" in run("show", source(PLAIN), env=on_path).stdout
    assert "expected to run /nowhere" in run("show", source(PLAIN), "--crossdock", "/nowhere", code=1).stderr
    assert "expected a file or folder" in run("show", tmp_path / "none", "--crossdock", crossdock.path, code=1).stderr


# ---- values

def test_every_type(load, tmp_path):
    tensors = dict(one_of_each_dtype()) | {"scalar": torch.tensor(3.5), "empty": torch.empty(0, 7)}
    save_file(tensors, tmp_path / "model.safetensors")
    m = load(tmp_path)
    for name, want in load_file(tmp_path / "model.safetensors").items():
        if m[name].dtype.bits % 8:
            with pytest.raises(cm.ManifestError, match="elements of whole bytes"):
                m.numpy(name)
            continue
        got = m.numpy(name)
        try:
            assert got.dtype == want.numpy().dtype
        except TypeError:  # numpy has none of this type
            assert got.dtype.itemsize == want.element_size()
        assert got.shape == tuple(want.shape) and got.tobytes() == want.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert not got.flags.writeable and (got.size == 0 or isinstance(got, np.memmap))


def test_bf16_with_and_without_ml_dtypes(load, source, monkeypatch):
    name, want = next((name, x) for name, x in read_folder(source(PLAIN)).items() if x.dim() == 2)
    m = load(source(PLAIN))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # as if it were not installed
    assert torch.equal(torch.from_numpy(m.numpy(name).copy()).view(torch.bfloat16), want), "as the documentation says"
    monkeypatch.setitem(sys.modules, "ml_dtypes", type("ml_dtypes", (), {"bfloat16": np.dtype("<i2")}))
    assert m.numpy(name).dtype == np.dtype("<i2") and m.numpy(name, raw=True).dtype == np.dtype("<u2")


def test_views_of_torch_files(load, tmp_path):
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    tensors = {"dense": base, "scalar": base[1, 2, 3], "empty": base[:, :0].mT, "turned": base.permute(2, 0, 1), "cut": base[1:, 1:3, ::2], "spread": torch.tensor([7.0]).expand(4, 3), "bf16": base[0].to(torch.bfloat16).t()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    m = load(tmp_path)
    for name, want in tensors.items():
        assert np.array_equal(m.numpy(name, raw=True), bits(want)), name
    assert m.numpy("cut").strides == tuple(4 * s for s in base[1:, 1:3, ::2].stride())


def test_checkpoints_of_training(load, crossdock, source, converted):
    m = load(converted(PLAIN))
    for name, want in read_folder(source(PLAIN)).items():
        assert np.array_equal(m.numpy(name), want.float().numpy())
    rounded = load(converted(PLAIN, "--compact"), "--weights", "model")
    assert all(x.dtype.name == "BF16" for x in rounded.tensors if x.is_parameter)


def test_pieces_and_codes_are_refused(load, crossdock, source, tmp_path):
    """Only their reader knows how to put them together."""
    crossdock("convert", source(PLAIN), tmp_path / "dcp", "--to", "dcp", "--dcp-shards", 4)
    m = load(tmp_path / "dcp")
    pieces = next(x for x in m.tensors if len(x.extents) > 1)
    with pytest.raises(cm.ManifestError, match=f"in one piece, found {len(pieces.extents)} pieces in the source's files: `crossdock convert"):
        m.numpy(pieces.name)


@pytest.mark.parametrize("name", ["fp8-128x128", "fp8-experts", "mxfp4-gpt-oss", "ct-int4-group"])
def test_codes_count_as_their_weights(load, tmp_path, name):
    """As the scheme's own library makes them."""
    case = CASES[name]()
    m = load(write_quantised(tmp_path / "in", case))
    want = case.expected(torch.bfloat16)
    assert {x.target: x.shape for x in m.tensors} == {name: list(x.shape) for name, x in want.items()}
    assert cm.parameters(m).total == sum(x.numel() for x in want.values())
    made = next(x for x in m.tensors if x.expression)
    with pytest.raises(cm.ManifestError, match="found them to be made of others, "):
        m.numpy(made.name)


def test_gguf(load, tmp_path):
    from gguf import GGMLQuantizationType, GGUFReader
    recipe = Gguf("llama", t.LlamaForCausalLM, t.LlamaConfig, {"num_hidden_layers": 1, "vocab_size": 96, "hidden_size": 64, "intermediate_size": 256,
                                                              "num_attention_heads": 4, "num_key_value_heads": 4}, quantise=GGMLQuantizationType.Q8_0)
    write_gguf(recipe.make(), recipe, tmp_path / "m.gguf")
    m = load(tmp_path / "m.gguf")
    stored = {x.name: x for x in GGUFReader(tmp_path / "m.gguf").tensors}
    told = {x.name: x for x in m.tensors}
    plain = [x for x in told.values() if not x.encoding and not x.expression]
    coded = [x for x in told.values() if x.encoding and not x.expression]
    assert plain and coded
    files = (tmp_path / "m.gguf").read_bytes()
    for x in plain + coded:
        extent = x.extents[0]
        assert m.numpy(x.name, raw=True).tobytes() == files[extent.offset:extent.offset + extent.length]
    assert {x.data.tobytes() for x in stored.values()} >= {m.numpy(x.name, raw=True).tobytes() for x in plain + coded}
    with pytest.raises(cm.ManifestError, match='found the encoding "ggml/Q8_0"'):
        m.numpy(coded[0].name)


# ---- diff and summary

def test_diff(load, tmp_path):
    config = {"a": 1, "rope": {"theta": 1e4, "type": "x"}, "gone": None, "flag": True}
    one, other = {"w": torch.zeros(2, 3), "v": torch.zeros(4), "old": torch.zeros(1)}, {"w": torch.zeros(3, 2), "v": torch.zeros(4).half(), "new": torch.zeros(1)}
    for name, tensors, change in (("a", one, {}), ("b", other, {"rope": {"theta": 5e5, "type": "x"}, "flag": 1, "more": [1]})):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps({**config, **change}))
    a, b = load(tmp_path / "a"), load(tmp_path / "b")
    found = cm.diff(a, b)
    assert (found.added, found.removed) == (["new"], ["old"])
    assert sorted(found.changed) == [("v", "dtype", "F32", "F16"), ("w", "shape", [2, 3], [3, 2])]
    assert {key: (x, y) for key, x, y in found.config if key != "more"} == {"rope.theta": (1e4, 5e5), "flag": (True, 1)}
    assert found and not cm.diff(a, a) and "~ w: shape [2, 3] -> [3, 2]" in str(found)


def test_command_line(crossdock, source, tmp_path):
    crossdock("inspect", source(PLAIN), "--manifest", tmp_path / "a.pb")
    crossdock("inspect", source(TIED), "--manifest", tmp_path / "b.json")
    shown = run("show", tmp_path / "a.pb", "--tensors").stdout
    assert "60543 (60.5 K)" in shown and all(name in shown for name in read_folder(source(PLAIN)))
    assert run("diff", tmp_path / "a.pb", tmp_path / "a.pb").stdout.startswith("no difference")
    told = json.loads(run("diff", tmp_path / "a.pb", tmp_path / "b.json", "--json", code=1).stdout)
    assert told["removed"] == ["lm_head.weight"] and told["config"] == [{"key": "tie_word_embeddings", "a": False, "b": True}]
    given = run("plan", source(PLAIN), "--crossdock", crossdock.path, "--", "--from", "gguf", code=1).stderr
    assert "gguf" in given.lower() and "Traceback" not in given
    assert "VERB" in run("--help").stdout and "--gpu-memory" in run("plan", "--help").stdout
    run("plan", code=2)


# ---- the plan, judged by DeepSpeed

def mixtral():
    return t.MixtralForCausalLM(t.MixtralConfig(vocab_size=101, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                                num_key_value_heads=2, num_local_experts=6, num_experts_per_tok=2))


def qwen3_moe():
    return t.Qwen3MoeForCausalLM(t.Qwen3MoeConfig(vocab_size=64, hidden_size=24, intermediate_size=40, moe_intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
                                                  num_key_value_heads=2, head_dim=8, num_experts=8, num_experts_per_tok=3, tie_word_embeddings=True))


def gpt2():
    return t.GPT2LMHeadModel(t.GPT2Config(vocab_size=99, n_embd=24, n_layer=2, n_head=2, n_positions=40))


@pytest.fixture(scope="module", params=[mixtral, qwen3_moe, gpt2], ids=lambda f: f.__name__)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    made = request.param()
    made.save_pretrained(folder)
    return made, folder


def test_parameters(load, model):
    """Of files whose experts lie one by one too: the module has them stacked."""
    from deepspeed.runtime.zero.stage3 import model_to_params
    made, folder = model
    p = cm.parameters(load(folder))
    assert (p.total, p.largest) == model_to_params(made)
    assert p.embedding == p.total - made.num_parameters(exclude_embeddings=True)
    experts = sum(x.numel() for name, x in made.named_parameters() if ".experts." in name)
    config = made.config
    of_all, at_once = (config.num_local_experts, config.num_experts_per_tok) if experts else (1, 1)
    assert p.experts == experts and p.active == p.total - experts + experts * at_once // of_all
    assert cm.parameters(load(folder), frozen=".").trainable == 0
    name, head = next(iter(made.named_parameters()))
    assert cm.parameters(load(folder), trainable=f"^{name}$").trainable == head.numel()


def within_rounding(ours, theirs):
    return abs(ours - theirs) <= len(plan.COMPONENTS)  # each part is rounded up to a whole byte


@pytest.mark.parametrize("precision", ["bf16", "bf16-fp32-grads"])
def test_memory_is_deepspeed_s_estimate(load, model, precision):
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs
    p = cm.parameters(load(model[1]))
    for nodes, gpus in [(1, 1), (1, 2), (1, 4), (1, 8), (3, 8), (16, 8)]:
        need = lambda stage, offload: plan.need(p, plan.PRECISIONS[precision], stage, nodes * gpus, offload, gpus)
        _, gpu = estimate_zero2_model_states_mem_needs(p.total, gpus, nodes, cpu_offload=False)
        assert within_rounding(need(2, "none").gpu, gpu)
        cpu, gpu = estimate_zero2_model_states_mem_needs(p.total, gpus, nodes, cpu_offload=True)
        assert within_rounding(need(2, "optimizer").gpu, gpu)
        if nodes * gpus <= 4:  # of more, DeepSpeed counts that every process first loads the whole model in fp32
            assert within_rounding(need(2, "optimizer").host, cpu)
        for offload, flags in {"none": (False, False), "optimizer": (True, False), "all": (True, True)}.items():
            cpu, gpu, _ = estimate_zero3_model_states_mem_needs(p.total, p.largest, gpus, nodes, *flags)
            assert within_rounding(need(3, offload).gpu, gpu), (nodes, gpus, offload)
            if offload != "none":
                assert within_rounding(need(3, offload).host, cpu), (nodes, gpus, offload)


def test_stages_that_deepspeed_does_not_estimate():
    """What ZeRO's stages have in common: on one GPU nothing is shared out, and a higher stage never takes more."""
    p = cm.Parameters(10**9, 10**9, 0, 0, 10**9, 10**6, "m", {}, 0, 0, 1)
    for precision in plan.PRECISIONS.values():
        one = [plan.need(p, precision, stage, 1).gpu for stage in plan.STAGES]
        assert one[0] == one[1] == one[2]
        for n in (2, 8, 64):
            at = [plan.need(p, precision, stage, n).gpu for stage in plan.STAGES]
            assert at[0] == one[0] and at == sorted(at, reverse=True) and len(set(at)) == 4
    frozen = cm.Parameters(10**9, 0, 0, 0, 10**9, 10**6, "m", {}, 0, 0, 1)
    assert plan.need(frozen, plan.PRECISIONS["bf16"], 0, 8).gpu == 2 * 10**9, "its weights alone"


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """Of 3 million parameters, so that headers count for little."""
    folder = tmp_path_factory.mktemp("larger")
    config = t.LlamaConfig(vocab_size=4000, hidden_size=256, intermediate_size=704, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4)
    t.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("row, flags", [
    ("universal (weights and moments in fp32)", "--to universal --moments dense"), ("safetensors or dcp, fp32", "--to safetensors --dtype fp32"),
    ("safetensors or dcp, bf16", "--to dcp --dcp-shards 2"), ("the source's own weights", "--to safetensors"),
    ("zero3", "--to zero3 --world-size 2 --dtype bf16 --lr 1e-3 --weight-decay 0")])
def test_sizes_of_what_crossdock_writes(crossdock, load, larger, tmp_path, row, flags):
    told = dict(plan.checkpoints(cm.parameters(load(larger)), plan.PRECISIONS["bf16"]))[row]
    crossdock("convert", larger, tmp_path / "out", *flags.split(), "--no-sync")
    files = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert told <= files <= 1.02 * told


def test_sizes_of_deepspeed_s_own(load, source, torchrun, tmp_path):
    """After a real step of a job with two ranks: all tensors of its checkpoint, which padding makes a little larger."""
    cases = [{"name": f"s{stage}", "stage": stage, "hf": str(source(PLAIN))} for stage in (1, 2, 3)]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    torchrun(2, Path(__file__).parent / "zero_job.py", tmp_path / "cases.json", tmp_path, timeout=1200)
    p = cm.parameters(load(source(PLAIN)))
    rows = dict(plan.checkpoints(p, plan.PRECISIONS["bf16"]))
    for stage, row in ((1, "stages 1 and 2"), (2, "stages 1 and 2"), (3, "stage 3")):
        storages = {}
        for file in (tmp_path / f"s{stage}").rglob("*.pt"):
            collect(torch.load(file, weights_only=False, map_location="cpu"), storages.setdefault(file, {}))
        total = sum(size for found in storages.values() for size in found.values())
        assert rows[f"DeepSpeed's own, {row}"] <= total <= 1.05 * rows[f"DeepSpeed's own, {row}"], stage


def collect(value, out):
    """{where: bytes} of the storages in what torch.load gave."""
    if isinstance(value, torch.Tensor):
        out[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    elif isinstance(value, dict):
        for inner in value.values():
            collect(inner, out)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            collect(inner, out)


def test_plan_s_page_and_picture(crossdock, source, tmp_path):
    crossdock("inspect", source(PLAIN), "--manifest", tmp_path / "m.pb")
    flags = ["plan", tmp_path / "m.pb", "--precision", "all", "--world-size", "8,1,2", "--gpu-memory", "0.5MiB"]
    page = run(*flags, "--picture", tmp_path / "p.svg").stdout
    told = json.loads(run(*flags, "--json").stdout)
    assert "60,543" in page and "* fits in 512 KiB: ZeRO 1 from 8 GPUs" in page
    memory = [(name, one) for name, of in told["precisions"].items() for one in of["memory"]]
    assert len(memory) == 3 * 3 * 4 and all(one["gpu"] == sum(one["components"].values()) for _, one in memory)
    assert {one["fits"] for _, one in memory} == {True, False} and all(one["fits"] == (one["gpu"] <= 1 << 19) for _, one in memory)
    root = ET.parse(tmp_path / "p.svg").getroot()
    width, height = float(root.get("width")), float(root.get("height"))
    tag = "{http://www.w3.org/2000/svg}"
    for rect in root.iter(f"{tag}rect"):
        x, y, w, h = (float(rect.get(k, 0)) for k in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width and 0 <= y <= y + h <= height
    bars = [rect for rect in root.iter(f"{tag}rect") if rect.get("width") == "34.0"]
    assert len(bars) == sum(1 for _, one in memory for size in one["components"].values() if size)
    texts = [x.text for x in root.iter(f"{tag}text")]
    assert all(f"ZeRO {stage}" in texts for stage in range(4)) and "60.5 K parameters, 60.5 K trained with Adam; activations come on top" in texts
