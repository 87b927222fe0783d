# SPDX-License-Identifier: Apache-2.0
"""Folders and files as people have them: which file is the model, what is no model, what must not be taken for a whole one.

The judge of which weights are the model is transformers' from_pretrained, wherever it reads the folder at all.
"""
import argparse
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import ROOT
from recipes import PLAIN, Source, read_folder, write_safetensors

RATES = ["--lr", "1e-4", "--weight-decay", "0"]  # which zero3 does not guess
FP32 = Source(tied=False, sharded=False, dtype="fp32")


def weights(folder):
    zero = folder / "global_step0/zero"
    return {path.parent.name: torch.load(path)["param"] for path in zero.glob("*/fp32.pt")}


def of_transformers(folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    return {name: p.detach().float() for name, p in model.named_parameters()}


def same(got, want):
    return set(got) == set(want) and all(torch.equal(got[name], want[name]) for name in want)


def copy(source, to):
    return shutil.copytree(source, to)


def as_bin(folder, index=False):
    """The folder's safetensors as pytorch_model.bin, or as two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if not index:
        torch.save(tensors, folder / "pytorch_model.bin")
        return folder
    files = {name: f"pytorch_model-0000{i % 2 + 1}-of-00002.bin" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        torch.save({name: t for name, t in tensors.items() if files[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder


# ---- a standard name wins in every format

STRAYS = {
    "value_head.safetensors": {"v_head.summary.weight": ("F32", [1, 35])},
    "adapter_model.safetensors": {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": ("F32", [2, 35])},
    "learned_embeds.safetensors": {"<cat>": ("F32", [35])},
    "model.fp16.safetensors": {"model.norm.weight": ("F16", [35])},
    "ema.safetensors": {"model.norm.weight": ("F32", [35])},
}


@pytest.mark.parametrize("index", [False, True], ids=["one file", "index"])
@pytest.mark.parametrize("stray", STRAYS)
def test_strays_beside_bin(crossdock, source, tmp_path, stray, index):
    folder = as_bin(copy(source(FP32), tmp_path / "in"), index)
    write_safetensors(folder / stray, STRAYS[stray])
    notes = crossdock.convert(folder, tmp_path / "out").stdout
    assert same(weights(tmp_path / "out"), of_transformers(folder))
    assert "Beside the model, not read: " in notes and stray in notes
    if stray.startswith("adapter"):
        assert "is an adapter (LoRA), which is not in the result" in notes
    assert f"beside the model, not read: {stray}" in (done := crossdock("inspect", folder)).stderr.lower() + done.stdout.lower()


@pytest.mark.parametrize("stray", ["model.gguf", "old.bin", "best.pt", "x.safetensors", "pytorch_model.fp16.bin"])
def test_strays_beside_safetensors(crossdock, source, tmp_path, stray):
    folder = copy(source(FP32), tmp_path / "in")
    (folder / stray).write_bytes(b"GGUF other bytes")
    notes = crossdock.convert(folder, tmp_path / "out").stdout
    assert same(weights(tmp_path / "out"), of_transformers(folder))
    assert f"not read: {stray}." in notes


def test_the_file_that_config_json_asks_for(crossdock, source, tmp_path):
    folder = copy(source(FP32), tmp_path / "in")
    torch.save({name: t * 2 for name, t in load_file(folder / "model.safetensors").items()}, folder / "pytorch_model.bin")
    save_file({name: t + 1 for name, t in load_file(folder / "model.safetensors").items()}, folder / "other.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
    crossdock.convert(folder, tmp_path / "out")
    assert same(weights(tmp_path / "out"), of_transformers(folder))
    (folder / "model.safetensors").unlink()
    error = crossdock.convert(folder, tmp_path / "out2", code=1).stderr
    assert "expected no transformers_weights, which names a .safetensors file" in error and "--from safetensors" in error
    crossdock.convert(folder, tmp_path / "out2", "--from", "safetensors")
    assert same(weights(tmp_path / "out2"), of_transformers(folder))


def test_an_index_left_behind_beside_another_format(crossdock, source, tmp_path):
    folder = as_bin(copy(source(FP32), tmp_path / "in"))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    error = crossdock.convert(folder, tmp_path / "out", code=1).stderr
    assert "found 1 missing (model-00001-of-00002.safetensors)" in error and "--from bin reads the other model" in error
    crossdock.convert(folder, tmp_path / "out", "--from", "bin")


# ---- parts, stems, indexes

def cut(folder, names, tensors=None):
    """The folder's model.safetensors, cut over files of these names."""
    tensors = tensors or load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink(missing_ok=True)
    for i, file in enumerate(names):
        part = {name: t.clone() for k, (name, t) in enumerate(sorted(tensors.items())) if k % len(names) == i}
        save_file(part, folder / file, metadata={"format": "pt"}) if file.endswith("safetensors") else torch.save(part, folder / file)
    return {name: names[k % len(names)] for k, name in enumerate(sorted(tensors))}


@pytest.mark.parametrize("pattern", ["model-{:05}-of-{:05}.safetensors", "model-{:05}-of-{:06}.safetensors", "m_{}-of-{}.safetensors",
                                     "pytorch_model_{:05}-of-{:05}.bin", "diffusion_pytorch_model.fp16-{:05}-of-{:05}.safetensors",
                                     "weights-{}_of_{}.pt", "consolidated-{:05}-of-{:05}.safetensors"])
def test_numbered_parts(crossdock, source, tmp_path, pattern):
    folder = copy(source(FP32), tmp_path / "in")
    names = [pattern.format(i, 3) for i in (1, 2, 3)]
    cut(folder, names)
    notes = crossdock.convert(folder, tmp_path / "out").stdout
    assert "found all 3 parts and no" in notes
    assert same(weights(tmp_path / "out"), of_transformers(source(FP32)))
    for named in names:
        assert f"found {named}, which is one part of 3" in crossdock.convert(folder / named, tmp_path / "part", code=1).stderr
    (folder / names[1]).unlink()
    error = crossdock.convert(folder, tmp_path / "part", code=1).stderr
    assert "expected all 3 parts of a model, found 2" in error and f"not {names[1]}" in error
    (folder / names[2]).unlink()
    error = crossdock.convert(folder, tmp_path / "part", code=1).stderr
    assert f"not {names[1]}, {names[2]}" in error
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize("stem", ["diffusion_pytorch_model", "consolidated", "whatever"])
def test_indexes_of_other_stems(crossdock, source, tmp_path, stem):
    folder = copy(source(FP32), tmp_path / "in")
    placed = cut(folder, [f"{stem}-0000{i}-of-00002.safetensors" for i in (1, 2)])
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: "./" + file for name, file in placed.items()}}))
    for i, path in enumerate((folder, index)):
        crossdock.convert(path, tmp_path / f"out{i}")
        assert same(weights(tmp_path / f"out{i}"), of_transformers(source(FP32)))
        assert (tmp_path / f"out{i}/config.json").exists()


