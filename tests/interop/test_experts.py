# SPDX-License-Identifier: Apache-2.0
"""Experts and other parameters that files hold otherwise than the module: what the file has of each decides.

The truth is what transformers' own from_pretrained makes of the same folder.
"""
import json
import sys
from pathlib import Path

import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file

from module_judge import OPTIMIZER, check_both, check_universal, save, universal
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
from crossdock_manifest import describe
from test_families import EXPERTS, FAMILIES, LINEAR, SMALL, VISION

STACKED = ["mixtral", "qwen3_moe", "olmoe", "phimoe"]


@pytest.fixture
def saved(tmp_path):
    """saved(family) -> (model, {name: tensor} of its file); the folder is tmp_path/in."""
    def make(family):
        cls, config = FAMILIES[family]
        torch.manual_seed(3)
        model = cls(config())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.save_pretrained(tmp_path / "in")
        return model, load_file(tmp_path / "in/model.safetensors")

    return make


def write(folder, tensors):
    save_file({n: x.detach().clone().contiguous() for n, x in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def stack_layer(model, tensors, layer):
    """The file's tensors, but those of one layer's experts as the module has them."""
    part = f".layers.{layer}."
    experts = {n: p for n, p in model.named_parameters() if part in n and ".experts." in n}
    return {n: x for n, x in tensors.items() if part not in n or ".experts." not in n} | experts


@pytest.mark.parametrize("family", STACKED)
def test_a_file_may_mix_both_forms(crossdock, saved, tmp_path, family):
    model, tensors = saved(family)
    mixed = stack_layer(model, tensors, 1)
    assert set(mixed) not in (set(tensors), {n for n, _ in model.named_parameters()})
    write(tmp_path / "in", mixed)
    check_both(crossdock, tmp_path / "in", tmp_path / "out", model)


@pytest.mark.parametrize("family", STACKED)
def test_without_the_base_class_s_prefix(crossdock, saved, tmp_path, family):
    model, tensors = saved(family)
    write(tmp_path / "in", {n.removeprefix("model."): x for n, x in tensors.items()})
    check_both(crossdock, tmp_path / "in", tmp_path / "out", model)


def test_experts_in_any_order_and_shard(crossdock, saved, tmp_path):
    """As rarely tidy files have them: parts of one expert in different shards, numbers as the alphabet sorts them."""
    model, tensors = saved("qwen3_moe")
    names = sorted(tensors, key=lambda n: n[::-1])
    weight_map = {}
    for i in range(3):
        file = f"model-{i + 1:05}-of-00003.safetensors"
        save_file({n: tensors[n] for n in names[i::3]}, tmp_path / "in" / file)
        weight_map |= {n: file for n in names[i::3]}
    (tmp_path / "in/model.safetensors").unlink()
    (tmp_path / "in/model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    check_both(crossdock, tmp_path / "in", tmp_path / "out", model)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "llava"])
def test_from_files_to_the_module_and_back(crossdock, saved, tmp_path, family):
    model, tensors = saved(family)
    crossdock("convert", tmp_path / "in", tmp_path / "module", "--to", "safetensors", "--names", "module")
    crossdock("convert", tmp_path / "module", tmp_path / "file", "--to", "safetensors")
    module, back = load_file(tmp_path / "module/model.safetensors"), load_file(tmp_path / "file/model.safetensors")
    assert set(dict(model.named_parameters())) <= set(module)
    assert back.keys() == tensors.keys()
    assert all(x.dtype == tensors[n].dtype and torch.equal(x, tensors[n]) for n, x in back.items())
    for folder in "module", "file":
        again = dict(type(model).from_pretrained(tmp_path / folder).named_parameters())
        assert all(torch.equal(p, again[n]) for n, p in model.named_parameters())
    check_universal(crossdock, tmp_path / "module", tmp_path / "universal", model)


def test_names_of_files_for_a_job_of_transformers_4(crossdock, saved, tmp_path):
    _, tensors = saved("qwen3_moe")
    crossdock("convert", tmp_path / "in", tmp_path / "out", "--to", "universal", "--names", "file", "--no-sync")
    found = universal(tmp_path / "out")
    assert found.keys() == tensors.keys() and all(torch.equal(found[n], x) for n, x in tensors.items())
    error = crossdock("convert", tmp_path / "in", tmp_path / "no", "--to", "zero3", "--world-size", 1, *OPTIMIZER, "--names", "file", code=1).stderr
    assert "--names file: expected a description of the job's module with --target" in error


def test_a_text_class_leaves_the_tower_and_mtp_out(crossdock, tmp_path):
    """Qwen3.5's text class reads files of the whole model, whose MTP layers have another form than the main ones."""
    torch.manual_seed(5)
    config = t.Qwen3_5MoeTextConfig(**LINEAR, tie_word_embeddings=False)
    model = t.Qwen3_5MoeForCausalLM(config)
    tensors = {n.replace("model.", "model.language_model.", 1): p for n, p in model.named_parameters()}
    tensors |= {"mtp.layers.0.mlp.experts.0.gate_proj.weight": torch.ones(16, 32), "mtp.norm.weight": torch.ones(32),
                "model.visual.blocks.0.norm1.weight": torch.ones(32)}
    save(tmp_path / "in", model, tensors)
    loaded = dict(t.Qwen3_5MoeForCausalLM.from_pretrained(tmp_path / "in").named_parameters())
    assert all(torch.equal(p, loaded[n]) for n, p in model.named_parameters())
    said = check_universal(crossdock, tmp_path / "in", tmp_path / "out", model)
    assert "Left out: " in said and "mtp.norm.weight" in said and "model.visual.blocks.0.norm1.weight" in said
    assert "3 left out" in said


def test_transposed_experts_are_known_by_their_shape(crossdock, tmp_path):
    """Qwen3-VL-MoE's files have the experts' matrices turned, under the same names as the module."""
    torch.manual_seed(5)
    text = EXPERTS | {"moe_intermediate_size": 24, "head_dim": 8, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
    vision = VISION | {"depth": 2, "num_heads": 4, "out_hidden_size": 32, "deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    model = t.Qwen3VLMoeForConditionalGeneration(t.Qwen3VLMoeConfig(text_config=text, vision_config=vision))
    turned = {n: p.transpose(1, 2) if ".experts." in n else p for n, p in model.named_parameters()}
    for name, tensors in (("file", turned), ("module", dict(model.named_parameters()))):
        save(tmp_path / name, model, tensors)
        loaded = dict(type(model).from_pretrained(tmp_path / name).named_parameters())
        assert all(torch.equal(p, loaded[n]) for n, p in model.named_parameters())
        check_both(crossdock, tmp_path / name, tmp_path / f"out-{name}", model)


def module_of(tensors):
    """A module whose parameters have these names: as transformers 4's has those of files."""
    root = torch.nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        at = root
        for part in path:
            if part not in dict(at.named_children()):
                at.add_module(part, torch.nn.Module())
            at = at.get_submodule(part)
        at.register_parameter(last, torch.nn.Parameter(tensor))
    return root


@pytest.mark.parametrize("form", ("module", "file"))
@pytest.mark.parametrize("family", ("mixtral", "gpt_neox"))
def test_a_description_of_the_job_decides(crossdock, saved, tmp_path, family, form):
    """--target of a job on transformers 5, and on one whose modules have the names of files."""
    model, tensors = saved(family)
    job = model if form == "module" else module_of(tensors)
    (tmp_path / "target.pb").write_bytes(describe(job))
    target = ("--target", tmp_path / "target.pb")
    check_universal(crossdock, tmp_path / "in", tmp_path / "universal", job, *target)
    crossdock("convert", tmp_path / "in", tmp_path / "zero3", "--to", "zero3", "--world-size", 1, *OPTIMIZER, "--no-sync", *target)
    states = torch.load(tmp_path / "zero3/global_step0/zero_pp_rank_0_mp_rank_00_model_states.pt", weights_only=False)
    assert [n for shapes in states["param_shapes"] for n in shapes] == [n for n, _ in job.named_parameters()]


E = "model.layers.1.block_sparse_moe.experts."
BAD = {
    "a part of an expert lacks": (lambda x: x.pop(E + "2.w3.weight"), f"expected {E}2.w3.weight, which comes with"),
    "an expert lacks": (lambda x: [x.pop(f"{E}2.w{w}.weight") for w in (1, 2, 3)], "numbered from 0 without gaps, found"),
    "the last expert lacks": (lambda x: [x.pop(f"{E}3.w{w}.weight") for w in (1, 2, 3)], "expected 4 in dimension 0, as num_local_experts"),
    "all experts of a layer lack": (lambda x: [x.pop(n) for n in list(x) if n.startswith(E)],
                                    "expected the parameter model.layers.1.mlp.experts.gate_up_proj"),
    "experts of two sizes": (lambda x: x.update({E + "2.w1.weight": torch.ones(50, 32)}), f"found {E}2.w1.weight of [50, 32] beside"),
    "two layouts of one tensor": (lambda x: x.update({"model.layers.1.mlp.experts.down_proj": torch.ones(4, 32, 48)}),
                                  "expected one tensor for model.layers.1.mlp.experts.down_proj"),
    "one more expert than config.json says": (lambda x: x.update({f"{E}4.w{w}.weight": x[f"{E}3.w{w}.weight"] for w in (1, 2, 3)}),
                                              "expected 4 in dimension 0, as num_local_experts of config.json says, found 5"),
    "an unknown tensor": (lambda x: x.update({"model.layers.1.more": torch.ones(2)}), "found model.layers.1.more"),
    "two names of one expert's part": (lambda x: x.update({E[6:] + "0.w1.weight": torch.ones(48, 32)}), "expected one tensor for"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_files(crossdock, saved, tmp_path, fault):
    _, tensors = saved("mixtral")
    change, message = BAD[fault]
    change(tensors)
    write(tmp_path / "in", tensors)
    for flags in (("--to", "universal"), ("--to", "safetensors"), ("--to", "zero3", "--world-size", 1, *OPTIMIZER)):
        if flags[1] == "safetensors" and fault == "an unknown tensor":
            continue  # a folder of files keeps what the class has not
        done = crossdock("convert", tmp_path / "in", tmp_path / "out", *flags, code=1)
        assert message in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert not (tmp_path / "out").exists()


def test_a_rule_that_names_nothing(crossdock, saved, tmp_path):
    saved("mixtral")
    rule = tmp_path / "mine.textproto"
    for text, message in (('parameter { name: "x" from { } }', "expected a name or parts in `from` of x, found neither"),
                          ('parameter { name: "" }', "expected a parameter with a name"),
                          ('parameter { name: "no.such" }', "expected the parameter no.such")):
        rule.write_text(f'model_type: "mixtral" architecture: "MixtralForCausalLM" {text}')
        done = crossdock("convert", tmp_path / "in", tmp_path / "out", "--to", "universal", "--rules", rule, code=1)
        assert message in done.stderr and not (tmp_path / "out").exists()
