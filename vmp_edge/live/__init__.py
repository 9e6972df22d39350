"""Live recognition of one source to its end, with a window, a recording and events: the work of `vmp-edge run`."""

from __future__ import annotations

from .filling import Filling
from .options import Options
from .player import play
from .summary import Summary

__all__ = ["Filling", "Options", "Summary", "play"]
