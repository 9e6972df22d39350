"""Waiting for a source that is not there yet."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import SourceError
from .base import AddressError, Message, Source
from .retrying import Pauses


def open_when_there(
    opener: Callable[[], Source], name: str, tell: Message, pauses: Pauses, cancelled: threading.Event
) -> Source:
    """Open a source that may not be there yet, again and again until it is.

    Args:
        opener: Opens the source.
        name: The source's name for messages.
        tell: Called with a message when the source cannot be opened, and when it is there at last.
        pauses: The pauses before the source is tried again.
        cancelled: Ends the waiting when it is set.

    Raises:
        AddressError: The address is wrong, so that there will never be such a source.
        SourceError: The waiting was ended.
    """
    pause, tried = pauses.first, False
    while True:
        try:
            source = opener()
        except AddressError:
            raise
        except SourceError as error:
            if cancelled.is_set():
                raise
            tell(f"{error}; trying again in {pause:g} s")
            if cancelled.wait(pause):
                raise
            pause, tried = min(2 * pause, pauses.longest), True
        else:
            if tried:
                tell(f"{name} is there")
            return source
