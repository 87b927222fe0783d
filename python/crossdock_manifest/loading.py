# SPDX-License-Identifier: Apache-2.0
"""Where a manifest comes from: a file of it, or a checkpoint that `crossdock inspect` reads."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

from .check import check
from .errors import ManifestError, printable
from .json_form import from_json
from .schema import Manifest
from .wire import decode

MAX_BYTES = 2 << 30  # of a manifest; protobuf's own limit


def load(path, root=None, crossdock=None, options=()):
    """The manifest of a file that `crossdock inspect SRC --manifest` wrote, or of SRC itself.

    path: NAME.pb or NAME.json is a manifest in protobuf's form or its JSON form; anything else, and NAME.index.json, is
        SRC: a checkpoint's folder, a file of it, or a Hub name.
    root: the folder of the source's files, where they are no longer where the manifest says.
    crossdock: of SRC, the command to run; else it is looked for beside this package, beside Python, and on PATH.
    options: of SRC, more of inspect's: ["--from-tag", "global_step400"].
    """
    path = os.fspath(path)
    if is_manifest(path):
        manifest = read(Path(path))
        manifest.folder = os.path.dirname(os.path.abspath(path))
    else:
        manifest = inspected(path, crossdock, options)
    manifest.root = None if root is None else os.fspath(root)
    return manifest


def is_manifest(path):
    return path.endswith((".pb", ".json")) and not path.endswith(".index.json") and not os.path.isdir(path)


def read(path):
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(
            f"expected a manifest at {printable(path)}, found that it cannot be read: {error.strerror}"
        ) from None
    if len(data) > MAX_BYTES:
        raise ManifestError(
            f"expected a manifest of at most {MAX_BYTES} bytes, found more in {printable(path)}: "
            "give the checkpoint's folder"
        )
    return parse(data, printable(path))


def parse(data, where):
    """The manifest of bytes in either form, checked."""
    try:
        if data[:1].strip() in (b"{", b"[", b""):  # JSON may begin with spaces
            try:
                text = data.decode()
            except UnicodeDecodeError:
                raise ManifestError("expected a manifest in JSON, found bytes that are no UTF-8") from None
            manifest = from_json(text)
        else:
            manifest = decode(Manifest, data)
        check(manifest)
    except ManifestError as error:
        raise ManifestError(f"{where}: {error}") from None
    return manifest


def inspected(source, crossdock, options):
    """The manifest of a checkpoint."""
    command = find_command(crossdock)
    with tempfile.TemporaryDirectory(prefix="crossdock-") as folder:
        file = Path(folder, "manifest.pb")
        source = source if not source.startswith("-") else f"./{source}"
        call = [command, "inspect", source, "--manifest", str(file), *map(os.fspath, options)]
        try:
            done = subprocess.run(
                call, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False
            )
        except OSError as error:
            raise ManifestError(
                f"expected to run {printable(command)}, found that it cannot be: {error.strerror}"
            ) from None
        if done.returncode or not file.is_file():
            raise ManifestError(
                (done.stderr.strip() or f"{command} inspect ended with {done.returncode}").removeprefix("crossdock: ")
            )
        return parse(file.read_bytes(), printable(source))


def find_command(given=None):
    """The path of the crossdock command."""
    if given:
        return os.fspath(given)
    here = Path(__file__).resolve().parent
    places = [
        here.parents[2] / "bin" / "crossdock",  # PREFIX/share/crossdock/python/crossdock_manifest
        here.parents[1] / "build/release/bin/crossdock",  # the repository's python/crossdock_manifest
        here.parents[3] / "bin" / "crossdock",
        Path(sys.executable).parent / "crossdock",
    ]
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    if found := which("crossdock"):
        return found
    raise ManifestError(
        "expected the crossdock command beside this package or on PATH, found none: "
        "install it, name it (--crossdock FILE), or give a manifest that "
        "`crossdock inspect SRC --manifest FILE.pb` wrote"
    )