@pytest.mark.parametrize("names", [("diffusion_pytorch_model.fp16-{}.safetensors", "diffusion_pytorch_model.safetensors.index.fp16.json"),
                                   ("diffusion_pytorch_model-{}.fp16.safetensors", "diffusion_pytorch_model.safetensors.index.fp16.json"),
                                   ("model.fp16-{}.safetensors", "model.safetensors.index.fp16.json"),
                                   ("pytorch_model.fp16-{}.bin", "pytorch_model.bin.index.fp16.json")], ids=lambda n: n[0])
def test_variants_in_the_middle_of_the_name(crossdock, source, tmp_path, names):
    folder = copy(source(FP32), tmp_path / "in")
    tensors = load_file(folder / "model.safetensors")
    half = {name: t.half() for name, t in tensors.items()}
    placed = cut(folder, [names[0].format(f"0000{i}-of-00002") for i in (1, 2)], half)
    (folder / names[1]).write_text(json.dumps({"weight_map": placed}))
    standard = names[1].split(".")[0] + (".bin" if ".bin" in names[0] else ".safetensors")
    torch.save(tensors, folder / standard) if standard.endswith(".bin") else save_file(tensors, folder / standard, {"format": "pt"})
    crossdock.convert(folder, tmp_path / "half", "--variant", "fp16")
    assert same(weights(tmp_path / "half"), {name: t.float() for name, t in half.items()})
    crossdock.convert(folder, tmp_path / "full")
    assert same(weights(tmp_path / "full"), tensors)
    (folder / standard).unlink()  # the only one there is
    crossdock.convert(folder, tmp_path / "only")
    assert same(weights(tmp_path / "only"), {name: t.float() for name, t in half.items()})


