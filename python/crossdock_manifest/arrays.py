# SPDX-License-Identifier: Apache-2.0
"""A tensor's values as a numpy array that maps the source's own file: nothing is copied, unused bytes are not read."""

import os
import re
import stat
from dataclasses import replace
from pathlib import Path

from .check import check_name, check_strides
from .errors import ManifestError, printable
from .schema import DType

NUMPY = {
    DType.BOOL: "?",
    DType.U8: "u1",
    DType.I8: "i1",
    DType.U16: "<u2",
    DType.I16: "<i2",
    DType.U32: "<u4",
    DType.I32: "<i4",
    DType.U64: "<u8",
    DType.I64: "<i8",
    DType.F16: "<f2",
    DType.F32: "<f4",
    DType.F64: "<f8",
    DType.C64: "<c8",
    DType.C128: "<c16",
}
# Types that the package ml_dtypes adds to numpy.
ML_DTYPES = {
    DType.BF16: "bfloat16",
    DType.F8_E4M3: "float8_e4m3fn",
    DType.F8_E5M2: "float8_e5m2",
    DType.F8_E4M3FNUZ: "float8_e4m3fnuz",
    DType.F8_E5M2FNUZ: "float8_e5m2fnuz",
    DType.F8_E8M0: "float8_e8m0fnu",
}
# How the host tells that a tensor is a view of its own storage: "strided([20, 1], 3, name)".
STRIDED = re.compile(r"strided\(\[([0-9, ]*)\](?:, ([0-9]{1,19}))?, (.*)\)", re.DOTALL)
BITS = {8: "u1", 16: "<u2", 32: "<u4", 64: "<u8"}


def numpy(manifest, name, raw=False):
    """The values of a tensor, read-only, in its shape and strides.

    BF16 and the F8 types are ml_dtypes' where it can be imported, else unsigned integers of the same bits, of which
    torch.from_numpy(x.copy()).view(torch.bfloat16) makes values. raw=True: always these integers; of what is not stored
    as plain elements the stored bytes, in one dimension.

    The map is the file itself: when another process changes or cuts it, so do the values.
    """
    try:
        tensor = manifest[name]
    except KeyError:
        raise ManifestError(f'expected a tensor of the manifest, found no "{printable(name)}"') from None
    try:
        return view_of(manifest, tensor, raw)
    except ValueError as error:  # numpy's own too: shapes that it has no room for
        raise ManifestError(f'tensor "{printable(name)}": {error}') from None


def view_of(manifest, tensor, raw):
    import numpy as np

    tensor = with_strides(tensor)
    hint = "`crossdock convert SRC DST --to safetensors` writes its values, and a manifest of DST reads them"
    if tensor.expression:
        raise ManifestError(
            "expected values that are stored as they are, found them to be made of others, "
            f"{printable(tensor.expression)}: {hint}"
        )
    if not tensor.extents and tensor.elements:
        raise ManifestError("expected the place of its bytes, found none: a description of a module has no values")
    if raw and (tensor.encoding or tensor.dtype.bits % 8):
        return stored(manifest, tensor, hint)
    if tensor.encoding:
        raise ManifestError(
            f'expected plain elements, found the encoding "{printable(tensor.encoding)}" '
            f"(raw=True gives the stored bytes): {hint}"
        )
    if tensor.dtype.bits % 8:
        raise ManifestError(
            f"expected elements of whole bytes, found {tensor.dtype.name} (raw=True gives the stored bytes)"
        )
    dtype = np.dtype(numpy_type(tensor.dtype, raw))
    if not tensor.elements:
        empty = np.empty(tensor.shape, dtype)
        empty.flags.writeable = False
        return empty
    bytes_ = stored(manifest, tensor, hint)
    if not tensor.strides and not tensor.storage_elements:
        if bytes_.size != tensor.value_bytes:
            raise ManifestError(
                f"expected {tensor.value_bytes} stored bytes for its values, found {bytes_.size}, "
                f"which its reader makes into {tensor.dtype.name}: {hint}"
            )
        return bytes_.view(dtype).reshape(tensor.shape)
    storage = bytes_[: tensor.storage_elements * dtype.itemsize].view(dtype)[tensor.storage_offset :]
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage, tensor.shape, strides, subok=True, writeable=False)


def with_strides(tensor):
    """A tensor whose expression only says how it lies in its storage, with that as strides; others as they are."""
    found = STRIDED.fullmatch(tensor.expression)
    if not found or found[3] != tensor.name or tensor.dtype.bits % 8:
        return tensor
    stored_bytes = sum(extent.length for extent in tensor.extents)
    strides = [int(n) for n in found[1].split(",") if n.strip()]
    out = replace(
        tensor,
        expression="",
        strides=strides,
        storage_offset=int(found[2] or 0),
        storage_elements=stored_bytes * 8 // tensor.dtype.bits,
    )
    check_strides(out, stored_bytes)
    return out


def numpy_type(dtype, raw):
    if not raw and dtype in NUMPY:
        return NUMPY[dtype]
    if not raw and dtype in ML_DTYPES:
        try:
            import ml_dtypes

            return getattr(ml_dtypes, ML_DTYPES[dtype])
        except (ImportError, AttributeError):  # none, or one that is older than the type
            pass
    if dtype.bits not in BITS:
        raise ManifestError(f"expected elements that an integer can hold, found {dtype.name}")
    if not raw and dtype == DType.C32:
        raise ManifestError("expected a type that numpy has, found C32 (raw=True gives its bits)")
    return BITS[dtype.bits]


def stored(manifest, tensor, hint):
    """The bytes of its extents, which must lie side by side: how pieces make a tensor only their reader knows."""
    import numpy as np

    first = tensor.extents[0]
    end = first.offset
    for extent in tensor.extents:
        if extent.file != first.file or extent.offset != end:
            raise ManifestError(
                f"expected its bytes in one piece, found {len(tensor.extents)} pieces in the source's files: {hint}"
            )
        end += extent.length
    if end == first.offset:
        return np.empty(0, np.uint8)
    with open_file(manifest, manifest.source.files[first.file]) as file:
        return np.memmap(file, np.uint8, "r", first.offset, (end - first.offset,))


def open_file(manifest, file):
    """A file of the source, in the size that the manifest says."""
    path = place_of(manifest, file)
    name = printable(path, 500)
    try:
        # O_NONBLOCK: a pipe in the file's place must not block us; the check below refuses it.
        opened = open(path, "rb", opener=lambda p, flags: os.open(p, flags | getattr(os, "O_NONBLOCK", 0)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(
            f"expected the source's file at {name}, found that it cannot be read ({reason}): "
            "name the folder where it lies now with root"
        ) from None
    status = os.fstat(opened.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
        opened.close()
        found = f"one of {status.st_size} bytes" if stat.S_ISREG(status.st_mode) else "something else"
        raise ManifestError(
            f"expected a file of {file.size} bytes at {name}, found {found}: "
            "inspect the source again, or name the folder where it lies now with root"
        )
    return opened


def place_of(manifest, file):
    """The user's root, what the manifest says, or the manifest's own folder."""
    check_name(file.name)
    if manifest.root is not None:
        return Path(manifest.root, file.name)
    if not file.path:
        if manifest.folder is None:
            raise ManifestError(
                "expected a manifest that says where its files are, found none: name their folder with root"
            )
        return Path(manifest.folder, file.name)
    if not file.path.startswith("/") or ".." in file.path.split("/") or "\0" in file.path:
        raise ManifestError(
            f'expected an absolute path without "..", found "{printable(file.path)}": '
            "name the folder where it lies with root"
        )
    return Path(file.path)
