# SPDX-License-Identifier: Apache-2.0
"""docs/scale.md says what is so: its tables are computed here again, what they are computed from is asked of the
command, and its scripts and Kubernetes objects are ones that bash and Kubernetes take."""
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import validate

from recipes import write_holes

DOC = (Path(__file__).parents[2] / "docs/scale.md").read_text()
READS, WRITES = 2e9, 1.5e9  # bytes a second, of one node
NODES = (1, 4, 16)
SOURCE_BYTES = 2  # a parameter
WRITTEN_BYTES = {"safetensors": 2, "universal": 4, "zero3": 4}
SHARD_BYTES, RANKS = 5e9, 64


def llama(layers, hidden, inner, kv, vocabulary):
    """{name: shape}, as the files of Llama 3.1 have them."""
    block = {"self_attn.q_proj": [hidden, hidden], "self_attn.k_proj": [kv, hidden],
             "self_attn.v_proj": [kv, hidden], "self_attn.o_proj": [hidden, hidden],
             "mlp.gate_proj": [inner, hidden], "mlp.up_proj": [inner, hidden],
             "mlp.down_proj": [hidden, inner], "input_layernorm": [hidden], "post_attention_layernorm": [hidden]}
    return {"model.embed_tokens.weight": [vocabulary, hidden], "lm_head.weight": [vocabulary, hidden],
            "model.norm.weight": [hidden],
            **{f"model.layers.{i}.{name}.weight": shape for i in range(layers) for name, shape in block.items()}}


def deepseek_v3():
    """The same of DeepSeek-V3, less its layer that predicts a second token; experts stacked, as its class has them."""
    hidden, vocabulary, heads, experts, inner = 7168, 129280, 128, 256, 2048
    attention = {"q_a": [1536, hidden], "q_a_norm": [1536], "q_b": [heads * (128 + 64), 1536],
                 "kv_a": [512 + 64, hidden], "kv_a_norm": [512], "kv_b": [heads * (128 + 128), 512],
                 "o": [hidden, heads * 128], "norm": [hidden], "norm2": [hidden]}
    dense = {"gate": [18432, hidden], "up": [18432, hidden], "down": [hidden, 18432]}
    sparse = {"router": [experts, hidden], "router.bias": [experts],
              "experts.gate_up": [experts, 2 * inner, hidden], "experts.down": [experts, hidden, inner],
              "shared.gate": [inner, hidden], "shared.up": [inner, hidden], "shared.down": [hidden, inner]}
    layers = [{**attention, **(dense if i < 3 else sparse)} for i in range(61)]
    return {"embed": [vocabulary, hidden], "head": [vocabulary, hidden], "norm": [hidden],
            **{f"{i}.{name}": shape for i, layer in enumerate(layers) for name, shape in layer.items()}}


MODELS = {"8B": llama(32, 4096, 14336, 1024, 128256),
          "70B": llama(80, 8192, 28672, 1024, 128256),
          "671B": deepseek_v3()}


def count(shape):
    total = 1
    for size in shape:
        total *= size
    return total


def parameters(model):
    return sum(map(count, MODELS[model].values()))


def gigabytes(n_bytes):
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes < 1e10 else f"{n_bytes / 1e9:,.0f} GB"


def seconds(read, written):
    once, twice = max(read / READS, written / WRITES), read / READS + written / WRITES
    return " to ".join(dict.fromkeys(f"{number:,.0f}" for number in (once, twice)))


def row(*cells):
    return f"| {' | '.join(cells)} |"


def share_rows():
    for model in MODELS:
        for nodes in NODES:
            read = SOURCE_BYTES * parameters(model) / nodes
            written = [WRITTEN_BYTES[to] * parameters(model) / nodes for to in ("safetensors", "universal")]
            cells = (cell for n in written for cell in (gigabytes(n), seconds(read, n)))
            yield row(model, str(nodes), gigabytes(read), *cells)


def largest_rows():
    for model, tensors in MODELS.items():
        largest = WRITTEN_BYTES["universal"] * max(map(count, tensors.values()))
        shard = min(SHARD_BYTES, WRITTEN_BYTES["safetensors"] * parameters(model))
        rank = WRITTEN_BYTES["zero3"] * parameters(model) / RANKS
        yield row(model, *map(gigabytes, (shard, largest, rank)))


