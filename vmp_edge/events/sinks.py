"""Where events go: a file of JSON lines, a web server, an MQTT broker. None of them ever slows recognition."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import MissingDependencyError, UsageError, VmpError
from ..sources import Message, without_password
from .detector import Event

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class SinkError(VmpError):
    """Events cannot be written or sent."""


class Sink(Protocol):
    """Takes events.

    Attributes:
        name: For messages, without a password.
    """

    name: str

    def put(self, event: Event) -> None:
        """Takes an event; does not wait for a network."""
        ...

    def close(self) -> None:
        """Delivers what can be delivered in a few seconds, and ends."""
        ...


@dataclass(frozen=True)
class Delivery:
    """How hard to try to send an event, over a network that may be down.

    Args:
        kept: Events that wait to be sent; when there are more, the oldest goes, and is counted.
        tries: How often one is tried, with growing pauses, before it is given up.
        timeout: Seconds for one try.
        first_pause: Seconds before the second try; doubled before each one after it.
        flush: Seconds that `close` gives to what still waits.
    """

    kept: int = 256
    tries: int = 5
    timeout: float = 5.0
    first_pause: float = 0.5
    flush: float = 3.0


DEFAULT_DELIVERY = Delivery()


def open_sink(text: str, tell: Message, delivery: Delivery = DEFAULT_DELIVERY) -> Sink:
    """Opens whatever a user may send events to.

    Args:
        text: A file, to which lines are added; `http://...` or `https://...`, which is posted to; or
            `mqtt://host:port/topic`, `mqtts://...` with TLS. User and password may be in the URL.
        tell: Told when events cannot be delivered.
        delivery: For the network.

    Raises:
        UsageError: The URL lacks a host or a topic, or is of another kind.
        SinkError: The file cannot be written to.
        MissingDependencyError: MQTT, and paho-mqtt is not installed.
    """
    kind, found, _ = text.partition("://")
    if not found:
        return JsonLines(Path(text), tell)
    url = _split(text.replace("#", "%23") if kind in _PORTS else text)  # a topic has no fragment
    if kind in ("http", "https"):
        return Outbox(without_password(text), _Webhook(url), tell, delivery)
    if kind in _PORTS:
        return Outbox(without_password(text), _Mqtt(url), tell, delivery)
    raise UsageError(f"events cannot be sent to {kind}://: give a file, http://, https://, mqtt:// or mqtts://")


def _split(text: str) -> urllib.parse.SplitResult:
    try:
        url = urllib.parse.urlsplit(text)
        if url.hostname and url.port != 0:
            return url
    except ValueError:  # the port is no number, or out of range
        pass
    raise UsageError(f"{without_password(text)} has no host, or a port that is none")


class JsonLines:
    """Adds a line of JSON per event to a file.

    Args:
        path: Made if it is not there.
        tell: Told, once, when a line cannot be written: a full disk is no reason to stop recognising.

    Raises:
        SinkError: The file cannot be written to at all.
    """

    def __init__(self, path: Path, tell: Message) -> None:
        self.name = str(path)
        self.failed = 0
        self._tell = tell
        try:
            self._file = path.open("ab", buffering=0)  # each line is there, whole, when `put` returns
        except OSError as error:
            raise SinkError(f"events cannot be written to {path}: {error.strerror}") from error

    def put(self, event: Event) -> None:
        """Writes the event."""
        try:
            self._file.write(encode(event) + b"\n")
        except OSError as error:
            self.failed += 1
            if self.failed == 1:
                self._tell(f"events cannot be written to {self.name}: {error.strerror}")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def encode(event: Event) -> bytes:
    """An event as one line of JSON, without the line's end."""
    return json.dumps(event.to_dict(), ensure_ascii=False, allow_nan=False).encode()


class _RefusedError(Exception):
    """The receiver does not want it, and will not want it the next time."""


class _Carrier(Protocol):
    def send(self, payload: bytes, timeout: float) -> None:
        """Sends one event; raises OSError if it may be tried again, `_RefusedError` if not."""
        ...

    def close(self) -> None: ...


