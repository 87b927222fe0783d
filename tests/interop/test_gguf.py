"""GGUF: every type's values, every architecture's names and shapes, and what DeepSpeed trains on from them."""
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers as t
from gguf import GGMLQuantizationType as Type

import gguf_files

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
              "--gguf-dtype", dtype, "--precision", "source")
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
