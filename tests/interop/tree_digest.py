# SPDX-License-Identifier: Apache-2.0
"""The tree digest of core/io/tree_digest.h by its definition: recursion from the root, and the system's libxxhash.

    python tests/interop/tree_digest.py      # prints the vectors of tests/unit/core_tree_digest_test.cc
"""
import ctypes

LEAF = 4096


class _Xxh128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


_xxh3 = ctypes.CDLL("libxxhash.so.0").XXH3_128bits
_xxh3.restype, _xxh3.argtypes = _Xxh128, [ctypes.c_char_p, ctypes.c_size_t]


def xxh3_128(data):
    value = _xxh3(data, len(data))
    return value.high.to_bytes(8, "big") + value.low.to_bytes(8, "big")


def subtree(data):
    if len(data) <= LEAF:
        return xxh3_128(data)
    leaves = -(-len(data) // LEAF)
    left = 1 << (leaves - 1).bit_length() - 1  # the largest power of two below
    return xxh3_128(subtree(data[:left * LEAF]) + subtree(data[left * LEAF:]))


def tree_digest(data):
    """The digest of bytes, in the report's spelling."""
    return "tree:" + xxh3_128(subtree(data) + len(data).to_bytes(8, "little")).hex()


if __name__ == "__main__":
    for n in (0, 1, 255, 4095, 4096, 4097, 8191, 8192, 8193, 12288, 20480, 28673, 65536, 100000, 1048576, 3000001):
        print(f'    {{{n}, "{tree_digest(bytes((i * 7 + i // 251) % 256 for i in range(n)))}"}},')
