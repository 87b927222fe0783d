# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a manifest, as one sentence, and how text of a file is put into one."""


class ManifestError(ValueError):
    """What was expected, what was found, where, and what to try."""


def printable(text, limit=200):
    """Text of a file for a terminal: what would move its cursor or end a line is spelled out."""
    text = str(text)
    cut = text[:limit] + ("..." if len(text) > limit else "")
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)
