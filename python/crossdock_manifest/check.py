# SPDX-License-Identifier: Apache-2.0
"""Whether a manifest keeps its promises, as core/model/check does for what readers say: it may come from anyone."""

from .errors import ManifestError, printable
from .schema import SCHEMA_VERSION, DType

MAX_ELEMENTS = 1 << 56
MAX_RANK = 64  # numpy's own


def check(manifest):
    if not 0 < manifest.schema_version <= SCHEMA_VERSION:
        raise ManifestError(
            f"expected manifest version {SCHEMA_VERSION}, found {manifest.schema_version}: use the crossdock_manifest "
            "that comes with the crossdock that wrote it"
        )
    for file in manifest.source.files:
        check_name(file.name)
    seen = set()
    for tensor in manifest.tensors:
        name = printable(tensor.name)
        if tensor.name in seen:
            raise ManifestError(f'expected each tensor once, found "{name}" twice')
        seen.add(tensor.name)
        try:
            check_tensor(tensor, manifest.source.files)
        except ManifestError as error:
            raise ManifestError(f'tensor "{name}": {error}') from None
    check_indexes(manifest)


def check_name(name):
    """A file's name is relative and stays in its folder, whatever it is joined to."""
    parts = name.split("/")
    if not name or "\0" in name or name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise ManifestError(f'expected a relative name of a file without "..", found "{printable(name)}"')


def check_tensor(tensor, files):
    if tensor.dtype == DType.DTYPE_UNSPECIFIED:
        raise ManifestError("expected an element type, found none")
    if len(tensor.shape) > MAX_RANK:
        raise ManifestError(f"expected at most {MAX_RANK} dimensions, found {len(tensor.shape)}")
    sizes = 1
    for size in tensor.shape:  # zeros do not hide the others: numpy computes strides of them
        sizes *= max(size, 1)
        if sizes > MAX_ELEMENTS:
            raise ManifestError("expected a shape of at most 2^56 elements, found more")
    stored = 0
    for extent in tensor.extents:
        if extent.file >= len(files):
            raise ManifestError(f"expected one of {len(files)} files, found number {extent.file}")
        file = files[extent.file]
        if extent.offset + extent.length > file.size:
            raise ManifestError(
                f"expected bytes inside {printable(file.name)} of {file.size} bytes, "
                f"found {extent.length} at {extent.offset}"
            )
        stored += extent.length
    if tensor.strides:
        check_strides(tensor, stored)
    elif tensor.extents and not tensor.encoding and not tensor.expression and tensor.value_bytes > stored:
        raise ManifestError(f"expected {tensor.value_bytes} bytes of values, found {stored}")


def check_strides(tensor, stored):
    if len(tensor.strides) != len(tensor.shape) or min(tensor.strides, default=0) < 0:
        raise ManifestError(f"expected {len(tensor.shape)} strides of 0 or more, found {tensor.strides[:8]}")
    if tensor.dtype.bits % 8 or (not tensor.encoding and tensor.storage_elements * tensor.dtype.bits // 8 > stored):
        raise ManifestError(
            f"expected a storage inside its {stored} bytes, found {tensor.storage_elements} elements "
            f"of {tensor.dtype.name}"
        )
    last = tensor.storage_offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides))
    if tensor.elements and last >= tensor.storage_elements:
        raise ManifestError(
            f"expected a view inside its storage of {tensor.storage_elements} elements, found element {last}"
        )


def check_indexes(manifest):
    """Of tensors, where other messages name them."""
    training = manifest.training
    indexes = [("an alias group", i) for group in manifest.alias_groups for i in group.tensors]
    indexes += [("the module", entry.tensor) for entry in manifest.module]
    indexes += [("a parameter group", i) for group in training.groups for i in group.tensors]
    indexes += [("a moment", i) for moment in training.moments for i in (moment.parameter, moment.state)]
    for what, index in indexes:
        if index >= len(manifest.tensors):
            raise ManifestError(f"expected a tensor of {what} below {len(manifest.tensors)}, found {index}")