def tables():
    """Every table of the document, as its rows without head and rule."""
    return [match.group().splitlines()[2:] for match in re.finditer(r"(?m)^\|.*\n\|[-|]+\|\n(?:\|.*\n)+", DOC)]


def test_models_have_their_names_sizes():
    """The numbers that their makers give: 8.03, 70.6 and 671 billion."""
    assert [parameters(model) for model in MODELS] == [8_030_261_248, 70_553_706_496, 671_026_419_200]


@pytest.mark.parametrize("rows", [share_rows, largest_rows], ids=lambda rows: rows.__name__)
def test_the_tables_are_computed(rows):
    assert list(rows()) in tables(), "docs/scale.md should have:\n" + "\n".join(rows())


def test_the_rates_are_those_of_the_text():
    assert f"reads {READS / 1e9:.0f} GB/s and writes {WRITES / 1e9} GB/s" in DOC
    take, bring = max(NODES) * READS / 1e9, max(NODES) * WRITES / 1e9
    assert f"{max(NODES)} nodes at these rates take {take:.0f} GB/s from\nthem and bring {bring:.0f}." in DOC


def test_bytes_of_a_parameter(crossdock, tmp_path):
    """What the command plans for the 8B model, whose files are holes here."""
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 32,
              "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256,
              "num_attention_heads": 32, "num_key_value_heads": 8}
    (tmp_path / "in").mkdir()
    (tmp_path / "in/config.json").write_text(json.dumps(config))
    write_holes(tmp_path / "in/model.safetensors", {name: ("BF16", shape) for name, shape in MODELS["8B"].items()})
    job = {"zero3": ("--world-size", RANKS, "--lr", 1e-3, "--weight-decay", 0)}
    dry_run = ("convert", tmp_path / "in", tmp_path / "out", "--dry-run", "--to")
    for to, each in WRITTEN_BYTES.items():
        plan = crossdock(*dry_run, to, *job.get(to, ())).stdout
        read = re.search(r"safetensors: (\d+) GB in", plan)[1]
        written = re.search(r"about (\d+) GB on disk", plan)[1]
        assert [read, written] == [f"{n * parameters('8B') / 1e9:.0f}" for n in (SOURCE_BYTES, each)]
    dense = crossdock(*dry_run, "universal", "--moments", "dense").stdout
    assert f"about {12 * parameters('8B') / 1e9:.0f} GB on disk" in dense


def blocks(language):
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", DOC)


def test_scripts_are_bash():
    scripts = blocks("bash")
    assert len(scripts) == 4
    for script in scripts:
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, ""), script


def test_flags_are_the_commands(crossdock):
    """Of every crossdock line of the document, by the command's own help."""
    lines = re.sub(r"\\\n", " ", DOC).splitlines()
    calls = [rest for line in lines for rest in re.findall(r"crossdock convert ([^&\"]*)", line)]
    used = {flag for rest in calls for flag in re.findall(r"(?<!\S)--[a-z-]+", rest)}
    assert "--part" in used
    shown = "".join(crossdock("convert", "--to", to, "--help").stdout for to in WRITTEN_BYTES)
    assert {flag for flag in used if flag not in shown} == set()


def test_kubernetes_takes_the_jobs():
    jobs = [yaml.safe_load(text) for text in blocks("yaml")]
    assert [job["metadata"]["name"] for job in jobs] == ["convert", "commit"]
    for job in jobs:
        for version in ("1.29", "1.33"):
            validate(job, version, strict=True)  # raises; strict: of unknown fields too
    spec = jobs[0]["spec"]
    container = spec["template"]["spec"]["containers"][0]
    assert spec["completionMode"] == "Indexed"
    assert container["env"] == [{"name": "CROSSDOCK_PARTS", "value": str(spec["completions"])}]
    assert container["command"][-2:] == ["--part", "auto"]
    with pytest.raises(Exception, match="completionMod"):
        validate({**jobs[0], "spec": {**spec, "completionMod": "Indexed"}}, "1.33", strict=True)
