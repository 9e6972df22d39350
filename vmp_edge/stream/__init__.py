"""Streaming recognition: frame ring, sliding window, smoothing, motion gate, governor, and many cameras at once."""

from __future__ import annotations

from .options import StreamOptions
from .statistics import Statistics
from .stream import Stream

__all__ = ["Statistics", "Stream", "StreamOptions"]
