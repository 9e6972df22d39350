"""Credentials from outside the command line, which any user of a machine can read in its list of processes.

`${NAME}` in an address stands for a variable of the environment, and `${file:PATH}` for the first line of a file.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from pathlib import Path

from .errors import UsageError
from .masking import hide_everywhere, masked

_PLACE = re.compile(r"\$\{(?:file:(?P<path>[^{}]+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*))\}")
_LONGEST = 4096  # bytes of a file's first line


def with_credentials(address: str) -> str:
    """Return an address with the values that its `${NAME}` and `${file:PATH}` stand for.

    The values are taken as they are. Where one becomes the user or password of a URL, or a parameter of its query, it
    is percent-encoded, and in a pipeline it is quoted if it needs quotes. From then on, `masked` hides the values.

    Args:
        address: A source, a receiver of events or a token. The name of a file that exists is returned as it is.

    Raises:
        UsageError: The environment has no such variable, the file cannot be read, or the value is empty or has control
            characters.
    """
    if _PLACE.search(address) is None or ("://" not in address and _is_file(address)):
        return address
    parts, end = [], 0
    for match in _PLACE.finditer(address):
        value = _value(match, address)
        hide_everywhere(value)
        parts += [address[end : match.start()], _fitting(value, address, match)]
        end = match.end()
    return "".join(parts) + address[end:]


def _is_file(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a file's name, for example
        return False


def _value(match: re.Match[str], address: str) -> str:
    """Look up what a placeholder stands for."""
    if match["path"] is None:
        value, what = os.environ.get(match["name"], ""), f"the environment variable {match['name']}"
        if match["name"] not in os.environ:
            raise UsageError(f"{what}, which {_shown(address)} names, is not set: set it, and export it")
    else:
        value, what = _first_line(match["path"], address), f"the first line of {match['path']}"
    if not value:
        raise UsageError(f"{what}, which {_shown(address)} names, is empty")
    if not value.isprintable() and re.search(r"[\0-\x1f\x7f]", value):
        raise UsageError(f"{what}, which {_shown(address)} names, has control characters in it")
    return value


def _first_line(path: str, address: str) -> str:
    try:
        with Path(path).open("rb") as file:
            line = file.readline(_LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"the file {path}, which {_shown(address)} names, cannot be read: {reason}") from error
    if len(line) > _LONGEST:
        raise UsageError(f"the first line of {path}, which {_shown(address)} names, is longer than {_LONGEST} bytes")
    return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _shown(address: str) -> str:
    return masked(address) if "://" in address else "an argument"


def _fitting(value: str, address: str, match: re.Match[str]) -> str:
    """Return a value in the spelling that its place in the address asks for."""
    before, after = address[: match.start()], address[match.end() :]
    url = re.search(r"[A-Za-z][A-Za-z0-9+.\-]*://(?P<rest>[^\s\"']*)\Z", _PLACE.sub("x", before))
    if url is not None:
        authority = re.match(r"[^\s\"'/?#]*", _PLACE.sub("x", after))
        is_user = not re.search("[/?#]", url["rest"]) and authority is not None and "@" in authority[0]
        if is_user or ("?" in url["rest"] and url["rest"].endswith("=")):
            return urllib.parse.quote(value, safe="", errors="surrogateescape")
        return value
    if "!" not in before + after or re.match(r"\s*[A-Za-z][A-Za-z0-9+.\-]*://", address):
        return value
    return _quoted(value, _open_quote(before))


def _open_quote(text: str) -> str:
    """Return the quote that is open at the end of a part of a pipeline, or an empty text."""
    quote, escaped = "", False
    for sign in text:
        if escaped:
            escaped = False
        elif sign == "\\" and quote != "'":
            escaped = True
        elif sign == quote:
            quote = ""
        elif sign in "\"'" and not quote:
            quote = sign
    return quote


def _quoted(value: str, quote: str) -> str:
    """Quote a value as the words of a pipeline are quoted. `quote` is the quote that is open before it."""
    if quote == "'":
        return value.replace("'", "'\"'\"'")
    escaped = re.sub(r"([\"\\])", r"\\\1", value)
    return escaped if quote or not re.search(r"[^\w@%+:,./-]", value) else f'"{escaped}"'
