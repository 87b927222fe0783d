# SPDX-License-Identifier: Apache-2.0
"""Protobuf's wire form, written and read without protobuf: describe() runs in a job that may not have it."""

import struct
from enum import IntEnum
from numbers import Number

from .errors import ManifestError, printable

MAX_DEPTH = 100  # nested messages; libprotobuf's own default


# ---- writing
def varint(n):
    n &= (1 << 64) - 1  # negative integers take ten bytes
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def number(field, n):
    return varint(field << 3) + varint(n) if n else b""


def message(field, body):
    return varint(field << 3 | 2) + varint(len(body)) + body


def text(field, s):
    return message(field, s.encode())


def numbers(field, values):
    return message(field, b"".join(map(varint, values))) if values else b""


def value(v):
    """The Value message of a hyper-parameter: None, a bool, a number, a string or a list of these."""
    if v is None:
        return varint(1 << 3) + b"\0"
    if isinstance(v, bool):
        return varint(2 << 3) + varint(v)
    if isinstance(v, int):
        return varint(3 << 3) + varint(v)
    if isinstance(v, Number):
        return varint(5 << 3 | 1) + struct.pack("<d", v)
    if isinstance(v, str):
        return text(6, v)
    if isinstance(v, (list, tuple)):
        return message(8, b"".join(message(1, value(item)) for item in v))
    raise TypeError(f"expected None, a bool, a number, a string or a list of them, found {type(v).__name__}")


# ---- reading
class Cursor:
    """A place in bytes that cannot leave them."""

    def __init__(self, data, at, end):
        self.data, self.at, self.end = data, at, end

    def broken(self, what="a broken field"):
        return ManifestError(
            f"expected a manifest in protobuf's form, found {what} near byte {self.at} of {len(self.data)}: "
            "write it again with `crossdock inspect SRC --manifest FILE`"
        )

    def varint(self):
        n = 0
        for shift in range(0, 70, 7):
            if self.at >= self.end:
                raise self.broken("its end in the middle of a number")
            byte = self.data[self.at]
            self.at += 1
            n |= (byte & 0x7F) << shift
            if byte < 0x80:
                return n & (1 << 64) - 1
        raise self.broken("a number of more than ten bytes")

    def take(self, n):
        if n > self.end - self.at:
            raise self.broken(f"a field of {n} bytes where {self.end - self.at} are left")
        self.at += n
        return self.data[self.at - n : self.at]

    def body(self):
        """The bytes of a field that has a length, as a place of their own."""
        n = self.varint()
        start = self.at
        self.take(n)
        return Cursor(self.data, start, self.at)


VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
TYPE_OF = {"double": FIXED64, "string": LENGTH, "bytes": LENGTH}  # of others: numbers and enums VARINT, messages LENGTH


def decode(cls, data):
    """The message of a class of schema.py; fields that it does not know are skipped, as protobuf does."""
    return read_message(cls, Cursor(bytes(data), 0, len(data)), 1)


def table(cls):
    """{number: field} of a class, made once."""
    if cls not in TABLES:
        from .schema import fields_of

        TABLES[cls] = {f.metadata["number"]: f for f in fields_of(cls)}
    return TABLES[cls]


TABLES = {}


def read_message(cls, cursor, depth, into=None):
    if depth > MAX_DEPTH:
        raise cursor.broken(f"messages nested deeper than {MAX_DEPTH}")
    out = cls() if into is None else into
    known = table(cls)
    while cursor.at < cursor.end:
        tag = cursor.varint()
        field, wire_type = known.get(tag >> 3), tag & 7
        if tag >> 3 == 0 or tag >= 1 << 32:
            raise cursor.broken("a field's number that is none")
        if field is None or not read_field(out, field, cursor, wire_type, depth):
            skip(cursor, wire_type)
    return out


def read_field(out, field, cursor, wire_type, depth):
    """False: the wire type is not the field's, so it is skipped, as protobuf does."""
    from .schema import ENUMS, MESSAGES, SCALARS

    meta, kind = field.metadata, field.metadata["kind"]
    is_number = kind in ENUMS or (kind in SCALARS and kind not in TYPE_OF)
    if meta["repeated"] and is_number and wire_type == LENGTH:  # packed
        packed = cursor.body()
        values = getattr(out, field.name)
        while packed.at < packed.end:
            values.append(number_of(kind, packed.varint()))
        return True
    if wire_type != TYPE_OF.get(kind, VARINT if is_number else LENGTH):
        return False
    if is_number:
        got = number_of(kind, cursor.varint())
    elif kind == "double":
        got = struct.unpack("<d", cursor.take(8))[0]
    elif kind == "bytes":
        got = cursor.body()
        got = got.data[got.at : got.end]
    elif kind == "string":
        body = cursor.body()
        try:
            got = body.data[body.at : body.end].decode()
        except UnicodeDecodeError:
            raise body.broken("text that is not UTF-8") from None
    elif kind == "Value":
        got = read_value(cursor.body(), depth + 1)
    else:  # a message that comes in pieces is one
        into = None if meta["repeated"] else getattr(out, field.name)
        got = read_message(MESSAGES[kind], cursor.body(), depth + 1, into)
    if meta["repeated"]:
        getattr(out, field.name).append(got)
        return True
    if meta["oneof"]:
        for other in table(type(out)).values():
            if other.metadata["oneof"] == meta["oneof"]:
                setattr(out, other.name, None)
    setattr(out, field.name, got)
    return True


def read_value(cursor, depth):
    """The plain object that a Value holds; None when it holds nothing."""
    from .schema import Value

    return plain(read_message(Value, cursor, depth))


def plain(held):
    """Of a Value message."""
    if held.list_value is not None:
        return held.list_value.values
    if held.map_value is not None:
        return {entry.key: entry.value for entry in held.map_value.entries}
    for name in ("bool_value", "int_value", "uint_value", "double_value", "string_value", "bytes_value"):
        if getattr(held, name) is not None:
            return getattr(held, name)
    return None


def number_of(kind, n):
    from .schema import ENUMS

    if kind in ENUMS:
        return enum_of(kind, n if n < 1 << 31 else n - (1 << 64))
    if kind == "bool":
        return n != 0
    if kind == "uint32":
        return n & 0xFFFFFFFF
    return n - (1 << 64) if kind == "int64" and n >= 1 << 63 else n


def enum_of(kind, n) -> IntEnum:
    from .schema import ENUMS

    try:
        return ENUMS[kind](n)
    except ValueError:
        raise ManifestError(
            f"expected a known {kind}, found number {printable(n)}: the manifest is of a newer crossdock, or damaged"
        ) from None


def skip(cursor, wire_type):
    if wire_type == VARINT:
        cursor.varint()
    elif wire_type == FIXED64:
        cursor.take(8)
    elif wire_type == LENGTH:
        cursor.body()
    elif wire_type == FIXED32:
        cursor.take(4)
    else:
        raise cursor.broken("a field of a type that proto3 has not")
