# SPDX-License-Identifier: Apache-2.0
"""A manifest in protobuf's JSON form, as `crossdock inspect --manifest FILE.json` writes it."""

import base64
import json

from .errors import ManifestError, printable
from .schema import ENUMS, MESSAGES, SCALARS, Manifest, Value, fields_of
from .wire import MAX_DEPTH, enum_of, plain

LIMITS = {"uint32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1), "int64": (-(2**63), 2**63 - 1)}


def from_json(text):
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"expected a manifest in JSON, found {printable(error)}: "
            "write it again with `crossdock inspect SRC --manifest FILE.json`"
        ) from None
    if not isinstance(data, dict) or not ({"schema_version", "schemaVersion"} & data.keys()):
        raise ManifestError(
            "expected a manifest in JSON, found other JSON without its schema_version: "
            "`crossdock inspect SRC --manifest FILE.json` writes one"
        )
    return read_message(Manifest, data, "the manifest", 1)


def read_message(cls, data, where, depth):
    if not isinstance(data, dict):
        raise wrong(where, "an object", data)
    if depth > MAX_DEPTH:
        raise ManifestError(f"expected messages nested at most {MAX_DEPTH} deep in the manifest's JSON, found more")
    out = cls()
    for field in fields_of(cls):
        name = field.metadata["name"] or field.name
        parts = name.split("_")
        got = data.get(name, data.get(parts[0] + "".join(map(str.capitalize, parts[1:]))))
        if got is None:  # protobuf: null is the default
            continue
        place, kind = f"{where}'s {name}" if depth == 1 else f"{where}.{name}", field.metadata["kind"]
        if field.metadata["repeated"]:
            if not isinstance(got, list):
                raise wrong(place, "a list", got)
            setattr(out, field.name, [read_one(kind, item, f"{place}[{i}]", depth) for i, item in enumerate(got)])
        else:
            setattr(out, field.name, read_one(kind, got, place, depth))
    return out


def read_one(kind, got, where, depth):
    if kind == "Value":
        return plain(read_message(Value, got, where, depth + 1))
    if kind in MESSAGES:
        return read_message(MESSAGES[kind], got, where, depth + 1)
    if kind in ENUMS:
        if isinstance(got, str) and got in ENUMS[kind].__members__:
            return ENUMS[kind][got]
        if isinstance(got, int) and not isinstance(got, bool):
            return enum_of(kind, got)
        raise wrong(where, f"a known {kind}", got)
    assert kind in SCALARS
    return {"string": read_string, "bytes": read_bytes, "bool": read_bool, "double": read_double}.get(
        kind, read_integer
    )(kind, got, where)


def read_string(_, got, where):
    if not isinstance(got, str) or any("\ud800" <= c <= "\udfff" for c in got):
        raise wrong(where, "text", got)
    return got


def read_bytes(_, got, where):
    try:
        return base64.b64decode(got, validate=True)
    except (TypeError, ValueError):
        raise wrong(where, "bytes in base64", got) from None


def read_bool(_, got, where):
    if not isinstance(got, bool):
        raise wrong(where, "true or false", got)
    return got


def read_double(_, got, where):
    if isinstance(got, (int, float)) and not isinstance(got, bool) and abs(got) < 2**1024:
        return float(got)
    if isinstance(got, float) or got in ("NaN", "Infinity", "-Infinity"):
        return float(got)
    raise wrong(where, "a number", got)


def read_integer(kind, got, where):
    """Those of 64 bits are text, for JavaScript has not so many."""
    low, high = LIMITS[kind]
    try:
        n = int(got) if isinstance(got, str) and len(got) <= 20 else got
    except ValueError:
        n = None
    if not isinstance(n, int) or isinstance(n, bool) or not low <= n <= high:
        raise wrong(where, f"an integer of {kind}", got)
    return n


def wrong(where, expected, got):
    return ManifestError(
        f"expected {expected} as {printable(where)}, found {printable(json.dumps(got, default=str), 60)}"
    )
