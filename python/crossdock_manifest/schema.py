# SPDX-License-Identifier: Apache-2.0
"""The manifest as Python classes: one for each message of manifest.proto, which comments every field.

Each field says its number and its type, so that the readers of both forms (wire.py, json_form.py) and the text of the
schema (`python -m crossdock_manifest schema`) come from here; a test has protoc compare that text with manifest.proto.
A Value is a plain Python object: None, bool, int, float, str, bytes, list or dict.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from .enums import AuxKind, DType, Pattern, Role, Training

SCHEMA_VERSION = 1


def one(number, kind, oneof=None, name=None):
    """A field of one value. kind: a scalar type of protobuf, an enum or a message by its name."""
    default = {"string": "", "bytes": b"", "Value": None}.get(kind, 0)
    meta = {"number": number, "kind": kind, "repeated": False, "oneof": oneof, "name": name}
    if oneof:
        return field(default=None, metadata=meta)
    if kind in ENUMS:
        return field(default=ENUMS[kind](0), metadata=meta)
    if kind in SCALARS or kind == "Value":
        return field(default=default, metadata=meta)
    return field(default_factory=lambda: MESSAGES[kind](), metadata=meta)


def many(number, kind):
    return field(
        default_factory=list, metadata={"number": number, "kind": kind, "repeated": True, "oneof": None, "name": None}
    )


SCALARS = {"uint32", "uint64", "int64", "bool", "double", "string", "bytes"}
ENUMS = {e.__name__: e for e in (DType, Role, Training, Pattern, AuxKind)}


@dataclass
class ModuleName:
    name: str = one(1, "string")
    tensor: int = one(2, "uint64")


@dataclass
class File:
    name: str = one(1, "string")
    size: int = one(2, "uint64")
    digest: str = one(3, "string")
    path: str = one(4, "string")


@dataclass
class KeyValue:
    key: str = one(1, "string")
    value: object = one(2, "Value")


@dataclass
class Source:
    format: str = one(1, "string")
    files: list[File] = many(2, "File")
    metadata: list[KeyValue] = many(3, "KeyValue")
    config: object = one(4, "Value")


@dataclass
class Value:
    """Only how it is stored: readers hand out the plain object that it holds."""

    null_value: bool = one(1, "bool", "kind")
    bool_value: bool = one(2, "bool", "kind")
    int_value: int = one(3, "int64", "kind")
    uint_value: int = one(4, "uint64", "kind")
    double_value: float = one(5, "double", "kind")
    string_value: str = one(6, "string", "kind")
    bytes_value: bytes = one(7, "bytes", "kind")
    list_value: "ValueList" = one(8, "ValueList", "kind")
    map_value: "ValueMap" = one(9, "ValueMap", "kind")


@dataclass
class ValueList:
    values: list = many(1, "Value")


@dataclass
class ValueMap:
    entries: list[KeyValue] = many(1, "KeyValue")


@dataclass
class Extent:
    file: int = one(1, "uint32")
    offset: int = one(2, "uint64")
    length: int = one(3, "uint64")


@dataclass
class Parallel:
    pattern: Pattern = one(1, "Pattern")
    dim: int = one(2, "uint32")
    sub_sizes: list[int] = many(3, "uint64")
    experts: int = one(4, "uint64")


@dataclass
class Tensor:
    name: str = one(1, "string")
    dtype: DType = one(2, "DType")
    shape: list[int] = many(3, "uint64")
    extents: list[Extent] = many(4, "Extent")
    encoding: str = one(5, "string")
    strides: list[int] = many(6, "int64")
    storage_offset: int = one(7, "uint64")
    role: Role = one(8, "Role")
    train: Training = one(9, "Training")
    parallel: Parallel = one(10, "Parallel")
    excluded: str = one(11, "string")
    target_name: str = one(12, "string")
    expression: str = one(13, "string")
    storage_elements: int = one(14, "uint64")

    @property
    def target(self):
        """The name in the target model, as manifest_wire.hpp calls it: of codes that of their weight."""
        return self.target_name or self.name

    @property
    def elements(self):
        n = 1
        for size in self.shape:
            n *= size
        return n

    @property
    def value_bytes(self):
        """Of its values, dense; what the source stores may be less or more."""
        return (self.elements * self.dtype.bits + 7) // 8

    @property
    def is_parameter(self):
        return self.role == Role.PARAMETER or (self.role == Role.ROLE_UNSPECIFIED and self.dtype.is_float)


@dataclass
class AliasGroup:
    tensors: list[int] = many(1, "uint64")


@dataclass
class ParameterGroup:
    tensors: list[int] = many(1, "uint64")
    hyper_parameters: list[KeyValue] = many(2, "KeyValue")


@dataclass
class Moment:
    kind: str = one(1, "string")
    parameter: int = one(2, "uint64")
    state: int = one(3, "uint64")


@dataclass
class TrainingState:
    step: int = one(1, "uint64")
    optimizer: str = one(2, "string")
    groups: list[ParameterGroup] = many(3, "ParameterGroup")
    moments: list[Moment] = many(4, "Moment")


@dataclass
class AuxFile:
    kind: AuxKind = one(1, "AuxKind")
    name: str = one(2, "string")
    source: str = one(3, "string", "content")
    content: bytes = one(4, "bytes", "content", name="bytes")


@dataclass
class Provenance:
    tool: str = one(1, "string")
    plugin: str = one(2, "string")
    input: str = one(3, "string")


@dataclass
class Manifest:
    schema_version: int = one(1, "uint32")
    source: Source = one(2, "Source")
    tensors: list[Tensor] = many(3, "Tensor")
    alias_groups: list[AliasGroup] = many(4, "AliasGroup")
    training: TrainingState = one(5, "TrainingState")
    aux_files: list[AuxFile] = many(6, "AuxFile")
    provenance: list[Provenance] = many(7, "Provenance")
    module: list[ModuleName] = many(8, "ModuleName")
    # Not of the message: where files are looked for instead of what it says (load's root), and where it lay itself.
    root: str | None = field(default=None, compare=False, repr=False)
    folder: str | None = field(default=None, compare=False, repr=False)

    def __getitem__(self, name):
        """The tensor of that name; KeyError."""
        if len(self._by_name) != len(self.tensors):
            self._by_name = {tensor.name: tensor for tensor in self.tensors}
        return self._by_name[name]

    def __contains__(self, name):
        return any(tensor.name == name for tensor in self.tensors)

    def __post_init__(self):
        self._by_name = {}

    @property
    def names(self):
        return [tensor.name for tensor in self.tensors]

    @property
    def config(self):
        """config.json, or None."""
        return self.source.config

    def numpy(self, name, raw=False):
        """A read-only map of the tensor's bytes in the source's file: see arrays.numpy."""
        from .arrays import numpy

        return numpy(self, name, raw)


# In manifest.proto's order.
MESSAGES = {
    m.__name__: m
    for m in (
        Manifest,
        ModuleName,
        Source,
        File,
        KeyValue,
        Value,
        ValueList,
        ValueMap,
        Tensor,
        Extent,
        Parallel,
        AliasGroup,
        TrainingState,
        ParameterGroup,
        Moment,
        AuxFile,
        Provenance,
    )
}


def fields_of(message):
    """The fields of a message's class that are protobuf's."""
    return [f for f in fields(message) if "number" in f.metadata]


def proto_text():
    """The schema in protobuf's language."""
    lines = ['syntax = "proto3";', "", "package crossdock.manifest.v1;"]
    for enum in ENUMS.values():
        lines += ["", f"enum {enum.__name__} {{", *(f"  {e.name} = {e.value};" for e in enum), "}"]
    for name, message in MESSAGES.items():
        lines += ["", f"message {name} {{"]
        oneof = None
        for f in fields_of(message):
            meta = f.metadata
            if meta["oneof"] != oneof:
                lines.append(f"  oneof {meta['oneof']} {{" if meta["oneof"] else "  }")
                oneof = meta["oneof"]
            indent, repeated = "    " if oneof else "  ", "repeated " if meta["repeated"] else ""
            lines.append(f"{indent}{repeated}{meta['kind']} {meta['name'] or f.name} = {meta['number']};")
        lines += ["  }", "}"] if oneof else ["}"]
    return "\n".join(lines) + "\n"
