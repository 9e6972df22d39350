"""The frame ring: where a capture thread leaves prepared frames and a recogniser picks its windows.

Every slot is allocated once. A pushed frame is resized and normalised straight into a slot, and a window is gathered
once, straight into the engine's input; both happen outside the lock, so neither side waits for the other's pixels.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..preprocessing import Preprocessing, check_frame
from .slots import Embed, FrameSlots, Slots, TokenSlots
from .window import Window


@dataclass
class _Kept:
    """A frame in the ring."""

    sequence: int  # how many frames were pushed before it
    timestamp: float
    slot: int
    change: float  # how much moves in it, the frames passed over before it included
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
        capacity: Keep so many frames, if that is more: for a window of another spacing, by `change`.
        embed: Makes a frame's shares of tokens: windows are gathered of tokens then, and a frame is embedded when the
            first window takes it, in the thread that reads. None gathers prepared frames.
        tokens: (P, N, C), the shape of what `embed` gives.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        window: Window,
        capacity: int = 0,
        embed: Embed | None = None,
        tokens: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        self.window = window
        self._capacity = max(capacity, window.capacity)
        slots = self._capacity + window.frames + 1  # kept, being gathered, being written
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
        self._passed_over = 0.0  # the largest change of the frames passed over since the last one kept
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

    def push(self, frame: npt.NDArray[np.uint8], timestamp: float, bgr: bool = False, change: float = 0.0) -> None:
        """Prepares a frame into a slot. Never waits for a window to be read.

        Args:
            frame: uint8 (H, W, 3); not kept.
            timestamp: Seconds, on any clock that does not run backwards.
            bgr: The channels are blue, green, red.
            change: How much moves in it, for sampling by motion and for `skip`.

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
            self._commit(slot, timestamp, change)

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

    def skip(self, still: Callable[[float, float], bool]) -> WindowRead | None:
        """Passes over the newest window, as if it had been read, if nothing moves in it.

        Args:
            still: Told the largest change of the frames that the window reaches over and the newest one's timestamp,
                in seconds; says whether to pass it over.

        Returns:
            The window that was passed over; None if none was.
        """
        with self._changed:
            indices = self._select()
            if indices is None:
                return None
            newest = self._kept[-1]
            motion = max(self._passed_over, *(kept.change for kept in islice(self._kept, indices[0], None)))
            if not still(motion, newest.timestamp):
                return None
            chosen = [self._kept[index] for index in indices]
            self._mark(chosen)
        return WindowRead(tuple(kept.sequence for kept in chosen), tuple(kept.timestamp for kept in chosen))

    def change(self, window: Window) -> None:
        """Reads other windows from now on, of the frames that are there.

        Raises:
            UsageError: It has another number of frames, or reaches further back than the ring.
        """
        if window.frames != self.window.frames or window.capacity > self._capacity:
            raise UsageError(f"{window} does not fit this ring of {self._capacity} frames: make another one")
        with self._changed:
            self.window = window
            self._changed.notify_all()

    def successor(self, ring: FrameRing) -> FrameRing:
        """An empty ring that counts on where this one is; push no more to this one."""
        ring._pushed, ring._dropped, ring._last_timestamp = self._pushed, self._dropped, self._last_timestamp
        return ring

    def clear(self) -> None:
        """Forgets all frames, so that no window reaches over a gap; timestamps may start again. The counts go on."""
        with self._writing, self._changed:
            self._free += [kept.slot for kept in self._kept if kept.slot not in self._pinned]
            self._kept.clear()
            self._read_at = None
            self._last_timestamp = -math.inf
            self._passed_over = 0.0

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

    def _commit(self, slot: int | None, timestamp: float, change: float) -> None:
        with self._changed:
            self._passed_over = max(self._passed_over, change)
            if slot is not None:
                # Only now: until the new frame is whole, the oldest one is needed for a window.
                if len(self._kept) == self._capacity:
                    self._let_oldest_go()
                self._kept.append(_Kept(self._pushed, timestamp, slot, self._passed_over))
                self._passed_over = 0.0
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
        changes = [kept.change for kept in self._kept] if self.window.sampling == "motion" else None
        return self.window.select([kept.timestamp for kept in self._kept], changes)

    def _pin(self) -> list[_Kept] | None:
        """Chooses the newest window and keeps its slots from being reused."""
        with self._changed:
            indices = self._select()
            if indices is None:
                return None
            chosen = [self._kept[index] for index in indices]
            self._pinned = {kept.slot for kept in chosen}
            self._mark(chosen)
            return chosen

    def _mark(self, chosen: list[_Kept]) -> None:
        # What a long hop leaves out between windows by choice was not dropped either.
        first = min(chosen[0].sequence, self._pushed - self.window.hop)
        for kept in self._kept:
            kept.seen |= kept.sequence >= first
        self._read_at = self._pushed

    def _unpin(self) -> None:
        with self._changed:
            kept = {entry.slot for entry in self._kept}
            self._free += [slot for slot in self._pinned if slot not in kept]
            self._pinned = set()
