# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of known shapes for bench.py, written as safetensors by hand. A tensor is (name, shape) of bf16, or
(name, shape, dtype)."""
import json
import math
import mmap
import os
import struct
import sys
import traceback
from pathlib import Path

BLOCK_BYTES = 64 << 20


def llama(vocab, hidden, layers, intermediate, kv_width):
    """[(name, shape)] in the order that transformers saves them in."""
    out = [("lm_head.weight", [vocab, hidden]), ("model.embed_tokens.weight", [vocab, hidden])]
    for i in range(layers):
        p = f"model.layers.{i}."
        out += [(p + "input_layernorm.weight", [hidden]),
                (p + "mlp.down_proj.weight", [hidden, intermediate]),
                (p + "mlp.gate_proj.weight", [intermediate, hidden]),
                (p + "mlp.up_proj.weight", [intermediate, hidden]),
                (p + "post_attention_layernorm.weight", [hidden]),
                (p + "self_attn.k_proj.weight", [kv_width, hidden]),
                (p + "self_attn.o_proj.weight", [hidden, hidden]),
                (p + "self_attn.q_proj.weight", [hidden, hidden]),
                (p + "self_attn.v_proj.weight", [kv_width, hidden])]
    return out + [("model.norm.weight", [hidden])]


def tiny_llama():
    """TinyLlama-1.1B: 1.10 billion elements, 2.2 GB."""
    return llama(32000, 2048, 22, 5632, 4 * 64)


def fp8_llama():
    """The same in FP8, 1.2 GB: matrices of layers are codes with a scale for 128 x 128 of them, as in DeepSeek-V3."""
    out = []
    for name, shape in tiny_llama():
        if len(shape) == 2 and name.startswith("model.layers."):
            out += [(name, shape, "F8_E4M3"), (name + "_scale_inv", [-(-side // 128) for side in shape], "F32")]
        else:
            out.append((name, shape))
    return out


LARGE_LAYER_ELEMS = 3 * 5120 * 13824 + 4 * 5120 * 5120 + 2 * 5120


def mixtral():
    """5 layers of 8 experts: 1.94 billion elements, 3.9 GB. The experts' parts lie as the alphabet has them, not side by side."""
    hidden, intermediate = 2048, 7168
    out = [("lm_head.weight", [32000, hidden]), ("model.embed_tokens.weight", [32000, hidden])]
    for i in range(5):
        p = f"model.layers.{i}."
        for e in range(8):
            out += [(f"{p}block_sparse_moe.experts.{e}.w{w}.weight", [hidden, intermediate] if w == 2 else [intermediate, hidden])
                    for w in (1, 2, 3)]
        out += [(p + "block_sparse_moe.gate.weight", [8, hidden]), (p + "input_layernorm.weight", [hidden]),
                (p + "post_attention_layernorm.weight", [hidden])]
        out += [(f"{p}self_attn.{x}_proj.weight", [256 if x in "kv" else hidden, hidden]) for x in "koqv"]
    return out + [("model.norm.weight", [hidden])]


def as_large_as_mixtral():
    """A dense model of as many bytes."""
    return llama(32000, 2048, 5, 8 * 7168, 256)


def large_llama(layers):
    """The layers of Llama-2-13B; 34 of them make 22 GB."""
    return llama(32000, 5120, layers, 13824, 5120)


def many_tensors(n):
    return [(f"model.layers.{i // 1000}.mlp.experts.{i % 1000}.up_proj.weight", [16, 16]) for i in range(n)]


def deepseek_v3():
    """The names and shapes of DeepSeek-V3: 61 layers, of which 58 have 256 experts; 671 billion elements."""
    hidden, moe = 7168, 2048
    out = [("model.embed_tokens.weight", [129280, hidden])]

    def mlp(prefix, width):
        return [(f"{prefix}.{part}_proj.weight", [hidden, width] if part == "down" else [width, hidden])
                for part in ("gate", "up", "down")]

    for i in range(61):
        p = f"model.layers.{i}."
        a = p + "self_attn."
        out += [(a + "q_a_proj.weight", [1536, hidden]), (a + "q_a_layernorm.weight", [1536]),
                (a + "q_b_proj.weight", [128 * 192, 1536]), (a + "kv_a_proj_with_mqa.weight", [576, hidden]),
                (a + "kv_a_layernorm.weight", [512]), (a + "kv_b_proj.weight", [128 * 256, 512]),
                (a + "o_proj.weight", [hidden, 128 * 128]),
                (p + "input_layernorm.weight", [hidden]), (p + "post_attention_layernorm.weight", [hidden])]
        if i < 3:
            out += mlp(p + "mlp", 18432)
            continue
        out += [(p + "mlp.gate.weight", [256, hidden]), (p + "mlp.gate.e_score_correction_bias", [256])]
        out += mlp(p + "mlp.shared_experts", moe)
        for e in range(256):
            out += mlp(f"{p}mlp.experts.{e}", moe)
    return out + [("model.norm.weight", [hidden]), ("lm_head.weight", [129280, hidden])]


GGUF_NAMES = {"lm_head": "output", "model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers.": "blk.", "input_layernorm": "attn_norm",
              "post_attention_layernorm": "ffn_norm", "mlp.": "ffn_", "self_attn.": "attn_", "_o_proj": "_output", "_proj": ""}


