# SPDX-License-Identifier: Apache-2.0
"""GGUF: every type's values, every architecture's names and shapes, and what DeepSpeed trains on from them."""
import json
import math
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers as t
from gguf import GGMLQuantizationType as Type

import gguf_files
from recipes import read_folder

TYPES = [q for q in Type if q in gguf.quants._type_traits]
# Fields that hold a scale: random bits there would be infinite or not a number now and then.
SCALES = {Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q4_1: [0, 2], Type.Q5_1: [0, 2],
          Type.Q6_K: [208], Type.TQ1_0: [52], Type.TQ2_0: [64], Type.IQ1_M: [], Type.MXFP4: [], Type.NVFP4: [], Type.BF16: []}


def random_blocks(qtype, n, finite):
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    rng = np.random.default_rng(int(qtype))
    out = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in SCALES.get(qtype, [0]) if finite else []:
        out[:, at:at + 2] = (rng.standard_normal(n) * 0.02).astype(np.float16).view(np.uint8).reshape(n, 2)
    return out


def write_tensors(path, tensors, arch="none"):
    g = gguf.GGUFWriter(path, arch)
    for name, (data, qtype) in tensors.items():
        g.add_tensor(name, data, raw_dtype=qtype)
    g.write_header_to_file()
    g.write_kv_data_to_file()
    g.write_tensors_to_file()
    g.close()


def written(folder):
    """{name: tensor} of a universal folder's fp32 masters."""
    zero = folder / "global_step0/zero"
    return {p.name: torch.load(p / "fp32.pt", weights_only=True)["param"] for p in zero.iterdir() if p.is_dir()}


@pytest.mark.parametrize("finite", [True, False], ids=["finite", "any_bits"])
@pytest.mark.parametrize("qtype", TYPES, ids=lambda q: q.name)
def test_values_of_each_type(crossdock, tmp_path, qtype, finite):
    """Random blocks reach every code; the bits are those of gguf-py, which equal ggml's own."""
    block, _ = gguf.GGML_QUANT_SIZES[qtype]
    rows, width = 9, 4096 if block > 1 else 4097
    data = random_blocks(qtype, rows * width // block, finite).reshape(rows, -1)
    write_tensors(tmp_path / "m.gguf", {"w": (data, qtype)})
    with np.errstate(all="ignore"):
        values = gguf.quants.dequantize(data, qtype).astype(np.float32)
    crossdock("convert", tmp_path / "m.gguf", tmp_path / "out", "--to", "universal", "--keep-unmatched", "--no-sync", "--memory", "8MiB")
    ours = written(tmp_path / "out")["w"].numpy()
    assert ours.shape == values.shape and np.array_equal(ours.view(np.uint32), values.view(np.uint32))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_values_in_16_bits(crossdock, tmp_path, dtype):
    data = random_blocks(Type.Q5_K, 64, finite=True).reshape(4, -1)
    plain = np.float32([[1, -2.5, 3e-8, 65519, 1e30, -1e-30, np.inf, 0.1]])
    write_tensors(tmp_path / "m.gguf", {"w": (data, Type.Q5_K), "norm": (plain, Type.F32), "h": (plain.astype(np.float16), Type.F16)})
    crossdock("convert", tmp_path / "m.gguf", tmp_path / "out", "--to", "universal", "--keep-unmatched", "--no-sync",
              "--dequant-dtype", dtype, "--precision", "source")
    want = torch.from_numpy(gguf.quants.dequantize(data, Type.Q5_K)).to({"bf16": torch.bfloat16, "fp16": torch.float16}[dtype])
    ours = written(tmp_path / "out")
    assert ours["w"].dtype == want.dtype and torch.equal(ours["w"].view(torch.int16), want.view(torch.int16))
    assert ours["norm"].dtype == torch.float32 and torch.equal(ours["norm"], torch.from_numpy(plain))
    assert ours["h"].dtype == want.dtype and torch.equal(ours["h"], torch.from_numpy(plain.astype(np.float16)).to(want.dtype))


def ulps(a, b):
    return (a.view(torch.int32).long() - b.view(torch.int32).long()).abs().max().item()


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    made = {}

    def make(recipe):
        if recipe not in made:
            path = tmp_path_factory.mktemp("gguf") / "model.gguf"
            model = recipe.make()
            gguf_files.write(model, recipe, path)
            made[recipe] = path, model
        return made[recipe]

    return make


@pytest.fixture(scope="module")
def loaded(gguf_file):
    """What transformers loads from the file."""
    def load(recipe):
        path, original = gguf_file(recipe)
        if recipe.cls is t.MistralForCausalLM:  # transformers 5.23 looks for an architecture "mistral" in gguf, which has none
            return original
        # The config is given, since what transformers makes of the metadata lacks head_dim (qwen3), biases (llama) and
        # n_positions (gpt2).
        return recipe.cls.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, config=original.config)

    return load


