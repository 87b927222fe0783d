#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that every source file begins with the line that tells its license (SPDX): a file taken alone says it too.

    scripts/spdx.py [--fix]     --fix: writes the lines that lack

Sources are the committed and added C, C++, Python, shell, CMake and protobuf files. Rules are data, most of them made
by scripts/make_rules.py. Exit code 1: a file lacks its line.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LICENSE = "Apache-2.0"
LINE = f"SPDX-License-Identifier: {LICENSE}"
# How a comment of one line begins and ends.
COMMENTS = {".cc": ("// ", ""), ".h": ("// ", ""), ".hpp": ("// ", ""), ".proto": ("// ", ""), ".c": ("/* ", " */"),
            ".py": ("# ", ""), ".sh": ("# ", ""), ".cmake": ("# ", "")}
HASHED = ("CMakeLists.txt", ".ci/run")


def comment_of(path, text):
    """None: it is no source."""
    if path.name in HASHED or path.as_posix() in HASHED:
        return "# ", ""
    if path.suffix == ".h" and text.startswith("/*"):  # a header for C too
        return COMMENTS[".c"]
    return COMMENTS.get(path.suffix)


def with_line(text, before, after):
    """The text with the line at its top, or below its #!; a comment that follows stays a comment of its own."""
    first, rest = ("", text)
    if text.startswith("#!"):
        first, _, rest = text.partition("\n")
        first += "\n"
    is_directive = re.match(r"#\s*(include|pragma|if|define)", rest)
    is_comment = rest.startswith((before.strip(), "//", "/*", "#")) and not is_directive
    gap = "\n" if is_comment else ""
    return f"{first}{before}{LINE}{after}\n{gap}{rest}"


def main():
    if sys.argv[1:] not in ([], ["--fix"]):
        sys.exit("usage: scripts/spdx.py [--fix]")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lacking = []
    for path in map(Path, filter(None, listed.split("\0"))):
        if path.suffix not in COMMENTS and path.name != "CMakeLists.txt" and path.as_posix() not in HASHED:
            continue
        if not (ROOT / path).is_file():  # removed, and not committed yet
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        if any(LINE in line for line in text.split("\n", 3)[:2]):
            continue
        lacking.append(path)
        if sys.argv[1:]:
            (ROOT / path).write_text(with_line(text, *comment_of(path, text)), encoding="utf-8")
    for path in lacking:
        print(f"{path}: {'added' if sys.argv[1:] else 'expected'} {LINE}")
    if lacking and not sys.argv[1:]:
        sys.exit(f"{len(lacking)} files lack the line; scripts/spdx.py --fix writes it")


if __name__ == "__main__":
    main()
