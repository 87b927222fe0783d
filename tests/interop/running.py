# SPDX-License-Identifier: Apache-2.0
"""Conversions that are looked at, stopped and killed half way."""
import json
import time
from pathlib import Path


def start_and_wait_until_it_writes(crossdock, source, target, *flags, n_bytes=1 << 20):
    """Starts a conversion and returns when some of it, 1 MiB by default, is on its way to the disk."""
    partial, job = Path(f"{target}.partial"), crossdock.start("convert", source, target, *flags)
    deadline = time.monotonic() + 120
    while written(partial) < n_bytes:
        assert job.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline, "it writes nothing"
        time.sleep(0.002)
    return job


def written(partial):
    """Bytes on the disk of files that are finished, or worked on."""
    total = 0
    for file in [*partial.glob("tree/**/*"), *partial.glob("parts/*/[0-9]*")]:
        try:
            total += file.stat().st_blocks * 512 if file.is_file() else 0
        except FileNotFoundError:  # it was renamed meanwhile
            pass
    return total


def result(folder):
    """What a conversion made, by name, but for the report's timings."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}
    report = json.loads(files["crossdock.json"])
    del report["timings"]
    return {**files, "crossdock.json": report}
