"""`StreamOptions`: how a stream chooses its windows, steadies its results and adapts to motion and load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .governor import Budget, Governor, ladder
from .motion import MotionGate
from .smoothing import DEFAULT_SMOOTHING, Smoothing
from .window import Window


@dataclass(frozen=True)
class StreamOptions:
    """The options that `Stream`, `Cameras`, `vmp-edge run` and `vmp-edge serve` share.

    The values are checked where they are used, for example by `Window`.

    Attributes:
        hop: Number of frames from one window to the next. With a budget it is the hop of the best level.
        stride: A window takes every stride-th frame. Give this or `fps`, not both.
        fps: A window takes this many frames per second, by the frames' timestamps, whatever the camera's own rate. If
            neither `stride` nor `fps` is given, the window is sampled as the bundle's manifest says, or takes every
            frame if the manifest says nothing.
        smoothing: How results are steadied. None shows each window's own result.
        sampling: Which frames a window takes from its span of time: a word of `Window`.
        motion_gate: Threshold of a `MotionGate` in grey levels. None recognises every window.
        budget: Budget of a `Governor`. None runs without a governor.
    """

    hop: int = 4
    stride: int | None = None
    fps: float | None = None
    smoothing: Smoothing | None = DEFAULT_SMOOTHING
    sampling: str = "uniform"
    motion_gate: float | None = None
    budget: Budget | None = None

    @classmethod
    def merge(cls, options: StreamOptions | int | None, changes: Mapping[str, Any]) -> StreamOptions:
        """Return the options with some fields changed.

        Args:
            options: The options to start from, the hop alone, or None for the defaults.
            changes: New values by the names of the fields.

        Raises:
            TypeError: A name is not a field, or the hop is given twice.
        """
        if options is None:
            return cls(**changes)
        if isinstance(options, StreamOptions):
            return replace(options, **changes) if changes else options
        return cls(options, **changes)

    def window(self, frames: int, frame_rate: float | None, span: float | None = None) -> Window:
        """Return the window for a recogniser.

        Args:
            frames: Number of frames that the recogniser takes.
            frame_rate: Frames per second in the bundle's manifest, used if there is neither `stride` nor `fps`.
            span: Seconds of a clip in the bundle's manifest, used likewise: the frames are a T-th of it apart.

        Raises:
            UsageError: A value is out of range, or both `stride` and `fps` are given.
        """
        stride, fps, sparse = self.stride, self.fps, False
        if stride is None and fps is None:
            fps, sparse = (frame_rate, False) if span is None else (frames / span, self.sampling == "uniform")
            stride = 1 if fps is None else None
        return Window(frames, stride, fps, self.hop, self.sampling, sparse)

    def make_gate(self) -> MotionGate | None:
        """Make a motion gate for one stream, or return None if these options have no threshold.

        Raises:
            UsageError: The threshold is out of range.
        """
        return MotionGate(self.motion_gate) if self.motion_gate is not None else None

    def make_governor(self, variants: Iterable[str] = ()) -> Governor | None:
        """Make a governor for one stream, or return None if these options have no budget.

        Args:
            variants: Names of the variants that the levels may use, from the dearest to the cheapest.
        """
        return Governor(self.budget, ladder(self.hop, (None, *variants))) if self.budget is not None else None

    @property
    def longest_hop(self) -> int:
        """Number of frames from one window to the next at most: the hop, or that of the governor's cheapest level."""
        return self.hop if self.budget is None else max(level.hop for level in ladder(self.hop))
