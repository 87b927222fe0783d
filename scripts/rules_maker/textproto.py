# SPDX-License-Identifier: Apache-2.0
"""protobuf's text format, as far as rules use it: {field: value, or list of values}."""

import json
import re

TOKEN = re.compile(r'\s*(?:#[^\n]*\n\s*)*("(?:\\.|[^"\\])*"|[A-Za-z_]\w*|-?[\d.]+|[{}:])')

END = re.compile(r"\s*(?:#[^\n]*\s*)*\Z")


def scalar(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def line(fields):
    """Fields in one line; a list is a repeated field, a dictionary a message."""
    out = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            out.append(f"{name} {{ {line(one)} }}" if isinstance(one, dict) else f"{name}: {scalar(one)}")
    return " ".join(out)


def lines(message):
    """A text with a line for each field of the outermost message."""
    out = []
    for name, value in message.items():
        out += [line({name: one}) for one in (value if isinstance(value, list) else [value])]
    return "\n".join(out) + "\n"


def parse(text):
    """{field: [values]}; messages are dictionaries of the same kind."""
    tokens, at = [], 0
    while not END.match(text, at):
        match = TOKEN.match(text, at)
        if not match:
            raise ValueError(f"expected a field of protobuf's text format, found {text[at : at + 40]!r}")
        tokens.append(match[1])
        at = match.end()
    position = 0

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def message(end):
        fields = {}
        while position < len(tokens) and tokens[position] != end:
            name, follows = take(), take()
            if follows == "{":
                value = message("}")
                take()
            else:
                token = take()
                value = (
                    json.loads(token)
                    if token[0] == '"' or token in ("true", "false") or not token[0].isalpha()
                    else token
                )
            fields.setdefault(name, []).append(value)
        return fields

    return message(None)
