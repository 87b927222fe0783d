# SPDX-License-Identifier: Apache-2.0
"""Tiny whole models in quantised checkpoints, and what transformers makes of them.

    MODELS[name].save(folder)         config.json and two shards: codes in one, scales and the rest in the other
    MODELS[name].load(folder, dtype)  the state dict of from_pretrained, dequantised

With dtype=torch.float32 transformers leaves some parameters in bf16: what an FP8 or nf4 file does not quantise, and
compressed-tensors' experts.
"""
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers as t
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import save_file
from transformers.integrations.finegrained_fp8 import Fp8Quantize

import quantised_ct
import quantised_mx
from quantised_case import Random
from recipes import read_folder

SIZES = dict(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=64, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=2)
LATENT = SIZES | dict(num_key_value_heads=4, q_lora_rank=32, kv_lora_rank=48, qk_rope_head_dim=16, qk_nope_head_dim=16,
                      v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, n_group=2,
                      topk_group=1, moe_intermediate_size=32, first_k_dense_replace=1)


def plain_files(folder, model):
    """The tensors that transformers saves of a model in bf16, under the Hub's names."""
    torch.manual_seed(11)
    model = model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.bfloat16().save_pretrained(folder)
    return read_folder(folder)


def write_shards(folder, tensors, is_code, quantization=None):
    """Instead of the weights that are there: those that is_code(name) in the first shard, the others in the second."""
    folder = Path(folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    weight_map = {name: f"model-0000{1 if is_code(name) else 2}-of-00002.safetensors" for name in tensors}
    for file in set(weight_map.values()):
        save_file({name: x.contiguous() for name, x in tensors.items() if weight_map[name] == file}, folder / file,
                  metadata={"format": "pt"})
    size = sum(x.numel() * x.element_size() for x in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    if quantization:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}, indent=2))


def is_matrix(name, tensor):
    """Of a linear layer, but not of the router, embeddings or the head."""
    return tensor.ndim == 2 and name.endswith(("_proj.weight", "_proj_with_mqa.weight"))


def save_fp8_deepseek(folder):
    """As DeepSeek-V3: blocks, here of 16 x 16, and a file's tensor for each expert. transformers quantises."""
    config = t.FineGrainedFP8Config(weight_block_size=(16, 16))
    quantise = Fp8Quantize(SimpleNamespace(quantization_config=config))
    tensors = {}
    for name, x in plain_files(folder, lambda: t.DeepseekV3ForCausalLM(t.DeepseekV3Config(**LATENT))).items():
        tensors |= quantise.convert({name: x}) if is_matrix(name, x) else {name: x}
    write_shards(folder, tensors, lambda name: tensors[name].dtype == torch.float8_e4m3fn,
                 {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [16, 16]})


def save_mxfp4_gpt_oss(folder):
    """Random codes, and scales that make weights of usual size."""
    config = t.GptOssConfig(**SIZES | dict(intermediate_size=64, num_key_value_heads=2, head_dim=16,
                                           num_local_experts=4, num_experts_per_tok=2,
                                           layer_types=["sliding_attention", "full_attention"]))
    random, tensors = Random("mxfp4 gpt_oss"), {}
    for name, x in plain_files(folder, lambda: t.GptOssForCausalLM(config)).items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = x
            continue
        experts, columns, rows = x.shape
        tensors[name + "_blocks"] = random.bytes((experts, rows, columns // 32, 16))
        tensors[name + "_scales"] = (random.codes((experts, rows, columns // 32), 2) + 119).to(torch.uint8)
    write_shards(folder, tensors, lambda name: name.endswith("_blocks"), quantised_mx.GPT_OSS)


def save_int4_kimi(folder):
    """As Kimi K2 Thinking: DeepSeek-V3's class, int4 in groups of 32 for routed experts alone, which compressed-tensors
    packs."""
    quantization = quantised_ct.config("pack-quantized", quantised_ct.weights(4, "int", "group", 32))
    quantization["ignore"] = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*",
                              r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"]
    scheme = QuantizationConfig.model_validate(quantization).config_groups["group_0"]
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    tensors = {}
    for name, x in plain_files(folder, lambda: t.DeepseekV3ForCausalLM(t.DeepseekV3Config(**LATENT))).items():
        if ".experts." not in name:
            tensors[name] = x
            continue
        scale = (x.float().unflatten(1, (-1, 32)).abs().amax(2) / 7.5).bfloat16()
        packed = compressor.compress({"weight": x, "weight_scale": scale}, scheme)
        tensors |= {f"{name.removesuffix('weight')}{key}": part for key, part in packed.items()}
    write_shards(folder, tensors, lambda name: name.endswith("_packed"), quantization)


def save_nf4_llama(folder):
    """bitsandbytes quantises, with nested scales, and transformers saves. Rows are whole blocks, for others
    bitsandbytes' kernel for AVX-512 reads wrong."""
    config = t.LlamaConfig(**SIZES | dict(num_key_value_heads=2, intermediate_size=128))
    plain_files(folder, lambda: t.LlamaForCausalLM(config))
    wanted = t.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                  bnb_4bit_compute_dtype=torch.bfloat16)
    model = t.LlamaForCausalLM.from_pretrained(folder, quantization_config=wanted, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    write_shards(folder, read_folder(folder), lambda name: name.endswith("_proj.weight"))


def load(folder, dtype, **config):
    """With `config`, the load dequantises; without, the model does afterwards."""
    model = t.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **config)
    return (model if config else model.dequantize()).state_dict()


@dataclass
class Model:
    save: Callable[[Path], None]
    load: Callable[[Path, torch.dtype], dict[str, torch.Tensor]]


MODELS = {
    "fp8-deepseek_v3": Model(save_fp8_deepseek, lambda folder, dtype: load(
        folder, dtype, quantization_config=t.FineGrainedFP8Config(dequantize=True))),
    "mxfp4-gpt_oss": Model(save_mxfp4_gpt_oss, lambda folder, dtype: load(
        folder, dtype, quantization_config=t.Mxfp4Config(dequantize=True))),
    "int4-kimi_k2": Model(save_int4_kimi, lambda folder, dtype: load(
        folder, dtype, quantization_config=t.CompressedTensorsConfig(dequantize=True))),
    "nf4-llama": Model(save_nf4_llama, load),
}
