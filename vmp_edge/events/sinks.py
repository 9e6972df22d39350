"""Sinks, which are the places that events go to: a file of JSON lines, a web server or an MQTT broker.

No sink ever slows recognition.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import urllib.parse
from pathlib import Path
from typing import Protocol

from ..credentials import with_credentials
from ..errors import UsageError, VmpError
from ..masking import masked, masked_receiver, without_secrets
from ..sources import Message
from .detector import Event
from .mqtt import PORTS, MqttPublisher
from .outbox import DEFAULT_DELIVERY, Delivery, Outbox
from .webhook import Webhook


class SinkError(VmpError):
    """Events cannot be written or sent."""


class Sink(Protocol):
    """Receives events.

    Attributes:
        name: The sink's name for messages, without its secrets.
    """

    name: str

    def put(self, event: Event) -> None:
        """Accept an event, without waiting for a network."""
        ...

    def close(self) -> None:
        """Deliver waiting events for a few seconds at most, then close the sink."""
        ...


def open_sink(text: str, tell: Message, delivery: Delivery = DEFAULT_DELIVERY) -> Sink:
    """Open a sink by its address.

    Args:
        text: The name of a file, to which lines are appended, or a URL: `http://...` or `https://...` for a web server,
            `mqtt://host:port/topic` for a broker, `mqtts://...` for one with TLS. URLs may have a user and password.
            `${NAME}` and `${file:PATH}` in it are replaced, as `with_credentials` does.
        tell: Called with a message when events cannot be delivered.
        delivery: How hard to try to send an event over a network.

    Raises:
        UsageError: The URL lacks a host or a topic, or is of another kind, or a credential is missing.
        SinkError: The file cannot be written to.
        MissingDependencyError: The URL is for MQTT, and paho-mqtt is not installed.
    """
    text = with_credentials(text)
    scheme, separator, _ = text.partition("://")
    scheme = scheme.lower()
    if not separator:
        return JsonLines(Path(text), tell)
    url = _split(text.replace("#", "%23") if scheme in PORTS else text)  # `#` belongs to a topic, it begins no fragment

    def say(message: str) -> None:
        tell(without_secrets(message, text, whole_path=True))

    if scheme in ("http", "https"):
        return Outbox(masked_receiver(text), Webhook(url), say, delivery)
    if scheme in PORTS:
        return Outbox(masked_receiver(text), MqttPublisher(url), say, delivery)
    raise UsageError(f"events cannot be sent to {scheme}://: give a file, http://, https://, mqtt:// or mqtts://")


def _split(text: str) -> urllib.parse.SplitResult:
    """Split an address into its parts, and check that it has a host and a valid port."""
    try:
        url = urllib.parse.urlsplit(text)
        if url.hostname and url.port != 0 and url.hostname.encode("idna"):
            return url
    except ValueError:  # the port is not a number or out of range, or the host cannot be a host's name
        pass
    raise UsageError(f"{masked_receiver(text)} has no host, or no valid port")


class JsonLines:
    """Appends each event to a file as a line of JSON.

    Every line is whole: what is left of a line that could not be written, or of an earlier run that was cut off, is
    taken away or ended before the next line.

    Args:
        path: The file. It is made if it does not exist.
        tell: Called with a message the first time that a line cannot be written, and on closing if lines are missing.
            Recognition goes on, even if the disk is full.

    Attributes:
        written: Number of events that were written.
        failed: Number of events that could not be written.

    Raises:
        SinkError: The file cannot be opened for writing.
    """

    def __init__(self, path: Path, tell: Message) -> None:
        self.name = masked(str(path))
        self.written = self.failed = 0
        self._tell = tell
        try:
            self._file = path.open("ab", buffering=0)  # each line is in the file when `put` returns
            self._is_ragged = _ends_within_a_line(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SinkError(f"events cannot be written to {self.name}: {reason}") from error

    def put(self, event: Event) -> None:
        """Write the event."""
        try:
            line = event.to_json() + b"\n"
            self._write(b"\n" + line if self._is_ragged else line)
            self.written += 1
        except (OSError, ValueError) as error:  # a ValueError: JSON or UTF-8 has no way to write the event
            self.failed += 1
            if self.failed == 1:
                reason = getattr(error, "strerror", None) or error
                self._tell(f"events cannot be written to {self.name}: {reason}")

    def close(self) -> None:
        """Close the file, and report how many events are missing in it."""
        if self._file.closed:
            return
        self._file.close()
        if self.failed:
            self._tell(f"{self.failed} of {self.written + self.failed} events are missing in {self.name}")

    def _write(self, content: bytes) -> None:
        """Write all of it, or take away what was written before the disk was full."""
        written = 0
        try:
            while written < len(content):
                count = self._file.write(content[written:])
                if count is None:  # a pipe that does not wait, and is full
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                written += count
        except OSError:
            self._take_away(written)
            raise
        self._is_ragged = False

    def _take_away(self, count: int) -> None:
        """Cut off the last bytes, if nobody has written more since. Otherwise the next line begins with a line end."""
        if count == 0:
            return
        was_ragged, self._is_ragged = self._is_ragged, True
        with contextlib.suppress(OSError):
            end = self._file.seek(0, os.SEEK_CUR)  # after an append, this is where it ended
            if os.fstat(self._file.fileno()).st_size == end:
                os.ftruncate(self._file.fileno(), end - count)
                self._is_ragged = was_ragged


def _ends_within_a_line(path: Path) -> bool:
    """Return whether a file's last line has no end, because a program was killed or the disk was full."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # it may be written but not read
        return False
