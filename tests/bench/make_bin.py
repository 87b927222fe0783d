#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_bin.py SRC DST: the safetensors shards of SRC as pytorch_model-*.bin with an index. Needs torch and safetensors."""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

source, target = map(Path, sys.argv[1:])
target.mkdir(parents=True, exist_ok=True)
shards, weight_map, total = sorted(source.glob("*.safetensors")), {}, 0
for i, shard in enumerate(shards):
    tensors = load_file(shard)
    name = f"pytorch_model-{i + 1:05d}-of-{len(shards):05d}.bin"
    torch.save(tensors, target / name)
    weight_map.update(dict.fromkeys(tensors, name))
    total += sum(t.nbytes for t in tensors.values())
(target / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
for file in source.glob("*.json"):
    if not file.name.endswith(".index.json"):
        (target / file.name).write_bytes(file.read_bytes())