def write_gguf(path, tensors, heads, kv_heads):
    """A llama whose matrices are Q4_K: random codes, scales of about 1/100. Metadata: what the rule for llama needs."""
    if path.exists():
        return path
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()
    number = lambda key, n: text(key) + struct.pack("<II", 4, n)
    values = [text("general.architecture") + struct.pack("<I", 8) + text("llama"), number("llama.attention.head_count", heads),
              number("llama.attention.head_count_kv", kv_heads), number("llama.embedding_length", tensors[0][1][1]), number("llama.block_count", len({name.split(".")[2] for name, _ in tensors if name.startswith("model.layers.")}))]
    infos, sizes, at = b"", [], 0
    for name, shape in tensors:
        for ours, theirs in GGUF_NAMES.items():
            name = name.replace(ours, theirs)
        matrix = len(shape) == 2
        size = shape[0] * shape[1] // 256 * 144 if matrix else shape[0] * 4
        infos += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in reversed(shape))
        infos += struct.pack("<IQ", 12 if matrix else 0, at)
        sizes.append((matrix, size))
        at += size + -size % 32
    block = bytearray(os.urandom(144 * 4096))
    for i in range(0, len(block), 144):
        block[i:i + 4] = struct.pack("<ee", 0.0125, 0.0125)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as out:
        head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(values) + infos
        out.write(head + bytes(-len(head) % 32))
        for matrix, size in sizes:
            whole, rest = divmod(size, len(block)) if matrix else (0, 0)
            for _ in range(whole):
                out.write(block)
            out.write(block[:rest] if matrix else struct.pack("<f", 1.0) * (size // 4))
            out.write(bytes(-size % 32))
    partial.rename(path)
    return path


ELEM_BYTES = {"BF16": 2, "F8_E4M3": 1, "F32": 4}


def dtype_of(tensor):
    return tensor[2] if len(tensor) > 2 else "BF16"


def n_bytes(tensor):
    return ELEM_BYTES[dtype_of(tensor)] * math.prod(tensor[1])


def split(tensors, shards):
    """Runs of tensors of about the same size, none empty."""
    total = sum(map(n_bytes, tensors))
    out, done = [[]], 0
    for tensor in tensors:
        if out[-1] and done >= total * len(out) / shards and len(out) < shards:
            out.append([])
        out[-1].append(tensor)
        done += n_bytes(tensor)
    return out


def random_block():
    """Random bf16, or fp32: any mantissa and sign, exponents near 1, so no infinities and no NaN."""
    high = bytes(b & 0x80 | 0x3C | b & 0x03 for b in range(256))
    block = bytearray(BLOCK_BYTES)
    block[0::2] = os.urandom(BLOCK_BYTES // 2)
    block[1::2] = os.urandom(BLOCK_BYTES // 2).translate(high)
    return memoryview(block)


def write_shard(path, tensors, block):
    """Without a block, the values are a hole in the file."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for tensor in tensors:
        end = at + n_bytes(tensor)
        header[tensor[0]] = {"dtype": dtype_of(tensor), "shape": tensor[1], "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        if block is None:
            out.truncate(8 + len(text) + at)
            return
        while at > 0:  # the block again and again, from another place each time
            begin = int.from_bytes(os.urandom(4), "little") % (BLOCK_BYTES // 2) & ~3
            at -= out.write(block[begin:begin + min(at, BLOCK_BYTES - begin)])


def write_model(folder, tensors, shards, data, config):
    folder.mkdir(parents=True)
    block = random_block() if data else None
    weight_map = {}
    parts = split(tensors, shards)
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
        write_shard(folder / name, part, block)
        weight_map.update({tensor[0]: name for tensor in part})
    total = sum(map(n_bytes, tensors))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    config = {"torch_dtype": "bfloat16", "tie_word_embeddings": False} | config
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))


LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
MIXTRAL = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}
FP8_LLAMA = LLAMA | {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                             "weight_block_size": [128, 128]}}
DEEPSEEK = {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "n_routed_experts": 256}


def make(folder, tensors, shards, data, config=LLAMA):
    """The model's folder; made at the first call, and whole or not at all. tensors() runs in a child: see in_child."""
    folder = Path(folder)
    if not folder.exists():
        print(f"making {folder.name} ...", file=sys.stderr, flush=True)
        part = folder.with_name(folder.name + ".making")
        in_child(lambda: write_model(part, tensors(), shards, data, config))
        os.sync()
        part.rename(folder)
    return folder


def fill_holes(path):
    """Numbers where a file has holes: what was written as zeros takes disk and time to read then, as other values do."""
    block = random_block()
    with open(path, "r+b") as file:
        end, at = os.fstat(file.fileno()).st_size, 0
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                data = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # no data behind
                data = end
            while at < data:
                at += os.pwrite(file.fileno(), block[:data - at], at)


def in_child(work):
    """In a process of its own: the kernel counts the memory of a process that starts another against that other's peak,
    so the one that measures must stay small."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit("a helper process failed")


def touch_memory():
    """A virtual machine's memory is slow when first used, so use some of it before measuring."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = min(6 << 30, available // 2) // mmap.PAGESIZE * mmap.PAGESIZE
    memory = mmap.mmap(-1, size)
    for at in range(0, size, mmap.PAGESIZE):
        memory[at] = 1