@pytest.fixture(scope="module")
def universal(crossdock, gguf_file, tmp_path_factory):
    made = {}

    def make(recipe):
        if recipe not in made:
            made[recipe] = tmp_path_factory.mktemp("universal") / "out"
            crossdock("convert", gguf_file(recipe)[0], made[recipe], "--to", "universal", "--no-sync")
        return made[recipe]

    return make


@pytest.mark.parametrize("recipe", gguf_files.MODELS, ids=str)
def test_architectures(gguf_file, loaded, universal, recipe):
    """Names, shapes and bits are those that transformers loads; config.json makes a module of the same parameters."""
    ours, theirs = written(universal(recipe)), dict(loaded(recipe).named_parameters())
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape, name
        # Ours is rounded from float64. numpy's own float32 is not always the nearest one.
        allowed = 1 if name.endswith("A_log") else 0
        assert ulps(ours[name], tensor.detach()) <= allowed, name
    from_config = recipe.cls(t.AutoConfig.from_pretrained(universal(recipe)))
    assert {n: p.shape for n, p in from_config.named_parameters()} == {n: p.shape for n, p in theirs.items()}
    if recipe.quantise == Type.F32 and recipe.arch not in ("mamba", "gemma2", "gemma3", "nemotron"):
        for name, tensor in gguf_file(recipe)[1].named_parameters():
            assert torch.equal(ours[name], tensor.detach()), name


@pytest.fixture(scope="module")
def judged(loaded, universal, torchrun, tmp_path_factory):
    folder, verdicts, runs = tmp_path_factory.mktemp("judge"), {}, []

    def save(recipe):
        model, out = recipe.make(), folder / str(recipe)  # one that transformers is willing to save
        model.load_state_dict(loaded(recipe).state_dict())
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith("A_log"):  # see test_architectures
                    p.copy_(written(universal(recipe))[name])
        model.save_pretrained(out)
        return str(out)

    def ask(recipe):
        if not runs:
            runs.append(1)
            cases, result = folder / "cases.json", folder / "verdicts.json"
            cases.write_text(json.dumps([
                {"name": str(r), "hf": save(r), "kind": "universal", "folder": str(universal(r)), "stage": 2, "sub_group": 0,
                 "buffer": False, "dtype": "fp32", "groups": 1, "trainable": [], "moments": True, "weights": str(r)}
                for r in gguf_files.MODELS]))
            torchrun(1, Path(__file__).parent / "deepspeed_judge.py", cases, result, timeout=900)
            verdicts.update(json.loads(result.read_text()))
        assert str(recipe) in verdicts, "the job ended before this case was judged: see the first that failed"
        return verdicts[str(recipe)]

    return ask


@pytest.mark.parametrize("recipe", gguf_files.MODELS, ids=str)
def test_trains_on_exactly(judged, recipe):
    verdict = judged(recipe)
    assert verdict.pop("loss_difference") <= 1e-6, verdict
    assert verdict == {"loaded": True, "wrong_weights": [], "wrong_masters": [], "wrong_moments": []}


