#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes iq_grids.h from PyPI's gguf: pip install gguf; ./make_grids.py > iq_grids.h"""
import numpy as np
from gguf import quants

print("""// The codebooks of ggml's IQ types, as codes: each word packs one entry's indexes into the type's values, the first element
// lowest. Made by make_grids.py from PyPI's gguf, whose tables are those of ggml/src/ggml-common.h (MIT licence).
#pragma once

#include <array>
#include <cstdint>

namespace crossdock::reader_gguf::grids {
""")
for name in ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"):
    cls = getattr(quants, name)
    cls.init_grid()
    n, elems = cls.grid_shape
    values = list(cls.grid_map)
    bits = 16 // elems if elems == 8 else 3
    codes = [sum(values.index(int(v)) << (bits * i) for i, v in enumerate(row)) for row in cls.grid.reshape(n, elems)]
    print(f"// {elems} elements of {bits} bits, the values {', '.join(str(v) for v in values)}")
    print(f"inline constexpr std::array<uint16_t, {n}> k{name.title().replace('_', '')} = {{")
    for i in range(0, n, 16):
        print("    " + ", ".join(f"0x{c:x}" for c in codes[i:i + 16]) + ("," if i + 16 < n else "};"))
    print()
print("}  // namespace crossdock::reader_gguf::grids")
