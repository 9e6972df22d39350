"""Text from outside (labels, names, file names, error messages) on its way to a terminal, a log or a line of JSON."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# The categories of Unicode whose characters do something instead of being seen: control and format characters, lone
# surrogates, private and unassigned ones, separators of lines and paragraphs.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # format characters that words and emoji need; they change nothing around them
_SEEN_IN_JSON = re.compile(r"[ -~]+")


def printable(text: str) -> str:
    """Return a text as one line that is safe to print.

    Characters that a terminal would obey or that would reorder what follows (line breaks, escape sequences, controls
    of the writing direction), and those that cannot be encoded, are written as in a Python string: ``\\n``, ``\\x1b``,
    ``\\u202e``. A byte of a file name that is not UTF-8 is written as such: ``caf\\xe9.mp4``.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_seen(c) else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte of a file name that it cannot decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def json_line(value: Any, encoding: str = "utf-8") -> str:
    """Return a value as one line of strict JSON that an encoding can write and that is safe to print.

    What `printable` would escape, and what the encoding has no character for, is written as JSON writes it,
    ``\\u202e``, so a reader gets the same text back. Numbers that JSON does not have (NaN and infinity) become null.
    """
    plain = _with_finite_numbers(value)
    line = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    if _SEEN_IN_JSON.fullmatch(line):
        return line
    line = "".join(c if _is_seen(c) else json.dumps(c)[1:-1] for c in line)
    try:
        line.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return json.dumps(plain, allow_nan=False)
    return line


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in _UNSEEN or character in _JOINERS


def _with_finite_numbers(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _with_finite_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_finite_numbers(item) for item in value]
    return value