# ---- experts: judged by the checkpoint that transformers saves
@pytest.mark.parametrize("recipe", gguf_files.EXPERTS, ids=str)
def test_experts(crossdock, tmp_path, recipe):
    model = recipe.make()
    model.save_pretrained(tmp_path / "hf")
    saved = read_folder(tmp_path / "hf")
    gguf_files.write_experts(saved, recipe, tmp_path / "m.gguf")
    for names, wanted in (("module", dict(model.named_parameters())), ("file", saved)):
        crossdock("convert", tmp_path / "m.gguf", tmp_path / names, "--to", "universal", "--names", names, "--no-sync")
        ours = written(tmp_path / names)
        assert ours.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert torch.equal(ours[name], tensor.detach().float()), name
    from_config = recipe.cls(t.AutoConfig.from_pretrained(tmp_path / "module"))
    assert {n: p.shape for n, p in from_config.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    crossdock("convert", tmp_path / "m.gguf", tmp_path / "zero3", "--to", "zero3", "--world-size", 1, "--dtype", "fp32", "--lr", 1e-3,
              "--weight-decay", 0.01, "--no-sync")
    flat = torch.load(tmp_path / "zero3/global_step0/zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=False)["optimizer_state_dict"]["fp32_flat_groups"][0]
    assert torch.equal(flat, torch.cat([p.detach().reshape(-1) for p in model.parameters()]))


def test_mixtral_of_old(crossdock, tmp_path):
    """Before April 2024 llama.cpp stored each expert alone."""
    recipe = gguf_files.EXPERTS[-1]
    recipe.make().save_pretrained(tmp_path / "hf")
    saved = read_folder(tmp_path / "hf")
    for name, alone in (("new", False), ("old", True)):
        gguf_files.write_experts(saved, recipe, tmp_path / f"{name}.gguf", alone)
        crossdock("convert", tmp_path / f"{name}.gguf", tmp_path / name, "--to", "universal", "--names", "file", "--no-sync")
    assert "blk.1.ffn_gate.3.weight" in gguf_files.tensor_names(tmp_path / "old.gguf")
    new, old = written(tmp_path / "new"), written(tmp_path / "old")
    assert new.keys() == old.keys() == saved.keys()
    for name, tensor in saved.items():
        assert torch.equal(old[name], tensor.float()) and torch.equal(new[name], old[name]), name
    assert (tmp_path / "old/config.json").read_bytes() == (tmp_path / "new/config.json").read_bytes()


# ---- what transformers' loader gets wrong, against the original weights
def converted_model(crossdock, tmp_path, recipe):
    """Written as GGUF and converted to tmp_path/out, where every value must be the model's own."""
    model = recipe.make()
    gguf_files.write(model, recipe, tmp_path / "m.gguf")
    crossdock("convert", tmp_path / "m.gguf", tmp_path / "out", "--to", "universal", "--no-sync")
    ours = written(tmp_path / "out")
    assert ours.keys() == dict(model.named_parameters()).keys()
    for name, tensor in model.named_parameters():
        assert torch.equal(ours[name], tensor.detach()), name
    return model


def test_falcon_of_several_key_heads(crossdock, tmp_path):
    """transformers 5.23 leaves llama.cpp's order of rows as it is, which is another model."""
    recipe = gguf_files.Model("falcon", t.FalconForCausalLM, t.FalconConfig,
                              dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=96, new_decoder_architecture=True, num_kv_heads=2))
    converted_model(crossdock, tmp_path, recipe)
    config = t.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.num_kv_heads == 2 and config.new_decoder_architecture


def test_stablelm_with_a_norm_for_each_head(crossdock, tmp_path):
    """llama.cpp stacks them; transformers' loader leaves them out."""
    recipe = gguf_files.Model("stablelm", t.StableLmForCausalLM, t.StableLmConfig, gguf_files.SMALL_KV | dict(qk_layernorm=True), extra={"rope.dimension_count": 4})
    model = converted_model(crossdock, tmp_path, recipe)
    from_config = t.StableLmForCausalLM(t.AutoConfig.from_pretrained(tmp_path / "out"))
    assert from_config.state_dict().keys() == model.state_dict().keys()


def llama3_factors(scaling, theta, dim):
    """As llama.cpp's convert_hf_to_gguf.py makes them."""
    low, high, old = (scaling[k] for k in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings"))
    out = []
    for freq in 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)):
        turns = old / (2 * math.pi / freq)
        smooth = (turns - low) / (high - low)
        out.append(1 if turns > high else scaling["factor"] if turns < low else 1 / ((1 - smooth) / scaling["factor"] + smooth))
    return [float(x) for x in out]


