"""Events (the start and the end of an action), where they are sent, and video clips of them."""

from __future__ import annotations

from .detector import Event, EventDetector, EventRule

__all__ = ["Event", "EventDetector", "EventRule"]
