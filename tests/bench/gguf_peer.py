# SPDX-License-Identifier: Apache-2.0
"""gguf-py's dequantize: float32 output per type on one thread, "NAME GB/s" per line."""
import time

import numpy as np
from gguf import GGML_QUANT_SIZES, quants

np.seterr(all="ignore")
for qtype in quants._type_traits:
    block, size = GGML_QUANT_SIZES[qtype]
    blocks = np.random.default_rng(1).integers(0, 256, (1 << 20) // block * size, dtype=np.uint8).reshape(64, -1)
    best = 1e9
    for _ in range(4):
        begin = time.perf_counter()
        out = quants.dequantize(blocks, qtype)
        best = min(best, time.perf_counter() - begin)
    print(f"{qtype.name} {out.size * 4 / best / 1e9:.3f}")