LLAMA = ("llama", t.LlamaForCausalLM, t.LlamaConfig)
LINEAR = {"rope_type": "linear", "factor": 8.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LONG, SHORT = [1.25 + i for i in range(8)], [1.0 + i / 16 for i in range(8)]


@pytest.mark.parametrize("model,fields,scaling,extra,tensors", [
    *((model, {}, scaling, {"rope.scaling.type": scaling["rope_type"], "rope.scaling.factor": scaling["factor"]} |
       ({"rope.scaling.original_context_length": 16} if scaling is YARN else {}), {})
      for model in (LLAMA, ("qwen3", t.Qwen3ForCausalLM, t.Qwen3Config), ("gemma3", t.Gemma3ForCausalLM, t.Gemma3TextConfig))
      for scaling in (LINEAR, YARN)),
    (LLAMA, {"head_dim": 128, "rope_theta": 5e5}, LLAMA3, {}, {"rope_freqs.weight": llama3_factors(LLAMA3, 5e5, 128)}),
    (LLAMA, {"head_dim": 64, "rope_theta": 5e5}, LLAMA3 | {"factor": 32.0}, {}, {"rope_freqs.weight": llama3_factors(LLAMA3 | {"factor": 32.0}, 5e5, 64)}),
    (("phi3", t.Phi3ForCausalLM, t.Phi3Config), {"pad_token_id": 0, "head_dim": None, "original_max_position_embeddings": 16},
     {"rope_type": "longrope", "long_factor": LONG, "short_factor": SHORT}, {"rope.scaling.original_context_length": 16, "rope.dimension_count": 16},
     {"rope_factors_long.weight": LONG, "rope_factors_short.weight": SHORT}),
], ids=lambda x: x[0] if isinstance(x, tuple) else x.get("rope_type") if isinstance(x, dict) else None)
def test_rope_scaling(crossdock, tmp_path, model, fields, scaling, extra, tensors):
    """That of the file reaches the model, which transformers' loader leaves unscaled."""
    arch, cls, config = model
    fields = gguf_files.SMALL_KV | dict(head_dim=16, rope_theta=1e4, max_position_embeddings=64) | fields
    fields = {k: v for k, v in fields.items() if v is not None}
    if arch == "gemma3":
        fields["num_hidden_layers"] = 6  # the first with attention to all, which alone is scaled
    recipe = gguf_files.Model(arch, cls, config, fields | dict(rope_scaling=dict(scaling)), extra=extra, tensors=tensors)
    model = recipe.make()
    gguf_files.write(model, recipe, tmp_path / "m.gguf")
    crossdock("convert", tmp_path / "m.gguf", tmp_path / "out", "--to", "universal", "--no-sync")
    ours = cls(t.AutoConfig.from_pretrained(tmp_path / "out"))
    rotary, again, unscaled = (m.model.rotary_emb for m in (model, ours, cls(config(**fields))))
    tables = [dict(m.named_buffers()) for m in (rotary, again, unscaled)]
    assert all(torch.equal(tables[0][name], tables[1][name]) for name in tables[0]) and tables[0].keys() == tables[1].keys()
    assert not all(torch.equal(tables[0][name], tables[2][name]) for name in tables[0])
    if arch != "gemma3":
        assert rotary.attention_scaling == again.attention_scaling
        for positions in (torch.arange(8)[None], torch.arange(64)[None]):
            x = torch.zeros(1, 1)
            assert all(torch.equal(a, b) for a, b in zip(rotary(x, positions), again(x, positions)))


def test_other_rope_factors_are_told(crossdock, tmp_path):
    """Factors that no scaling of Llama 3's kind makes."""
    factors = llama3_factors(LLAMA3, 5e5, 16)
    factors[2] *= 1.001
    recipe = gguf_files.Model(*LLAMA, gguf_files.SMALL_KV | dict(head_dim=16, rope_theta=5e5), tensors={"rope_freqs.weight": factors})
    gguf_files.write(recipe.make(), recipe, tmp_path / "m.gguf")
    notes = crossdock("convert", tmp_path / "m.gguf", tmp_path / "out", "--to", "universal", "--no-sync").stdout
    assert "rope_scaling" not in json.loads((tmp_path / "out/config.json").read_text())
    assert "which does not tell hidden_act, rope scaling of a type other than linear and yarn, rope_scaling" in notes


def test_zero3_from_gguf(crossdock, gguf_file, tmp_path):
    path, model = gguf_file(gguf_files.MODELS[1])
    crossdock("convert", path, tmp_path / "out", "--to", "zero3", "--world-size", 1, "--dtype", "fp32", "--lr", 1e-3, "--weight-decay", 0.01)
    flat = torch.load(tmp_path / "out/global_step0/zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=False)["optimizer_state_dict"]["fp32_flat_groups"][0]
    assert torch.equal(flat, torch.cat([p.detach().reshape(-1) for p in model.parameters()]))


# ---- containers
def test_split_files(crossdock, gguf_file, tmp_path):
    """Found from any of them; one that lacks, or is another's, is named."""
    path, model = gguf_file(gguf_files.MODELS[0])
    gguf_files.copy(path, tmp_path / "m.gguf", split_max_tensors=7)
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) == 3
    want = json.loads(crossdock("inspect", path, "--json").stdout)["tensors"]
    for given in [*parts, tmp_path]:
        got = json.loads(crossdock("inspect", given, "--json").stdout)["tensors"]
        assert {x["name"]: x["digest"] for x in got} == {x["name"]: x["digest"] for x in want}
    second = parts[1].read_bytes()
    parts[1].unlink()
    error = crossdock("inspect", parts[2], code=1).stderr
    assert "m-00002-of-00003.gguf" in error
    parts[1].write_bytes(parts[0].read_bytes())
    assert "expected part 2 of 3, found one that says it is 1 of 3" in crossdock("inspect", parts[0], code=1).stderr
    parts[1].write_bytes(second)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "renamed.gguf").write_bytes(parts[0].read_bytes())
    assert "expected part 1 of 1, found one that says it is 1 of 3" in crossdock("inspect", alone / "renamed.gguf", code=1).stderr
    # What `llama-gguf-split --merge` leaves behind: a count of 0.
    key = text_bytes("split.count") + struct.pack("<IH", 2, 0) + text_bytes("split.no") + struct.pack("<IH", 2, 0)
    merged = header(n_values=struct.pack("<Q", 2), key=key, value=b"")
    (alone / "renamed.gguf").write_bytes(merged)
    assert "w  F32  [32]" in crossdock("inspect", alone / "renamed.gguf", "--tensors").stdout
    (tmp_path / "other.gguf").write_bytes(path.read_bytes())
    assert "expected one model in the folder" in crossdock("inspect", tmp_path, code=1).stderr


