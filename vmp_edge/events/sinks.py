"""Sinks, which are the places that events go to: a file of JSON lines, a web server or an MQTT broker.

No sink ever slows recognition.
"""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import Protocol

from ..errors import UsageError, VmpError
from ..masking import masked
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
        name: The sink's name for messages, without a password.
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
        tell: Called with a message when events cannot be delivered.
        delivery: How hard to try to send an event over a network.

    Raises:
        UsageError: The URL lacks a host or a topic, or is of another kind.
        SinkError: The file cannot be written to.
        MissingDependencyError: The URL is for MQTT, and paho-mqtt is not installed.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        return JsonLines(Path(text), tell)
    url = _split(text.replace("#", "%23") if scheme in PORTS else text)  # `#` belongs to a topic, it begins no fragment
    if scheme in ("http", "https"):
        return Outbox(masked(text), Webhook(url), tell, delivery)
    if scheme in PORTS:
        return Outbox(masked(text), MqttPublisher(url), tell, delivery)
    raise UsageError(f"events cannot be sent to {scheme}://: give a file, http://, https://, mqtt:// or mqtts://")


def _split(text: str) -> urllib.parse.SplitResult:
    """Split an address into its parts, and check that it has a host and a valid port."""
    try:
        url = urllib.parse.urlsplit(text)
        if url.hostname and url.port != 0:
            return url
    except ValueError:  # the port is not a number or out of range
        pass
    raise UsageError(f"{masked(text)} has no host, or no valid port")


class JsonLines:
    """Appends each event to a file as a line of JSON.

    Args:
        path: The file. It is made if it does not exist.
        tell: Called with a message the first time that a line cannot be written. Recognition goes on, even if the disk
            is full.

    Attributes:
        failed: Number of events that could not be written.

    Raises:
        SinkError: The file cannot be opened for writing.
    """

    def __init__(self, path: Path, tell: Message) -> None:
        self.name = str(path)
        self.failed = 0
        self._tell = tell
        try:
            self._file = path.open("ab", buffering=0)  # each line is in the file when `put` returns
        except OSError as error:
            raise SinkError(f"events cannot be written to {path}: {error.strerror}") from error

    def put(self, event: Event) -> None:
        """Write the event."""
        try:
            self._file.write(event.to_json() + b"\n")
        except OSError as error:
            self.failed += 1
            if self.failed == 1:
                self._tell(f"events cannot be written to {self.name}: {error.strerror}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
