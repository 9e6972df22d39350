"""The frame ring: where a capture thread leaves prepared frames and a recogniser picks its windows.

Every slot is allocated once. A pushed frame is resized and normalised straight into a slot, and a window is gathered
once, straight into the engine's input; both happen outside the lock, so neither side waits for the other's pixels.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vmp_edge.errors import UsageError
from vmp_edge.preprocessing import Preprocessing, check_frame
from vmp_edge.slots import Embed, FrameSlots, Slots, TokenSlots

_MIN_SPACING = 0.24  # in window periods: frames closer than a quarter (and a little, for jitter) would never be chosen


@dataclass(frozen=True)
class Window:
    """Which frames make up what the model sees at once, and how often it looks.

    Args:
        frames: T, how many frames.
        stride: Every how many-th frame; or
        fps: frames per second, by the timestamps: the frames nearest in time, whatever the camera's own rate.
        hop: How many frames come in between one window and the next.

    Raises:
        UsageError: A value is out of range, or not exactly one of stride and fps is given.
    """

    frames: int
    stride: int | None = 1
    fps: float | None = None
    hop: int = 4

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise UsageError(f"a window needs at least 1 frame, not {self.frames}")
        if self.hop < 1:
            raise UsageError(f"hop must be at least 1 frame, not {self.hop}")
        if (self.stride is None) == (self.fps is None):
            raise UsageError("a window is spaced by a stride in frames or by frames per second: give one of them")
        if self.stride is not None and self.stride < 1:
            raise UsageError(f"stride must be at least 1 frame, not {self.stride}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"frames per second must be positive, not {self.fps}")

    @property
    def capacity(self) -> int:
        """How many frames must be kept for a window to be found in them."""
        if self.stride is not None:
            return (self.frames - 1) * self.stride + 1
        return math.ceil((self.frames - 1) / _MIN_SPACING) + 2

    @property
    def min_spacing(self) -> float:
        """Seconds that kept frames are at least apart: what comes closer is passed over, unprepared."""
        return _MIN_SPACING / self.fps if self.fps is not None else 0.0

    def select(self, timestamps: Sequence[float]) -> list[int] | None:
        """Chooses the frames of the newest window.

        Args:
            timestamps: Of the frames at hand, in seconds, oldest first.

        Returns:
            T indices, oldest first, the last one the newest frame; None if what is at hand does not reach back far
            enough. By fps, a frame is chosen twice if the camera is slower than the window.
        """
        newest = len(timestamps) - 1
        if self.fps is None:
            assert self.stride is not None
            first = newest - (self.frames - 1) * self.stride
            return list(range(first, newest + 1, self.stride)) if first >= 0 else None
        period = 1.0 / self.fps
        if newest < 0 or timestamps[0] > timestamps[newest] - (self.frames - 1.05) * period:  # 0.05: rounding, jitter
            return None
        times = np.asarray(timestamps)
        wanted = times[newest] - period * np.arange(self.frames - 1, -1, -1)
        after = np.clip(np.searchsorted(times, wanted), 1, max(newest, 1))
        nearer_before = wanted - times[after - 1] <= times[np.minimum(after, newest)] - wanted
        return [int(index) for index in np.where(nearer_before, after - 1, np.minimum(after, newest))]


@dataclass
class _Kept:
    """A frame in the ring."""

    sequence: int  # how many frames were pushed before it
    timestamp: float
    slot: int
    seen: bool = False  # a window has reached over it


@dataclass(frozen=True)
class WindowRead:
    """What `FrameRing.read` gathered: the sequence number and timestamp (s) of each frame, oldest first."""

    sequences: tuple[int, ...]
    timestamps: tuple[float, ...] = field(repr=False)


class FrameRing:
    """Prepared frames, the newest `window.capacity` of them. Every method may be called from any thread.

    When it is full, the oldest frame goes. One that no window ever reached over counts as dropped: the recogniser was
    too slow for it. A frame still being gathered is never written over, because there are as many spare slots as a
    window has frames.

    Args:
        preprocessing: How frames are prepared.
        window: What is read; sets the capacity.
        embed: Makes a frame's shares of tokens: windows are gathered of tokens then, and a frame is embedded when the
            first window takes it, in the thread that reads. None gathers prepared frames.
        tokens: (P, N, C), the shape of what `embed` gives.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        window: Window,
        embed: Embed | None = None,
        tokens: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        self.window = window
        slots = window.capacity + window.frames + 1  # kept, being gathered, being written
        self._slots: Slots = (
            FrameSlots(preprocessing, slots) if embed is None else TokenSlots(preprocessing, slots, embed, tokens)
        )
        self._free = list(range(slots))
        self._kept: deque[_Kept] = deque()
        self._pinned: set[int] = set()  # slots that a window is being gathered from
        self._changed = threading.Condition()
        self._writing = threading.Lock()  # one frame is prepared at a time, so that they stay in order
        self._reading = threading.Lock()
        self._pushed = self._dropped = 0
        self._read_at: int | None = None  # how many frames had come in when the last window was picked
        self._last_timestamp = -math.inf
        self._closed = False

    @property
    def pushed(self) -> int:
        """How many frames came in."""
        return self._pushed

    @property
    def nbytes(self) -> int:
        """Memory of all slots."""
        return self._slots.nbytes

    @property
    def dropped(self) -> int:
        """How many frames went without ever having been within a window."""
        return self._dropped

    def push(self, frame: npt.NDArray[np.uint8], timestamp: float, bgr: bool = False) -> None:
        """Prepares a frame into a slot. Never waits for a window to be read.

        Args:
            frame: uint8 (H, W, 3); not kept.
            timestamp: Seconds, on any clock that does not run backwards.
            bgr: The channels are blue, green, red.

        Raises:
            UsageError: The frame has another shape or dtype, or the timestamp is before the last one.
        """
        check_frame(frame)
        with self._writing:
            if not timestamp >= self._last_timestamp:
                raise UsageError(
                    f"timestamps must not run backwards ({timestamp} after {self._last_timestamp}): "
                    "reset the stream when its source starts again"
                )
            self._last_timestamp = timestamp
            slot = self._reserve(timestamp)
            if slot is not None:
                try:
                    self._slots.write(slot, frame, bgr)
                except BaseException:
                    with self._changed:
                        self._free.append(slot)
                    raise
            self._commit(slot, timestamp)

    def due(self) -> bool:
        """Whether a window is complete that ends `hop` frames or more after the last one that was read."""
        with self._changed:
            return self._due()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until a window is due, the ring is closed or `timeout` seconds are over; returns whether one is due."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._due(), timeout)
            return self._due()

    def read(self, out: npt.NDArray[np.float32]) -> WindowRead | None:
        """Gathers the newest window.

        Args:
            out: float32 (3, T, S, S) to write into, or (P, T / N, C) for tokens.

        Returns:
            Which frames it is made of; None, and `out` as it was, if there are too few as yet.

        Raises:
            VmpError: Embedding a frame failed.
        """
        with self._reading:
            chosen = self._pin()
            if chosen is None:
                return None
            try:
                for index, kept in enumerate(chosen):
                    self._slots.read(kept.slot, out, index)
            finally:
                self._unpin()
        return WindowRead(tuple(kept.sequence for kept in chosen), tuple(kept.timestamp for kept in chosen))

    def clear(self) -> None:
        """Forgets all frames, so that no window reaches over a gap; timestamps may start again. The counts go on."""
        with self._writing, self._changed:
            self._free += [kept.slot for kept in self._kept if kept.slot not in self._pinned]
            self._kept.clear()
            self._read_at = None
            self._last_timestamp = -math.inf

    def close(self) -> None:
        """Wakes everyone who waits, for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _reserve(self, timestamp: float) -> int | None:
        """Takes a free slot: there always is one; None for a frame to pass over."""
        with self._changed:
            if self._kept and timestamp - self._kept[-1].timestamp < self.window.min_spacing:
                return None
            return self._free.pop()

    def _commit(self, slot: int | None, timestamp: float) -> None:
        with self._changed:
            if slot is not None:
                # Only now: until the new frame is whole, the oldest one is needed for a window.
                if len(self._kept) == self.window.capacity:
                    self._let_oldest_go()
                self._kept.append(_Kept(self._pushed, timestamp, slot))
            self._pushed += 1
            if self._due():
                self._changed.notify_all()

    def _let_oldest_go(self) -> None:
        oldest = self._kept.popleft()
        late = self._read_at is None or self._pushed >= self._read_at + self.window.hop
        self._dropped += late and not oldest.seen  # if not late, a long hop leaves it out by choice
        if oldest.slot not in self._pinned:  # else `_unpin` frees it
            self._free.append(oldest.slot)

    def _due(self) -> bool:
        if self._read_at is not None:
            nothing_new = not self._kept or self._kept[-1].sequence < self._read_at
            if nothing_new or self._pushed - self._read_at < self.window.hop:
                return False
        return self._select() is not None

    def _select(self) -> list[int] | None:
        return self.window.select([kept.timestamp for kept in self._kept])

    def _pin(self) -> list[_Kept] | None:
        """Chooses the newest window and keeps its slots from being reused."""
        with self._changed:
            indices = self._select()
            if indices is None:
                return None
            chosen = [self._kept[index] for index in indices]
            self._pinned = {kept.slot for kept in chosen}
            # What a long hop leaves out between windows by choice was not dropped either.
            first = min(chosen[0].sequence, self._pushed - self.window.hop)
            for kept in self._kept:
                kept.seen |= kept.sequence >= first
            self._read_at = self._pushed
            return chosen

    def _unpin(self) -> None:
        with self._changed:
            kept = {entry.slot for entry in self._kept}
            self._free += [slot for slot in self._pinned if slot not in kept]
            self._pinned = set()
