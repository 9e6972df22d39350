"""Sending events over a network that may be down, without ever slowing recognition."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from ..sources import Message
from .detector import Event


@dataclass(frozen=True)
class Delivery:
    """Limits on the attempts to send an event over a network that may be down.

    Args:
        kept: Number of events that may wait to be sent. When there are more, the oldest is dropped and counted.
        tries: Number of tries before an event is given up.
        timeout: Seconds for one try.
        first_pause: Seconds before the second try. The pause doubles before each further try.
        flush: Seconds for which `close` goes on sending the waiting events.
    """

    kept: int = 256
    tries: int = 5
    timeout: float = 5.0
    first_pause: float = 0.5
    flush: float = 3.0


DEFAULT_DELIVERY = Delivery()


class RefusedError(Exception):
    """The receiver refuses an event, and would refuse it again."""


class Carrier(Protocol):
    """Sends single events to one receiver."""

    def send(self, payload: bytes, timeout: float) -> None:
        """Send one event within the timeout in seconds.

        Raises:
            OSError: The event was not delivered, but a further try may succeed.
            RefusedError: The receiver refuses the event.
        """
        ...

    def close(self) -> None:
        """Close the connection, if there is one."""
        ...


class Outbox:
    """Sends events over a network in a thread of its own, so that `put` never waits.

    Args:
        name: The receiver's name for messages, without its secrets.
        carrier: Sends one event.
        tell: Called with a message at the first event that is not delivered, when events are delivered again, and on
            closing if events were lost.
        delivery: How hard to try to deliver an event.

    Attributes:
        sent: Number of events that were delivered.
        dropped: Number of events that were dropped because too many waited, or because they came after `close`.
        failed: Number of events that were given up. When the outbox is closed, `sent`, `dropped` and `failed` together
            are all events.
    """

    def __init__(self, name: str, carrier: Carrier, tell: Message, delivery: Delivery = DEFAULT_DELIVERY) -> None:
        self.name = name
        self.sent = self.dropped = self.failed = 0
        self._carrier = carrier
        self._tell = tell
        self._delivery = delivery
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._in_hand = 0  # 1 while an event is being sent
        self._deadline: float | None = None  # when to stop trying; set by `close`
        self._closed = False
        self._down = False  # whether the last event was not delivered
        self._thread = threading.Thread(target=self._work, name=f"vmp-edge events to {name}", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue an event. If too many events wait, drop the oldest."""
        with self._changed:
            if self._closed:
                self.dropped += 1
                return
            self._waiting.append(event)
            if len(self._waiting) > self._delivery.kept:
                self._waiting.popleft()
                self.dropped += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Try for a few seconds to send the waiting events, then report how many were lost."""
        with self._changed:
            if self._deadline is not None:
                return
            self._deadline = time.monotonic() + self._delivery.flush
            self._changed.notify_all()
        self._thread.join(self._delivery.flush + self._delivery.timeout)
        with self._changed:  # what the thread still has in hand counts as lost, too
            self._closed = True
            self.failed += len(self._waiting) + self._in_hand
            self._waiting.clear()
            sent, lost = self.sent, self.dropped + self.failed
        self._carrier.close()
        if lost:
            self._tell(f"{lost} of {sent + lost} events did not reach {self.name}")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._deadline is not None)
                if not self._waiting or self._seconds_left() <= 0:
                    return
                event = self._waiting.popleft()
                self._in_hand = 1
            problem = self._problem_of(event)
            with self._changed:
                if self._closed:  # it was counted as lost
                    return
                self._in_hand = 0
                self.sent += not problem
                self.failed += bool(problem)
            self._report(problem)

    def _report(self, problem: str) -> None:
        """Report the first event that is not delivered, and when events are delivered again."""
        if problem and not self._down:
            self._tell(f"an event did not reach {self.name}: {problem}")
        elif self._down and not problem:
            self._tell(f"events reach {self.name} again")
        self._down = bool(problem)

    def _problem_of(self, event: Event) -> str:
        """Deliver an event. Return why it could not be delivered, or an empty text."""
        try:
            return self._deliver(event.to_json())
        except Exception as error:  # whatever it is, the next event has its turn
            return f"{type(error).__name__}: {error}"

    def _deliver(self, payload: bytes) -> str:
        pause, problem = self._delivery.first_pause, ""
        for attempt in range(self._delivery.tries):
            if attempt and not self._pause(pause * 2 ** (attempt - 1)):
                break
            try:
                self._carrier.send(payload, min(self._delivery.timeout, max(self._seconds_left(), 0.1)))
            except RefusedError as error:
                problem = str(error)
                break
            except OSError as error:
                problem = error.strerror or str(error) or type(error).__name__
                continue
            return ""
        return problem

    def _seconds_left(self) -> float:
        """Return how many seconds are left for sending."""
        return self._delivery.timeout if self._deadline is None else self._deadline - time.monotonic()

    def _pause(self, seconds: float) -> bool:
        """Wait, shorter if the outbox is closed meanwhile. Return whether there is time for another try."""
        with self._changed:
            if self._deadline is None:
                self._changed.wait_for(lambda: self._deadline is not None, seconds)
        if self._deadline is not None:
            time.sleep(max(min(seconds, self._seconds_left()), 0.0))
        return self._seconds_left() > 0