class Outbox:
    """Sends events over a network in a thread of its own. `put` never waits.

    Args:
        name: For messages.
        carrier: What sends one event.
        tell: Told of the first event of a row that was not delivered, of delivery after that, and at the end of losses.
        delivery: How hard to try.

    Attributes:
        sent: How many events were delivered.
        dropped: How many went because too many waited.
        failed: How many were given up.
    """

    def __init__(self, name: str, carrier: _Carrier, tell: Message, delivery: Delivery = DEFAULT_DELIVERY) -> None:
        self.name = name
        self.sent = self.dropped = self.failed = 0
        self._carrier = carrier
        self._tell = tell
        self._delivery = delivery
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._deadline: float | None = None  # when closing: until when to try
        self._down = False
        self._thread = threading.Thread(target=self._work, name=f"vmp-edge events to {name}", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Takes an event; the oldest one that waits goes if there are too many."""
        with self._changed:
            self._waiting.append(event)
            if len(self._waiting) > self._delivery.kept:
                self._waiting.popleft()
                self.dropped += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Gives what waits a few seconds to be sent, and says what was lost."""
        with self._changed:
            if self._deadline is not None:
                return
            self._deadline = time.monotonic() + self._delivery.flush
            self._changed.notify_all()
        self._thread.join(self._delivery.flush + self._delivery.timeout)
        self._carrier.close()
        lost = self.dropped + self.failed + len(self._waiting)
        if lost:
            self._tell(f"{lost} of {self.sent + lost} events did not reach {self.name}")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._deadline is not None)
                if not self._waiting or self._left() <= 0:
                    return
                event = self._waiting.popleft()
            self._deliver(encode(event))

    def _deliver(self, payload: bytes) -> None:
        pause, problem = self._delivery.first_pause, ""
        for attempt in range(self._delivery.tries):
            if attempt and not self._pause(pause * 2 ** (attempt - 1)):
                break
            try:
                self._carrier.send(payload, min(self._delivery.timeout, max(self._left(), 0.1)))
            except _RefusedError as error:
                problem = str(error)
                break
            except OSError as error:
                problem = str(error) or type(error).__name__
                continue
            self.sent += 1
            if self._down:
                self._down = False
                self._tell(f"events reach {self.name} again")
            return
        self.failed += 1
        if not self._down:
            self._down = True
            self._tell(f"an event did not reach {self.name}: {problem}")

    def _left(self) -> float:
        """Seconds that are left to try in."""
        return self._delivery.timeout if self._deadline is None else self._deadline - time.monotonic()

    def _pause(self, seconds: float) -> bool:
        """Waits; shorter if this is closed meanwhile. Returns whether there is time for another try."""
        with self._changed:
            if self._deadline is None:
                self._changed.wait_for(lambda: self._deadline is not None, seconds)
        if self._deadline is not None:
            time.sleep(max(min(seconds, self._left()), 0.0))
        return self._left() > 0


class _Webhook:
    """Posts JSON to a URL."""

    def __init__(self, url: urllib.parse.SplitResult) -> None:
        self._headers = {"Content-Type": "application/json", "User-Agent": "vmp-edge"}
        if url.username is not None:
            user = f"{urllib.parse.unquote(url.username)}:{urllib.parse.unquote(url.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._url = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()

    def send(self, payload: bytes, timeout: float) -> None:
        request = urllib.request.Request(self._url, payload, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                answer.read(1 << 16)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                raise _RefusedError(f"it answers {error.code} {error.reason}") from error
            raise OSError(f"it answers {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise OSError(str(getattr(error.reason, "strerror", None) or error.reason)) from error
        except http.client.InvalidURL as error:
            raise _RefusedError(str(error)) from error
        except http.client.HTTPException as error:
            raise OSError(f"it does not answer as a web server does ({type(error).__name__})") from error

    def close(self) -> None:
        """Has nothing to end: each event has a connection of its own."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without the event."""

    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        return None


class _Mqtt:
    """Publishes JSON to a topic, with quality of service 1: at least once."""

    def __init__(self, url: urllib.parse.SplitResult) -> None:
        try:
            import paho.mqtt.client as mqtt
        except ImportError as error:
            raise MissingDependencyError("MQTT needs paho-mqtt: pip install 'vmp-edge[mqtt]'") from error
        self._topic = urllib.parse.unquote(url.path.strip("/"))
        if not self._topic or {"#", "+"} & set(self._topic):
            raise UsageError("an MQTT address is mqtt://host/topic, with a topic without # and +")
        self._connected = threading.Event()
        self._problem = "no connection to the broker"
        self._client: Any = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if url.username is not None:
            password = None if url.password is None else urllib.parse.unquote(url.password)
            self._client.username_pw_set(urllib.parse.unquote(url.username), password)
        if url.scheme == "mqtts":
            self._client.tls_set_context(ssl.create_default_context())
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *arguments: self._connected.clear()
        self._client.reconnect_delay_set(1, 30)
        assert url.hostname is not None
        self._client.connect_async(url.hostname, url.port or _PORTS[url.scheme])
        self._client.loop_start()

    def send(self, payload: bytes, timeout: float) -> None:
        end = time.monotonic() + timeout
        if not self._connected.wait(timeout):
            raise OSError(self._problem)
        sending = self._client.publish(self._topic, payload, qos=1)
        try:
            sending.wait_for_publish(max(end - time.monotonic(), 0.1))
        except (RuntimeError, ValueError) as error:
            raise OSError(str(error)) from error
        if not sending.is_published():
            raise OSError("the broker does not confirm it")

    def close(self) -> None:
        """Ends the connection and its thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._problem = f"the broker refuses: {reason}"
        else:
            self._connected.set()
