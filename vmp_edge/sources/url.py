"""Network streams, and video files on web servers."""

from __future__ import annotations

from ..masking import masked
from .base import Message, Source
from .capture import open_capture
from .retrying import Pauses, Retrying


def open_url(url: str, tell: Message, pauses: Pauses) -> Source:
    """Open a URL: a live stream, which is opened again when it vanishes, or a file, which comes to an end.

    Args:
        url: The address, with user and password if needed.
        tell: Called with a message when a live stream vanishes, is tried again, and is back.
        pauses: The pauses before a live stream is tried again.

    Raises:
        SourceError: The address cannot be opened, or gives no frame.
    """
    name = masked(url)
    first = open_capture(url, name, live=None)
    if not first.live:
        return first
    already_open: list[Source] = [first]

    def open_again() -> Source:
        return already_open.pop() if already_open else open_capture(url, name, live=True)

    return Retrying(name, open_again, tell, pauses)
