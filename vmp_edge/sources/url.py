"""Network streams and files on web servers."""

from __future__ import annotations

import re

from .base import Message, Source
from .capture import open_capture
from .retrying import Pauses, Retrying


def open_url(url: str, tell: Message, pauses: Pauses) -> Source:
    """Opens a URL: a live stream, which is tried again when it vanishes, or a file, which ends.

    Raises:
        SourceError: It cannot be opened, or gives no frame.
    """
    name = without_password(url)
    first = open_capture(url, name, live=None)
    if not first.live:
        return first
    opened: list[Source] = [first]
    reopen = lambda: opened.pop() if opened else open_capture(url, name, live=True)  # noqa: E731
    return Retrying(name, reopen, tell, pauses)


def without_password(url: str) -> str:
    """A URL as it may be told and logged: without the user and the password."""
    return re.sub(r"//[^/@]*@", "//", url)
