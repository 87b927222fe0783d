# SPDX-License-Identifier: Apache-2.0
"""Recipes of .npz files, good and hostile ones: zip archives made by hand, so that each can lie about one thing."""
import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np


def npy(array, descr=None, shape=None):
    """A .npy file; its header may tell another type or shape."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr or np.lib.format.dtype_to_descr(array.dtype),
                                               "fortran_order": False, "shape": shape or array.shape})
    return out.getvalue() + array.tobytes()


def npy_of(header, values=b""):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


def npy_of_shape(text, values=b""):
    return npy_of(b"{'descr': '<f4', 'fortran_order': False, 'shape': " + text + b", }\n", values)


def deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@dataclass
class Member:
    name: str
    data: bytes
    is_deflated: bool = True
    packed: bytes = None  # what is written; else what data makes
    size: int = None  # what the directory tells, and the CRC
    crc: int = None
    flags: int = 0
    method: int = None
    local_name: str = None  # what its own header tells
    offset: int = None  # where the directory says that it is

    def __post_init__(self):
        if self.packed is None:
            self.packed = deflate(self.data) if self.is_deflated else self.data
        self.size = len(self.data) if self.size is None else self.size
        self.crc = zlib.crc32(self.data) if self.crc is None else self.crc
        self.method = (8 if self.is_deflated else 0) if self.method is None else self.method

    def _common(self, name):
        return struct.pack("<HHHHHIIIHH", 20, self.flags, self.method, 0, 33, self.crc, len(self.packed),
                           self.size & 0xffffffff, len(name), 0)

    def local(self):
        name = (self.local_name or self.name).encode()
        return b"PK\3\4" + self._common(name) + name + self.packed

    def entry(self, offset):
        name = self.name.encode()
        offset = self.offset if self.offset is not None else offset
        return b"PK\1\2\x14\0" + self._common(name) + struct.pack("<HHHII", 0, 0, 0, 0, offset) + name


def archive(*members, count=None, moved=0, inside=()):
    """`inside`: (member, offset) that the directory lists too, in bytes that are there already."""
    body, directory = b"", b""
    for member in members:
        directory += member.entry(len(body))
        body += member.local()
    for member, offset in inside:
        directory += member.entry(offset)
    count = len(members) + len(inside) if count is None else count
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(directory), len(body) + moved, 0)
    return body + directory + end


@dataclass
class Case:
    name: str
    data: bytes
    sentence: str

    def __str__(self):
        return self.name


VALUES = np.arange(1000, dtype=np.int32) % 50
GOOD = npy(VALUES)
FLAWLESS = archive(Member("w.npy", GOOD))


def one(*args, **kwargs):
    return archive(Member("w.npy", *args, **kwargs))


def overlapping():
    inner = Member("b.npy", npy(np.ones(3)), is_deflated=False)
    outer = Member("a.npy", npy(np.frombuffer(inner.local(), np.uint8)), is_deflated=False)
    return archive(outer, inside=[(inner, len(outer.local()) - len(inner.local()))])


def zip64_elsewhere():
    end = FLAWLESS.rindex(b"PK\5\6")
    return FLAWLESS[:end] + struct.pack("<4sIQI", b"PK\6\7", 0, 1 << 60, 1) + FLAWLESS[end:]


def broken_deflate():
    packed = bytearray(deflate(GOOD))
    packed[:1] = b"\x07"  # a block of the type that does not exist
    return one(GOOD, packed=bytes(packed))


HOSTILE = [
    # the archive
    Case("text", b"this is no archive at all\n" * 9, "found no such end"),
    Case("empty", b"", "found no such end"),
    Case("cut at the end", FLAWLESS[:-9], "the file is cut off, or is no .npz"),
    Case("cut in the middle", FLAWLESS[:200], "the file is cut off, or is no .npz"),
    Case("cut in front", FLAWLESS[20:], "something was cut off or put in front"),
    Case("directory elsewhere", archive(Member("w.npy", GOOD), moved=5), "expected the zip directory to end at"),
    Case("fewer members", archive(Member("w.npy", GOOD), count=2),
         "expected as many members in the directory as its end says"),
    Case("more members", archive(Member("w.npy", GOOD), Member("v.npy", GOOD), count=1), "found bytes behind them"),
    Case("zip64 elsewhere", zip64_elsewhere(), "expected the zip64 end record inside the file"),
    Case("member elsewhere", one(GOOD, offset=1 << 30), "expected its header before the directory"),
    Case("other header", one(GOOD, local_name="v.npy"), "to tell the same as the directory, found another"),
    Case("overlap", overlapping(), "b.npy: expected members that lie apart, found it to overlap a.npy"),
    Case("twice", archive(Member("w.npy", GOOD), Member("w.npy", GOOD)), "expected each member once, found it twice"),
    Case("NUL in a name", archive(Member("w\0.npy", GOOD)),
         "expected names of members without NUL, found one after \"w\""),
    Case("encrypted", one(GOOD, flags=1), "expected plain bytes, found encrypted ones"),
    Case("bzip2", one(GOOD, method=12), "expected a member stored or deflated, found method 12"),
    Case("stored in two sizes", one(GOOD, is_deflated=False, size=len(GOOD) + 8), "as many bytes stored as unpacked"),
    # deflated bytes
    Case("bomb", one(npy(VALUES, shape=(1 << 29,)), size=(1 << 31) + 128), "this is no honest archive"),
    Case("inflates to more", one(GOOD, packed=deflate(GOOD + bytes(1 << 20))), "when it is inflated, found more"),
    Case("inflates to fewer", one(GOOD, packed=deflate(GOOD[:-8])),
         f"expected {len(GOOD)} bytes when it is inflated, found {len(GOOD) - 8}"),
    Case("deflated bytes cut", one(GOOD, packed=deflate(GOOD)[:-6]),
         "expected the deflated bytes to go on, found their end"),
    Case("deflated bytes and more", one(GOOD, packed=deflate(GOOD) + b"more"), "expected the deflated bytes to end at"),
    Case("no deflate", broken_deflate(), "expected deflated bytes, found invalid block type"),
    Case("CRC", one(GOOD, crc=1), "expected its bytes to have the CRC of the directory"),
    Case("CRC of a stored one", one(GOOD, is_deflated=False, crc=1),
         "expected its bytes to have the CRC of the directory"),
    Case("CRC of an empty one", one(npy(np.zeros((0, 2))), crc=1),
         "expected its bytes to have the CRC of the directory"),
    # .npy
    Case("no npy", one(b"not numpy's\n" * 9), "expected a .npy file, found another"),
    Case("short npy", one(GOOD[:9]), "expected the length of the .npy header, found the end"),
    Case("npy cut in its header", one(GOOD[:50]), "expected a .npy header of 128 bytes, found 50"),
    Case("npy of version 9", one(GOOD[:6] + b"\x09" + GOOD[7:]), "expected version 1.0, 2.0 or 3.0 of .npy, found 9.0"),
    Case("npy of a long header", one(b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30) + bytes(99)),
         "expected a .npy header of at most 65536 bytes"),
    Case("larger shape", one(npy(VALUES, shape=(1001,))),
         "expected 4004 bytes of values by its .npy header, found 4000"),
    Case("smaller shape", one(npy(VALUES, shape=(9,))), "expected 36 bytes of values by its .npy header, found 4000"),
    Case("endless shape", one(npy(VALUES, shape=(1 << 40, 1 << 40))), "expected an array below 2^64 bytes"),
    Case("shape of 65 bits", one(npy_of_shape(b"(36893488147419103232,)")),
         "found something else"),
    Case("negative shape", one(npy_of_shape(b"(-1,)")),
         "found something else"),
    Case("shape that is no tuple", one(npy_of_shape(b"(1)", bytes(4))),
         "found something else"),
    Case("key twice", one(npy_of(b"{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (), }\n")),
         "found something else"),
    Case("key missing", one(npy_of(b"{'descr': '<f4', 'shape': (), }\n", bytes(4))), "found something else"),
    Case("code", one(npy_of(b"__import__('os').getcwd()\n")), "found something else"),
    Case("objects", one(npy(VALUES, descr="|O")), "found an array of Python objects, which is pickled"),
    Case("records", one(npy(np.zeros(3, [("a", "<f4"), ("b", "<i4")]))), "found records of several fields"),
    Case("text values", one(npy(np.array(["abc"]))), "expected a type of numbers such as <f4, found <U3"),
    Case("dates", one(npy(np.zeros(3, "<M8[s]"))), "expected a type of numbers such as <f4, found <M8[s]"),
    Case("void", one(npy(np.zeros(3, "V2"))), "expected a type of numbers such as <f4, found |V2"),
]