def test_an_index_of_another_save_beside_a_whole_set(crossdock, source, tmp_path):
    folder = copy(source(FP32), tmp_path / "in")
    placed = cut(folder, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
    index = folder / "model.safetensors.index.json"
    old = {name: f"model-0000{i % 4 + 1}-of-00004.safetensors" for i, name in enumerate(placed)}
    index.write_text(json.dumps({"weight_map": old}))
    assert "is of another save" in crossdock.convert(folder, tmp_path / "out").stdout
    assert same(weights(tmp_path / "out"), of_transformers(source(FP32)))
    index.write_text(json.dumps({"weight_map": {**old, "more": "model-00001-of-00004.safetensors"}}))
    assert 'expected tensor "more" in one of the files' in crossdock.convert(folder, tmp_path / "out2", code=1).stderr


@pytest.mark.parametrize("change", ["not listed", "in another shard"])
def test_an_index_only_says_which_files_there_are(crossdock, source, tmp_path, change):
    folder = copy(source(FP32), tmp_path / "in")
    placed = cut(folder, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
    first = next(iter(placed))
    placed[first] = "model-00002-of-00002.safetensors" if placed[first].startswith("model-00001") else "model-00001-of-00002.safetensors"
    if change == "not listed":
        del placed[first]
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    notes = crossdock.convert(folder, tmp_path / "out").stdout
    assert f'"{first}"' in notes and "read all the same, as transformers does" in notes
    assert same(weights(tmp_path / "out"), of_transformers(folder))


# ---- several models, parts of one, files that are none

def test_several_formats_without_a_standard_name(crossdock, source, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    tensors = load_file(source(FP32) / "model.safetensors")
    save_file(tensors, folder / "mine.safetensors")
    torch.save({name: t * 2 for name, t in tensors.items()}, folder / "best.pt")
    error = crossdock.convert(folder, tmp_path / "out", code=1).stderr
    assert "found files of several formats (best.pt, mine.safetensors)" in error and "--from bin or --from safetensors" in error
    crossdock.convert(folder, tmp_path / "out", "--from", "safetensors")
    assert same(weights(tmp_path / "out"), tensors)


@pytest.mark.parametrize("leave", [lambda name: "mlp" not in name, lambda name: "layers.1.self_attn.k_proj" not in name,
                                   lambda name: "embed" not in name, lambda name: name == "lm_head.weight", lambda name: "norm" in name])
def test_a_model_that_lacks_parameters_of_its_class(crossdock, source, tmp_path, leave):
    folder = copy(source(FP32), tmp_path / "in")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if leave(name)}, folder / "model.safetensors")
    for writer in (["universal"], ["zero3", "--world-size", 1, *RATES]):
        error = crossdock("convert", folder, tmp_path / "out", "--to", *writer, code=1).stderr
        assert "of LlamaForCausalLM in the source, found none of that name" in error or "layers, as num_hidden_layers" in error
    crossdock.convert(folder, tmp_path / "out", "--ignore-config-mismatch")


@pytest.mark.parametrize("stray", ["value_head.safetensors", "learned_embeds.safetensors", "mm_projector.bin", "non_lora_trainables.bin"])
def test_a_stray_file_alone_is_no_model(crossdock, source, tmp_path, stray):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(source(FP32) / "config.json", folder)
    save = save_file if stray.endswith("safetensors") else torch.save
    save({"v_head.weight": torch.ones(1, 35)}, folder / stray)
    crossdock.convert(folder, tmp_path / "out", code=1)
    (folder / "model.safetensors").symlink_to("../../blobs/none")
    assert "links that lead nowhere" in crossdock.convert(folder, tmp_path / "out", code=1).stderr


def test_a_numbered_neighbour_is_told(crossdock, source, tmp_path):
    tensors = load_file(source(FP32) / "model.safetensors")
    for i in (1, 2):
        save_file(tensors, tmp_path / f"model-{i}.safetensors")
    assert "model-2.safetensors beside it is not read" in crossdock.convert(tmp_path / "model-1.safetensors", tmp_path / "out").stdout


@pytest.mark.parametrize("beside", ["config.json", "quantize_config.json"])
def test_integers_beside_a_config_that_says_quantised(crossdock, tmp_path, beside):
    write_safetensors(tmp_path / "m.safetensors", {"l.codes_of_mine": ("I32", [8, 4]), "norm.weight": ("F16", [4])})
    crossdock.convert(tmp_path / "m.safetensors", tmp_path / "plain")
    (tmp_path / beside).write_text(json.dumps({"quantization_config": {"quant_method": "new"}}))
    assert f"{beside} beside it, which says that the model is quantised" in crossdock.convert(tmp_path / "m.safetensors", tmp_path / "out", code=1).stderr


@pytest.mark.parametrize("tensors", [{"optimizer.state.w.exp_avg": ("F32", [4])}, {"_flat_param": ("F32", [64])},
                                     {"q_proj.lora_a": ("F32", [4, 2])}, {"lora_te1_text.alpha": ("F32", [])}], ids=lambda t: next(iter(t)))
def test_what_is_no_parameter(crossdock, tmp_path, tensors):
    write_safetensors(tmp_path / "m.safetensors", {"w.weight": ("F32", [4, 4]), **tensors})
    crossdock.convert(tmp_path / "m.safetensors", tmp_path / "out", code=1)


@pytest.mark.parametrize("content, said", [(b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
                                           (b"<!DOCTYPE html><html>", "an HTML page"), (b"\x1f\x8b\x08" + bytes(40), "a gzip file"),
                                           (b"\x93NUMPY" + bytes(40), "a numpy array")], ids=["lfs", "html", "gzip", "numpy"])
def test_content_of_other_kinds(crossdock, tmp_path, content, said):
    for name in ("blob", "pytorch_model.bin", "model.gguf", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
        assert said in crossdock("inspect", tmp_path / name, code=1).stderr
    (tmp_path / "config.json").write_bytes(content)
    write_safetensors(tmp_path / "model.safetensors", {"w.weight": ("F32", [4, 4])})
    assert f"config.json: expected JSON, found {said if said[0] == 'a' else 'a ' + said}" in crossdock("inspect", tmp_path, code=1).stderr


# ---- files whose names say nothing

@pytest.mark.parametrize("name", ["model_best.pth.tar", "checkpoint", "0f3a9c", "MODEL.SAFETENSORS", "x.PTH", "a.bin", "b.safetensors"])
def test_content_tells(crossdock, source, tmp_path, name):
    tensors = load_file(source(FP32) / "model.safetensors")
    writers = {"safetensors": lambda path: save_file(tensors, path), "bin": lambda path: torch.save(tensors, path),
               "legacy": lambda path: torch.save(tensors, path, _use_new_zipfile_serialization=False)}
    for kind, write in writers.items():
        (tmp_path / kind).mkdir()
        write(tmp_path / kind / name)
        for flags in ([], ["--from", "safetensors" if kind == "safetensors" else "bin"]):
            out = tmp_path / f"out-{kind}{len(flags)}"
            crossdock.convert(tmp_path / kind / name, out, *flags)
            assert same(weights(out), tensors)


def test_content_that_is_nothing(crossdock, tmp_path):
    (tmp_path / "README").write_text("# a model")
    error = crossdock("inspect", tmp_path / "README", code=1).stderr
    assert "found README in" in error and "its first bytes are of none of them" in error


# ---- codes, placeholders, adapters, other sizes

CODES = {
    "MLX": {"l.weight": ("I32", [8, 4]), "l.scales": ("F16", [8, 1]), "l.biases": ("F16", [8, 1])},
    "HQQ": {"l.W_q": ("U8", [8, 4]), "l.scale": ("F16", [8, 1]), "l.zero": ("F16", [8, 1])},
    "EXL2": {"l.q_weight": ("I32", [8, 4]), "l.q_scale": ("I32", [2, 1]), "l.q_invperm": ("I16", [8])},
    "quanto": {"l.weight._data": ("I8", [8, 4]), "l.weight._scale": ("F32", [8, 1])},
    "AQLM": {"l.codes": ("I16", [8, 4, 1]), "l.codebooks": ("F16", [1, 16, 1, 8]), "l.scales": ("F16", [8, 1, 1, 1])},
    "QuIP#": {"l.Qidxs": ("I64", [8, 4]), "l.SU": ("F16", [8]), "l.SV": ("F16", [8])},
    "EETQ": {"l.weight": ("I8", [8, 4]), "l.weight_scales": ("F16", [4])},
    "integers": {"l.weight": ("I8", [8, 4])},
}


@pytest.mark.parametrize("named", [False, True], ids=["folder", "file"])
@pytest.mark.parametrize("scheme", CODES)
def test_codes_without_a_quantization_config(crossdock, tmp_path, scheme, named):
    path = tmp_path / "in"
    path.mkdir()
    write_safetensors(path / "model.safetensors", {"norm.weight": ("BF16", [4]), **CODES[scheme]})
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    error = crossdock.convert(path / "model.safetensors" if named else path, tmp_path / "out", code=1).stderr
    assert "codes" in error and (scheme in error or scheme in ("integers", "EETQ"))


def test_masks_ids_and_counters_stay_buffers(crossdock, tmp_path):
    write_safetensors(tmp_path / "model.safetensors", {
        "w.weight": ("BF16", [4, 4]), "h.0.attn.bias": ("U8", [1, 1, 8, 8]), "position_ids": ("I64", [1, 8]),
        "bn.num_batches_tracked": ("I64", []), "relative_position_index": ("I64", [4, 4]), "mask": ("BOOL", [4, 4])})
    out = crossdock.convert(tmp_path / "model.safetensors", tmp_path / "out").stdout
    assert "1 parameters, 5 buffers" in out


def without_optimizer_states(crossdock, shard, tmp_path):
    (tmp_path / "names").mkdir()
    shutil.copy(shard, tmp_path / "names")
    shutil.copy(shard, tmp_path / "names" / shard.name.replace("rank_0", "rank_1"))
    return crossdock.convert(tmp_path / "names", tmp_path / "out", code=1).stderr


def test_what_zero3_leaves_without_gathering(crossdock, source, tmp_path, torchrun):
    torchrun(1, ROOT / "tests/interop/ungathered_job.py", source(PLAIN), tmp_path)
    shutil.copy(source(PLAIN) / "config.json", tmp_path)
    shard = tmp_path / "checkpoint/global_step0/zero_pp_rank_0_mp_rank_00_model_states.pt"
    renamed = shutil.copy(shard, tmp_path / "rank.pt")
    for path in (tmp_path / "pytorch_model.bin", tmp_path / "ungathered.safetensors", renamed):
        for writer in (["universal"], ["zero3", "--world-size", 2, *RATES]):
            error = crossdock("convert", path, tmp_path / "out", "--to", *writer, code=1).stderr
            assert "ZeRO-3" in error and "DeepSpeed checkpoint (the folder that holds `latest`)" in error and "tensor " in error
    assert "name the folder that holds `latest`" in crossdock.convert(shard, tmp_path / "out", code=1).stderr
    for i, folder in enumerate((tmp_path / "checkpoint", shard.parent)):  # which are read as they are
        crossdock.convert(folder, tmp_path / f"out{i}")
    assert "a DeepSpeed checkpoint without the optimizer states" in without_optimizer_states(crossdock, shard, tmp_path)


@pytest.mark.parametrize("writer", [["universal"], ["zero3", "--world-size", 2, *RATES]], ids=["universal", "zero3"])
def test_placeholders_in_place_of_matrices(crossdock, source, tmp_path, writer):
    """Of a class with a rule, and of one without."""
    folder = copy(source(PLAIN), tmp_path / "in")
    for keep in ("norm", "embed"):
        tensors = read_folder(source(PLAIN))
        save_file({name: t if keep in name else torch.ones(1, dtype=t.dtype) for name, t in tensors.items()}, folder / "model.safetensors")
        for kind in ("llama", "unknown"):
            config = json.loads((source(PLAIN) / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}))
            error = crossdock("convert", folder, tmp_path / "out", "--to", *writer, code=1).stderr
            assert "DeepSpeed checkpoint" in error


@pytest.mark.parametrize("change, both", [({"vocab_size": 264}, ("264", "259")), ({"hidden_size": 40}, ("40", "35")),
                                          ({"num_hidden_layers": 5}, ("5 layers", "found 3")), ({"num_hidden_layers": 2}, ("2 layers", "found 3")),
                                          ({"intermediate_size": 100}, ("100", "101"))], ids=str)
def test_sizes_of_config_json(crossdock, source, tmp_path, change, both):
    folder = copy(source(PLAIN), tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    error = crossdock.convert(folder, tmp_path / "out", code=1).stderr
    assert all(number in error for number in both) and "--ignore-config-mismatch" in error
    crossdock.convert(folder, tmp_path / "out", "--ignore-config-mismatch")


def test_plain_weights_with_a_leftover_quantization_config(crossdock, source, tmp_path):
    folder = copy(source(PLAIN), tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}))
    assert "take quantization_config out of config.json" in crossdock.convert(folder, tmp_path / "out", code=1).stderr


# ---- names

@pytest.mark.parametrize("wrapped, flags", [
    (lambda model: torch.compile(model).state_dict(), ["--strip-prefix", "_orig_mod."]),
    (lambda model: torch.nn.DataParallel(model).state_dict(), ["--strip-prefix", "module."]),
    (lambda model: {f"module._orig_mod.{k}": v for k, v in model.state_dict().items()}, ["--strip-prefix", "module._orig_mod."]),
    (lambda model: {f"base_model.model.{k}": v for k, v in model.state_dict().items()}, ["--strip-prefix", "base_model.model."]),
    (lambda model: [setattr(model.model.layers, str(i), torch.compile(layer)) for i, layer in enumerate(list(model.model.layers))] and model.state_dict(),
     ["--rename", r"_orig_mod\.="]),
], ids=["torch.compile", "DataParallel", "both", "PEFT", "compiled layers"])
def test_wrappers_are_told_with_the_flag_that_helps(crossdock, source, tmp_path, wrapped, flags):
    from transformers import AutoModelForCausalLM

    folder = copy(source(FP32), tmp_path / "in")
    (folder / "model.safetensors").unlink()
    torch.save(dict(wrapped(AutoModelForCausalLM.from_pretrained(source(FP32)))), folder / "pytorch_model.bin")
    told = lambda text: " ".join(flags) in text or f"{flags[0]} '{flags[1]}'" in text
    assert told(crossdock.convert(folder, tmp_path / "out", code=1).stderr)  # no parameter of the class is there
    assert told(crossdock.convert(folder, tmp_path / "out", "--ignore-config-mismatch").stdout)
    error = crossdock("convert", folder, tmp_path / "zero3", "--to", "zero3", "--world-size", 1, *RATES, code=1).stderr
    assert told(error)
    notes = crossdock.convert(folder, tmp_path / "right", *flags).stdout
    assert "training program" not in notes and same(weights(tmp_path / "right"), of_transformers(source(FP32)))


def test_names_that_differ_in_case_only(crossdock, tmp_path):
    write_safetensors(tmp_path / "m.safetensors", {"layer.W": ("F32", [4]), "layer.w": ("F32", [5])})
    assert "--allow-case-collisions" in crossdock.convert(tmp_path / "m.safetensors", tmp_path / "out", code=1).stderr
    notes = crossdock.convert(tmp_path / "m.safetensors", tmp_path / "out", "--allow-case-collisions").stdout
    assert "differ in the case of letters only" in notes
    assert {name: t.numel() for name, t in weights(tmp_path / "out").items()} == {"layer.W": 4, "layer.w": 5}


@pytest.mark.parametrize("lack, said", [("architectures", '"architectures": ["LlamaForCausalLM"]'), ("model_type", '"model_type": "llama"')])
def test_config_json_without_a_key(crossdock, source, tmp_path, lack, said):
    folder = copy(source(PLAIN), tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    config.pop(lack)
    (folder / "config.json").write_text(json.dumps(config))
    error = crossdock("convert", folder, tmp_path / "out", "--to", "zero3", "--world-size", 1, *RATES, code=1).stderr
    assert f"expected {lack} in config.json" in error and said in error


def test_encodings_of_config_json(crossdock, source, tmp_path):
    folder = copy(source(PLAIN), tmp_path / "in")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_bytes(text.encode("utf-8-sig"))
    assert "byte order mark" in crossdock.convert(folder, tmp_path / "out").stdout
    assert same(weights(tmp_path / "out"), {name: t.float() for name, t in read_folder(source(PLAIN)).items()})
    for encoding in ("utf-16", "utf-16-be"):
        mark = b"\xfe\xff" if encoding.endswith("be") else b""
        (folder / "config.json").write_bytes(mark + text.encode(encoding))
        assert "expected JSON in UTF-8, found UTF-16" in crossdock.convert(folder, tmp_path / "out2", code=1).stderr


# ---- folders of other programs

FOREIGN = {
    "DCP": (["pytorch_model_fsdp_0/__0_0.distcp"], "none: the save did not end"),
    "torchtitan": (["step-100/__0_0.distcp", "step-100/__1_0.distcp"], "a distributed checkpoint of torch"),
    "Megatron": (["latest_checkpointed_iteration.txt", "iter_0000100/mp_rank_00/model_optim_rng.pt"], "Megatron-LM"),
    "DeepSpeed, below": (["a/latest", "a/step1/mp_rank_00_model_states.pt", "a/step1/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"], "a DeepSpeed checkpoint further below"),
    "DeepSpeed without ZeRO": (["latest", "global_step1/mp_rank_00_model_states.pt"], "a DeepSpeed checkpoint without ZeRO"),
    "universal, below": (["a/latest_universal", "a/step1/zero/optimizer_state.pt", "a/step1/zero/w/fp32.pt"], "Universal checkpoint further below"),
    "Meta": (["params.json", "consolidated.00.pth", "consolidated.01.pth"], "Meta's own format"),
    "verl": (["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt", "optim_world_size_2_rank_0.pt"], "verl"),
    "torchtune": (["hf_model_0001_0.pt", "hf_model_0002_0.pt"], "torchtune"),
    "TensorFlow": (["config.json", "tf_model.h5"], "TensorFlow"),
    "Flax": (["config.json", "flax_model.msgpack"], "Flax"),
    "ONNX": (["config.json", "model.onnx"], "ONNX"),
    "NeMo": (["model.nemo"], "NeMo"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_folders_of_other_programs(crossdock, tmp_path, kind):
    names, said = FOREIGN[kind]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"{}")
    error = crossdock.convert(tmp_path / "in", tmp_path / "out", code=1).stderr
    assert said in error.split("found", 1)[1]


# ---- DeepSpeed trains on from folders that were once wrong

def judged_sources(truth, root):
    """{what: (SRC, flags)}, all with the weights of `truth`."""
    config, tensors = truth / "config.json", load_file(truth / "model.safetensors")

    def folder(name):
        (root / name).mkdir()
        shutil.copy(config, root / name)
        return root / name

    stray = folder("stray")
    torch.save(tensors, stray / "pytorch_model.bin")
    write_safetensors(stray / "value_head.safetensors", STRAYS["value_head.safetensors"])
    parts = folder("parts")
    cut(parts, ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"], tensors)
    stale = folder("stale")
    cut(stale, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], tensors)
    (stale / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {name: "model-00001-of-00009.safetensors" for name in tensors}}))
    stem = folder("stem")
    placed = cut(stem, ["diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors"], tensors)
    index = stem / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: "./" + file for name, file in placed.items()}}))
    loop = folder("loop") / "model_best.pth.tar"
    torch.save({"model": tensors, "args": argparse.Namespace(lr=0.1), "best_val_loss": torch.tensor(1.0)}, loop)
    wrapped = folder("wrapped")
    torch.save({f"module._orig_mod.{name}": t for name, t in tensors.items()}, wrapped / "pytorch_model.bin")
    return {"a stray file": (stray, []), "parts without an index": (parts, []), "a stale index": (stale, []), "an index of diffusers": (index, []),
            "a training loop's file": (loop, []), "wrapped names": (wrapped, ["--strip-prefix", "module._orig_mod."])}


def test_deepspeed_trains_on(crossdock, source, torchrun, tmp_path):
    cases = []
    for what, (src, flags) in judged_sources(source(PLAIN), tmp_path).items():
        folder = tmp_path / f"out of {what}"
        crossdock.convert(src, folder, *flags)
        cases += [{"name": f"{what}, stage {stage}", "hf": str(source(PLAIN)), "kind": "universal", "folder": str(folder), "stage": stage,
                   "sub_group": 0, "buffer": False, "dtype": "bf16", "groups": 1, "trainable": [], "moments": True, "weights": "same"}
                  for stage in (2, 3)]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    torchrun(1, ROOT / "tests/interop/deepspeed_judge.py", tmp_path / "cases.json", tmp_path / "verdicts.json", timeout=900)
    verdicts = json.loads((tmp_path / "verdicts.json").read_text())
    assert len(verdicts) == len(cases) == 12
    for what, verdict in verdicts.items():
        assert verdict.pop("loss_difference") <= 1e-6, what
        assert verdict == {"loaded": True, "wrong_weights": [], "wrong_masters": [], "wrong_moments": []}, what
