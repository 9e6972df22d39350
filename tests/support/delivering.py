"""Events to deliver, and a quick delivery of them."""

from __future__ import annotations

from vmp_edge.events.detector import Event
from vmp_edge.events.sinks import Delivery

QUICK = Delivery(kept=8, tries=3, timeout=5.0, first_pause=0.01, flush=5.0)


def make_event(number, label="wave"):
    """Return an event with this number."""
    return Event(number, label, 1.0, None, 0.9, 0.8, "camera")
