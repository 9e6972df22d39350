"""From a stream of frames to a stream of results: frame ring, sliding window, smoothing, motion gate, governor."""

from __future__ import annotations

from .statistics import Statistics
from .stream import Stream

__all__ = ["Statistics", "Stream"]
