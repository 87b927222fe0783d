# SPDX-License-Identifier: Apache-2.0
"""naive_peer.py SRC DST: what a user's script does today, for bench.py --peer: one tensor after the other through
torch, in fp32, and the zeros of both moments written out. Needs torch alone."""
import json
import struct
import sys
from pathlib import Path

import torch

source, target = Path(sys.argv[1]), Path(sys.argv[2])
for shard in sorted(source.glob("*.safetensors")):
    with open(shard, "rb") as file:
        n = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(n))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            file.seek(8 + n + begin)
            data = bytearray(file.read(end - begin))
            tensor = torch.frombuffer(data, dtype=torch.bfloat16).reshape(entry["shape"]).float()
            folder = target / "global_step0/zero" / name
            folder.mkdir(parents=True)
            torch.save({"param": tensor, "cat_dim": 0}, folder / "fp32.pt")
            for moment in "exp_avg", "exp_avg_sq":
                torch.save({"param": torch.zeros_like(tensor), "cat_dim": 0}, folder / f"{moment}.pt")
            torch.save(torch.tensor(0.0), folder / "step.pt")