def test_metadata_is_whole_and_typed(crossdock, tmp_path):
    g = gguf.GGUFWriter(tmp_path / "m.gguf", "none")
    values = {"a.u8": 200, "a.i8": -3, "a.u16": 60000, "a.i16": -30000, "a.u32": 4 * 10**9, "a.i32": -2 * 10**9, "a.u64": 2**64 - 1, "a.i64": -2**62,
              "a.f32": 0.5, "a.f64": 0.1, "a.bool": True, "a.text": "grüß", "a.list": [1, 2, 3], "a.texts": ["x", "y"]}
    for add, key in ((g.add_uint8, "a.u8"), (g.add_int8, "a.i8"), (g.add_uint16, "a.u16"), (g.add_int16, "a.i16"), (g.add_uint32, "a.u32"),
                     (g.add_int32, "a.i32"), (g.add_uint64, "a.u64"), (g.add_int64, "a.i64"), (g.add_float32, "a.f32"), (g.add_float64, "a.f64"),
                     (g.add_bool, "a.bool"), (g.add_string, "a.text"), (g.add_array, "a.list"), (g.add_array, "a.texts")):
        add(key, values[key])
    g.add_tensor("w", np.float32([1, 2]))
    g.write_header_to_file()
    g.write_kv_data_to_file()
    g.write_tensors_to_file()
    g.close()
    crossdock("inspect", tmp_path / "m.gguf", "--manifest", tmp_path / "m.json")
    manifest = json.loads((tmp_path / "m.json").read_text())

    def plain(value):
        (kind, v), = value.items()
        return [plain(x) for x in v["values"]] if kind.startswith("list") else int(v) if "int" in kind else v

    found = {e["key"]: plain(e["value"]) for e in manifest["source"]["metadata"]}
    assert {k: found[k] for k in values} == values


