"""`FrameRing`: a capture thread leaves prepared frames in it, and a recogniser picks its windows from it.

Every slot is allocated once. A pushed frame is resized and normalised straight into a slot, and a window is gathered
once, straight into the engine's input. Both happen outside the lock, so neither side waits for the other's pixels.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..preprocessing import Preprocessing, check_frame
from .slots import Embed, FrameSlots, Slots, TokenSlots
from .window import Window

# In seconds. Clocks that count from 1970 are far below; milliseconds since 1970, a likely mistake, are above.
_LARGEST_TIMESTAMP = 1e11


@dataclass
class _Kept:
    """A frame in the ring."""

    sequence: int  # number of frames that were pushed before this frame
    timestamp: float
    slot: int
    change: float  # how much moves in this frame and in the frames that were passed over just before it
    seen: bool = False  # True if the frame was in the reach of a window
    passing: bool = False  # True if the frame stays only until the next one, because a sparse window is due with it


@dataclass(frozen=True)
class WindowRead:
    """The frames of a window: the sequence number and the timestamp in seconds of each frame, oldest first."""

    sequences: tuple[int, ...]
    timestamps: tuple[float, ...] = field(repr=False)

    @classmethod
    def of(cls, frames: Sequence[_Kept]) -> WindowRead:
        """Describe the window that consists of these frames."""
        return cls(tuple(frame.sequence for frame in frames), tuple(frame.timestamp for frame in frames))


class FrameRing:
    """Keeps the newest `window.capacity` prepared frames. Every method may be called from any thread.

    Of frames that come faster than windows by time can tell apart, only some are kept. The others are not prepared:

    - The ring passes over a frame that comes less than `window.min_spacing` after the last one that it kept.
    - For a sparse window with the period P = 1 / fps, time is cut into periods from the first frame on. The ring keeps
      the first frame of each period. It also keeps the newest frame if a window is due with it, until the next frame
      that it keeps. A window takes the newest frame and T - 1 of the others, which are up to half a period (and half
      the camera's frame interval) from where a ring with all frames would take them.

    When the ring is full, the oldest frame goes. If that frame was never in the reach of a window, it counts as
    dropped: the recogniser was too slow for it. A frame that is being gathered is never written over, because there are
    as many spare slots as a window has frames.

    Args:
        preprocessing: How frames are prepared.
        window: The windows that are read. They set the capacity.
        capacity: Least number of frames to keep. A larger ring can `change` to windows that reach further back.
        embed: Makes a frame's shares of tokens. Windows consist of tokens then, and a frame is embedded when a window
            first takes it, in the thread that reads. None gathers prepared frames.
        tokens: Shape (P, N, C) of the result of `embed`.
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
        slots = slots_for(window, self._capacity)
        self._slots: Slots = (
            FrameSlots(preprocessing, slots) if embed is None else TokenSlots(preprocessing, slots, embed, tokens)
        )
        self._free = list(range(slots))
        self._kept: deque[_Kept] = deque()
        self._pinned: set[int] = set()  # slots of the window that is being gathered
        self._changed = threading.Condition()
        self._writing = threading.Lock()  # one frame is prepared at a time, so that frames stay in order
        self._reading = threading.Lock()
        self._pushed = self._dropped = 0
        self._read_at: int | None = None  # number of frames that had come in when the last window was picked
        self._last_timestamp = -math.inf
        self._passed_over = 0.0  # largest change in the frames that were passed over since the last kept frame
        self._next_period = -math.inf  # when a sparse window's next period begins
        self._closed = False

    @property
    def pushed(self) -> int:
        """Number of frames that came in."""
        return self._pushed

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return self._slots.nbytes

    @property
    def filled(self) -> float:
        """How much of the first window is there, from 0 to 1. 1 from then on, until the ring is cleared."""
        with self._changed:
            if self._read_at is not None or self._select() is not None:
                return 1.0
            seconds = self._last_timestamp - self._kept[0].timestamp if self._kept else 0.0
            return min(self.window.filled(len(self._kept), seconds), 0.999)

    @property
    def dropped(self) -> int:
        """Number of frames that went without ever having been in the reach of a window."""
        return self._dropped

    def push(self, frame: npt.NDArray[np.uint8], timestamp: float, bgr: bool = False, change: float = 0.0) -> None:
        """Prepare a frame into a slot. Never waits for a window to be read.

        Args:
            frame: uint8 (H, W, 3). It is not kept.
            timestamp: Seconds, on any clock that does not run backwards.
            bgr: True if the channels are blue, green, red.
            change: How much moves in the frame, for sampling by motion and for `skip`.

        Raises:
            UsageError: The frame has another shape or dtype, or its timestamp is before the last one or out of range.
        """
        check_frame(frame)
        check_timestamp(timestamp)
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
        """Return whether a window is complete that ends `hop` frames or more after the last window that was read."""
        with self._changed:
            return self._due()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until a window is due, the ring is closed or `timeout` seconds are over. Return whether one is due."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._due(), timeout)
            return self._due()

    def read(self, out: npt.NDArray[np.float32]) -> WindowRead | None:
        """Gather the newest window.

        Args:
            out: Array to write into: float32 (3, T, S, S), or (P, T / N, C) for tokens.

        Returns:
            The frames of the window. None if there are too few frames yet; `out` stays as it was then.

        Raises:
            VmpError: Embedding a frame failed.
        """
        with self._reading:
            frames = self._pin()
            if frames is None:
                return None
            try:
                for index, kept in enumerate(frames):
                    self._slots.read(kept.slot, out, index)
            finally:
                self._unpin()
        return WindowRead.of(frames)

    def skip(self, still: Callable[[float, float], bool]) -> WindowRead | None:
        """Pass over the newest window, as if it had been read, if nothing moves in it.

        Args:
            still: Called with the largest change in the frames from the window's oldest to the newest frame, and the
                newest frame's timestamp in seconds. Returns True to pass the window over.

        Returns:
            The window that was passed over, or None if no window was.
        """
        with self._changed:
            indices = self._select()
            if indices is None:
                return None
            newest = self._kept[-1]
            motion = max(self._passed_over, *(kept.change for kept in islice(self._kept, indices[0], None)))
            if not still(motion, newest.timestamp):
                return None
            frames = [self._kept[index] for index in indices]
            self._mark(frames)
        return WindowRead.of(frames)

    def change(self, window: Window) -> None:
        """Read other windows from now on, of the frames that are in the ring.

        Raises:
            UsageError: The new window has another number of frames, or reaches further back than the ring.
        """
        if window.frames != self.window.frames or window.capacity > self._capacity:
            raise UsageError(f"{window} does not fit this ring of {self._capacity} frames: make another one")
        with self._changed:
            self.window = window
            self._next_period = -math.inf
            self._changed.notify_all()

    def successor(self, ring: FrameRing) -> FrameRing:
        """Let an empty ring count on from this ring's numbers, and return it. Push no more frames to this ring."""
        ring._pushed, ring._dropped, ring._last_timestamp = self._pushed, self._dropped, self._last_timestamp
        return ring

    def clear(self) -> None:
        """Forget all frames, so that no window reaches over a gap. Timestamps may start again. The counts go on."""
        with self._writing, self._changed:
            self._free += [kept.slot for kept in self._kept if kept.slot not in self._pinned]
            self._kept.clear()
            self._read_at = None
            self._last_timestamp = self._next_period = -math.inf
            self._passed_over = 0.0

    def close(self) -> None:
        """End all waiting, for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _reserve(self, timestamp: float) -> int | None:
        """Take a free slot; there always is one. None if the frame comes too soon and is to be passed over."""
        with self._changed:
            if self.window.sparse:
                wanted = timestamp >= self._next_period or self._due_with(timestamp)
            else:
                wanted = not self._kept or timestamp - self._kept[-1].timestamp >= self.window.min_spacing
            return self._free.pop() if wanted else None

    def _due_with(self, timestamp: float) -> bool:
        """Return whether a sparse window would be due if this frame were in the ring."""
        if self._read_at is not None and self._pushed + 1 - self._read_at < self.window.hop:
            return False
        return self.window.select([*(kept.timestamp for kept in self._kept if not kept.passing), timestamp]) is not None

    def _commit(self, slot: int | None, timestamp: float, change: float) -> None:
        with self._changed:
            self._passed_over = max(self._passed_over, change)
            if slot is not None:
                # Frames go only now: until the new frame is whole, a window may need them.
                if self._kept and self._kept[-1].passing:
                    replaced = self._kept.pop()
                    self._passed_over = max(self._passed_over, replaced.change)
                    self._release(replaced.slot)
                if len(self._kept) == self._capacity:
                    self._let_oldest_go()
                passing = self.window.sparse and timestamp < self._next_period
                if self.window.sparse and not passing:
                    self._next_period = self.window.next_period(self._next_period, timestamp)
                self._kept.append(_Kept(self._pushed, timestamp, slot, self._passed_over, passing=passing))
                self._passed_over = 0.0
            self._pushed += 1
            if self._due():
                self._changed.notify_all()

    def _let_oldest_go(self) -> None:
        oldest = self._kept.popleft()
        late = self._read_at is None or self._pushed >= self._read_at + self.window.hop
        self._dropped += late and not oldest.seen  # if it is not late, a long hop leaves the frame out by choice
        self._release(oldest.slot)

    def _release(self, slot: int) -> None:
        if slot not in self._pinned:  # else `_unpin` frees the slot
            self._free.append(slot)

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
        """Choose the newest window, and keep its slots from being reused until `_unpin`."""
        with self._changed:
            indices = self._select()
            if indices is None:
                return None
            frames = [self._kept[index] for index in indices]
            self._pinned = {kept.slot for kept in frames}
            self._mark(frames)
            return frames

    def _mark(self, frames: list[_Kept]) -> None:
        # Frames that a long hop leaves out between windows by choice do not count as dropped either.
        first = min(frames[0].sequence, self._pushed - self.window.hop)
        for kept in self._kept:
            kept.seen |= kept.sequence >= first
        self._read_at = self._pushed

    def _unpin(self) -> None:
        with self._changed:
            kept = {entry.slot for entry in self._kept}
            self._free += [slot for slot in self._pinned if slot not in kept]
            self._pinned = set()


def slots_for(window: Window, capacity: int = 0) -> int:
    """Return the number of a ring's slots: for frames that are kept, are being gathered, and one that is being written.

    Args:
        window: The windows that are read.
        capacity: Least number of frames to keep.
    """
    return max(capacity, window.capacity) + window.frames + 1


def check_timestamp(timestamp: float) -> None:
    """Raise UsageError unless a timestamp is a number of seconds that a clock may give."""
    if not abs(timestamp) <= _LARGEST_TIMESTAMP:  # also true of NaN
        raise UsageError(f"a timestamp must be a finite number of seconds, below 1e11, not {timestamp}")