# ---- rules
def test_no_rule_for_the_architecture(crossdock, tmp_path):
    write_tensors(tmp_path / "m.gguf", {"w": (np.float32([1, 2, 3]), Type.F32)}, arch="brandnew")
    error = crossdock("convert", tmp_path / "m.gguf", tmp_path / "out", "--to", "universal", code=1).stderr
    assert "found brandnew in gguf/3" in error and "--rules FILE" in error and not (tmp_path / "out").exists()
    done = crossdock("inspect", tmp_path / "m.gguf", "--tensors")
    assert "w  F32  [3]" in done.stdout and "--rules FILE" in done.stderr


def test_rules_of_a_user(crossdock, tmp_path):
    """Every operation, against numpy."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((6, 8), np.float32), np.exp(rng.standard_normal((2, 3, 4))).astype(np.float32)
    w = {"blk.0.a": a, "blk.1.a": a[::-1].copy(), "blk.0.e0": a[:2], "blk.0.e1": a[2:4], "b": -b, "c": a[:1], "d": a, "gone": a}
    write_tensors(tmp_path / "m.gguf", {n: (x, Type.F32) for n, x in w.items()}, arch="mine")
    rules = tmp_path / "mine.textproto"
    text = """
        model_type: "mine"
        layout {
          format: "gguf"
          when { key: "general.architecture" equals: "mine" }
          let { name: "rows" value: "2*3" }
          tensor { to: "m.#.t" part { from: "blk.#.a" op { transpose: true } } }
          tensor { to: "m.#.u" part { from: "blk.#.a" op { unpermute_rows: "{rows}/2" } } }
          tensor { to: "m.#.stacked" part { from: "blk.#.e##" } stack: true op { merge { dim: 0 count: 2 } } if_has: "blk.#.e0" }
          tensor { to: "b.##.x" part { from: "b" } op { unstack: true } op { log_of_negated: true } op { add: 0.5 } }
          tensor { to: "p" part { from: "b" op { permute { dim: 2 dim: 0 dim: 1 } } } }
          tensor { to: "j" part { from: "d" op { slice { dim: 1 begin: "2" size: "3" } } } part { from: "blk.0.a" } concat: 1 }
          tensor { to: "r" part { from: "c" op { squeeze: 0 } op { split { dim: 0 size: "2" size: "?" } } op { unsqueeze: 1 } } }
          tensor { to: "s" part { from: "d" op { reshape { size: "4" size: "?" } } } }
          tensor { to: "order" part { from: "b" op { add: -0.5 } op { log_of_negated: true } } }
          tensor { to: "nested" part { part { from: "blk.0.e##" } stack: true op { permute { dim: 1 dim: 0 dim: 2 } } } part { from: "b" op { slice { dim: 2 begin: "0" size: "3" } } op { merge { dim: 0 count: 2 } } op { split { dim: 0 size: "2" size: "3" } } op { slice { dim: 1 begin: "1" size: "2" } } op { reshape { size: "2" size: "2" size: "3" } } } concat: 2 }
          excluded { from: "gone" reason: "a test" }
          tensor { to: "not.#.here" part { from: "blk.#.none" op { slice { begin: "0" size: "{no.such.key}" } } } if_has: "blk.#.none" }
          config { key: "rope.type" json: "\\"linear\\"" when { key: "general.architecture" equals: "mine" } }
          config { key: "rope.factor" json: "8" }
          config { key: "other" json: "1" when { key: "general.architecture" equals: "theirs" } }
        }"""
    rules.write_text(text)
    crossdock("convert", tmp_path / "m.gguf", tmp_path / "out", "--to", "universal", "--rules", rules, "--no-sync")
    got = {n: x.numpy() for n, x in written(tmp_path / "out").items()}
    unpermute = lambda x: x.reshape(3, 1, 2, 8).swapaxes(1, 2).reshape(6, 8)
    want = {"m.0.t": a.T, "m.1.t": a[::-1].T, "m.0.u": unpermute(a), "m.1.u": unpermute(a[::-1]), "m.0.stacked": a[:4],
            "p": -b.transpose(2, 0, 1), "j": np.concatenate([a[:, 2:5], a], 1), "r": a[0].reshape(2, 1, 4), "s": a.reshape(4, 12), "order": np.log((b + np.float32(0.5)).astype(np.float64)).astype(np.float32),
            "nested": np.concatenate([np.stack([a[:2], a[2:4]]).transpose(1, 0, 2), -b[:, 1:3, :3]], 2)}
    for i in range(2):
        want[f"b.{i}.x"] = np.log(b[i].astype(np.float64)).astype(np.float32) + np.float32(0.5)
    assert got.keys() == want.keys()
    for name, x in want.items():
        assert got[name].shape == x.shape and np.array_equal(got[name], x), name
    assert json.loads((tmp_path / "out/config.json").read_text()) == {"rope": {"type": "linear", "factor": 8}}
    report = json.loads((tmp_path / "out/crossdock.json").read_text())
    assert [x["excluded"] for x in report["tensors"] if x["name"] == "gone"] == ["a test"]

    def refused(old, new):
        rules.write_text(text.replace(old, new))
        error = crossdock("convert", tmp_path / "m.gguf", tmp_path / "no", "--to", "universal", "--rules", rules, code=1).stderr
        assert not (tmp_path / "no").exists()
        return error

    assert 'found none for "gone"' in refused('excluded { from: "gone" reason: "a test" }', "")
    assert "m.0.u: from blk.0.a: expected rows for 4 heads of an even size, found 6" in refused('"{rows}/2"', '"{rows}-2"'.replace("{rows}-2", "4"))
    assert "expected the metadata columns, found none" in refused('"{rows}/2"', '"{columns}"')
    assert "expected sizes whose product is 8, found [3, 2]" in refused('size: "2" size: "?"', 'size: "3" size: "2"')
    assert "expected one rule for s, found it made of both" in refused('to: "r"', 'to: "s"')
    assert "expected each of 3 dimensions once" in refused("permute { dim: 2 dim: 0 dim: 1 }", "permute { dim: 2 dim: 0 dim: 0 }")
    assert "parts that differ in the joined dimension alone" in refused('part { from: "blk.0.a" } concat: 1', 'part { from: "c" op { squeeze: 0 } } concat: 1')
    assert "expected rows for 9223372036854775808 heads" in refused('"{rows}/2"', '"9223372036854775808"')
    assert "expected at most 256 variables" in refused('let { name: "rows"', 'let { name: "x" value: "1" }' * 256 + ' let { name: "rows"')
    never = 'tensor { to: "never" part { from: "no.such" op { unpermute_rows: "{columns}" } } }'
    assert "never: expected the metadata columns, found none" in refused("excluded {", never + " excluded {")
    assert "expected '##' in the name" in refused('to: "b.##.x"', 'to: "b.x"')
    assert "expected '#' for the layer in both names" in refused('to: "m.#.t"', 'to: "m.t"')
    assert "config rope: expected a map or a value, found both" in refused('"rope.factor"', '"rope"')
    assert "config rope.a.b: expected a new field of a map" in refused('"rope.factor"', '"rope.a.b"')
    assert "in line 6" in refused('let { name: "rows"', 'lett { name: "rows"')


# ---- broken files
def header(**change):
    """A file of one tensor, field by field; a field may be changed."""
    field = {"magic": b"GGUF", "version": struct.pack("<I", 3), "n_tensors": struct.pack("<Q", 1), "n_values": struct.pack("<Q", 1),
             "key": text_bytes("a"), "value": struct.pack("<If", 6, 1), "name": text_bytes("w"), "n_dims": struct.pack("<I", 1), "dims": struct.pack("<Q", 32),
             "type": struct.pack("<I", 0), "offset": struct.pack("<Q", 0), "more": b""} | change
    out = b"".join(field.values())
    return out + bytes(-len(out) % 32) + bytes(128)


def text_bytes(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


ALIGN = text_bytes("general.alignment")
BROKEN = {
    "magic": (dict(magic=b"GGML"), 'expected a GGUF file to begin with "GGUF"'),
    "version1": (dict(version=struct.pack("<I", 1)), "expected version 2 or 3 of GGUF, found 1"),
    "version4": (dict(version=struct.pack("<I", 4)), "expected version 2 or 3 of GGUF, found 4"),
    "many tensors": (dict(n_tensors=struct.pack("<Q", 2**60)), "tensors, which is what"),
    "negative tensors": (dict(n_tensors=struct.pack("<q", -1)), "tensors, which is what"),
    "many values": (dict(n_values=struct.pack("<Q", 2**60)), "metadata values, which is what"),
    "long key": (dict(key=struct.pack("<Q", 2**40) + b"a"), "expected a text of at most"),
    "empty key": (dict(key=text_bytes("")), "expected a metadata key in UTF-8"),
    "key not UTF-8": (dict(key=text_bytes(b"\xff\xfe")), "expected a metadata key in UTF-8"),
    "value type": (dict(value=struct.pack("<If", 13, 1)), "expected a type of 0 to 12, found 13"),
    "bool of 2": (dict(value=struct.pack("<IB", 7, 2)), "expected a bool of 0 or 1, found 2"),
    "nested array": (dict(value=struct.pack("<IIQ", 9, 9, 1)), "found an array of arrays"),
    "long array": (dict(value=struct.pack("<IIQ", 9, 0, 2**50)), "array elements, which is what"),
    "alignment 0": (dict(key=ALIGN, value=struct.pack("<II", 4, 0)), "expected general.alignment to be a power of two, found 0"),
    "alignment 48": (dict(key=ALIGN, value=struct.pack("<II", 4, 48)), "expected general.alignment to be a power of two, found 48"),
    "alignment type": (dict(key=ALIGN, value=struct.pack("<IQ", 10, 32)), "expected an unsigned integer of 32 bits"),
    "long name": (dict(name=text_bytes("w" * 64)), "expected tensor names of 1 to 63 bytes"),
    "name not UTF-8": (dict(name=text_bytes(b"\xff")), "expected tensor names of 1 to 63 bytes in UTF-8"),
    "five dimensions": (dict(n_dims=struct.pack("<I", 5), dims=struct.pack("<5Q", *[1] * 5)), "expected at most 4 dimensions, found 5"),
    "dimension 0": (dict(dims=struct.pack("<Q", 0)), "expected dimensions of 1 or more, found 0"),
    "overflow": (dict(n_dims=struct.pack("<I", 2), dims=struct.pack("<QQ", 2**62, 2**62)), "expected a shape whose size fits 63 bits"),
    "overflow of bytes": (dict(dims=struct.pack("<Q", 2**62)), "expected a size that fits 63 bits"),
    "removed type": (dict(type=struct.pack("<I", 4)), "found Q4_2, which ggml has removed"),
    "intermediate type": (dict(type=struct.pack("<I", 15)), "found Q8_K, an intermediate"),
    "unknown type": (dict(type=struct.pack("<I", 99)), "found number 99, which is unknown"),
    "half a block": (dict(type=struct.pack("<I", 12)), "expected rows of whole blocks of 256 elements of Q4_K, found rows of 32"),
    "offset unaligned": (dict(offset=struct.pack("<Q", 4)), "expected an offset that is a multiple of 32, found 4"),
    "offset later": (dict(offset=struct.pack("<Q", 32)), "expected its data at offset 0, right after the tensor before it, found 32"),
    "past the end": (dict(dims=struct.pack("<Q", 64)), "the file is cut off"),
    "name twice": (dict(n_tensors=struct.pack("<Q", 2), more=text_bytes("w") + struct.pack("<IQIQ", 1, 1, 0, 128)), 'expected different tensors, found "w" twice'),
    "overlapping": (dict(n_tensors=struct.pack("<Q", 2), more=text_bytes("v") + struct.pack("<IQIQ", 1, 1, 0, 0)), "expected its data at offset 128"),
    "key twice": (dict(n_values=struct.pack("<Q", 2), value=struct.pack("<If", 6, 1) + text_bytes("a") + struct.pack("<If", 6, 1)), 'expected different metadata keys, found "a" twice'),
}


@pytest.mark.parametrize("change,message", BROKEN.values(), ids=BROKEN)
def test_broken_files(crossdock, tmp_path, change, message):
    (tmp_path / "m.gguf").write_bytes(header(**change))
    error = crossdock("inspect", tmp_path / "m.gguf", code=1).stderr
    assert message in error and "m.gguf" in error and len(error.splitlines()) == 1


def test_every_cut_is_refused(crossdock, tmp_path):
    whole = header()
    (tmp_path / "m.gguf").write_bytes(whole)
    crossdock("inspect", tmp_path / "m.gguf", "--tensors")
    for n in range(0, len(whole), 7):
        (tmp_path / "m.gguf").write_bytes(whole[:n])
        crossdock("inspect", tmp_path / "m.gguf", code=1)
